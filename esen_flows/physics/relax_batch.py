"""Many structures relaxed at once, with one batch of forces a step.

Converged structures leave the batch, and new ones take their place.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from esen_flows.errors import (
    EsenFlowsError,
    EvaluationError,
    ExplosionError,
    InsufficientMemoryError,
    StructureError,
)
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.physics.frechet import CellFreedom, RelaxationVariables
from esen_flows.physics.optimizers import new_optimizer
from esen_flows.physics.relax_start import RelaxationStart, RelaxationTrajectory, freedom_of
from esen_flows.physics.symmetry_lock import SymmetryLock
from esen_flows.schemas.protocols import RelaxProtocol

# A cell whose volume has changed by more than this factor is no longer the structure that was to be relaxed.
LARGEST_VOLUME_RATIO = 20.0

# Called with the number of a structure, its steps and its largest generalised force in eV/Angstrom.
Watch = Callable[[int, int, float], None]
# The number of a structure, and its trajectory or the error that ended it.
Outcome = tuple[int, RelaxationTrajectory | EsenFlowsError]


@dataclass
class _Member:
    """A structure of the batch."""

    index: int
    lock: SymmetryLock | None
    free_directions: np.ndarray | None
    trajectory: RelaxationTrajectory

    @property
    def atoms(self) -> Atoms:
        return self.trajectory.atoms


class BatchRelaxation:
    """Relaxations that share their force calls and do not influence one another.

    Parameters
    ----------
    force_field
        Evaluates the structures of a step together, in batches as its memory allows.
    protocol
        Protocol of all structures, with free or locked symmetry.
    cells
        Whether the structures are crystals whose cells may relax.
    atoms_at_once
        Largest number of atoms in the batch; a larger structure is relaxed alone.
    watch
        Called with the number of a structure, its steps and its largest generalised force (eV/Angstrom).
    """

    def __init__(
        self, force_field: ForceField, protocol: RelaxProtocol, *, cells: bool, atoms_at_once: int, watch: Watch
    ) -> None:
        self.force_field, self.protocol, self.atoms_at_once, self.watch = force_field, protocol, atoms_at_once, watch
        self._freedom: CellFreedom | None = freedom_of(protocol) if cells else None
        self._optimizer = new_optimizer(protocol.optimizer)
        self._members: list[_Member] = []
        no_cells = np.zeros((0, 3, 3))
        self._variables = RelaxationVariables(
            np.zeros((0, 3)), no_cells, np.zeros(0, dtype=np.intp), self._freedom, no_cells
        )

    def run(self, starts: Iterator[tuple[int, RelaxationStart]]) -> Iterator[Outcome]:
        """The outcomes, in the order in which the relaxations end.

        Parameters
        ----------
        starts
            Structures with their numbers, taken when there is room for them.

        Yields
        ------
        Outcome
            The number of a structure, and its trajectory or the error that ended it.
        """
        waiting = next(starts, None)
        while True:
            entering: list[tuple[int, RelaxationStart]] = []
            atoms = len(self._variables.positions)
            while waiting is not None and (atoms == 0 or atoms + len(waiting[1].atoms) <= self.atoms_at_once):
                entering.append(waiting)
                atoms += len(waiting[1].atoms)
                waiting = next(starts, None)
            self._enter(entering)
            if not self._members:
                return
            yield from self._step()

    def _enter(self, entering: Sequence[tuple[int, RelaxationStart]]) -> None:
        if not entering:
            return
        starts = [start for _, start in entering]
        new = RelaxationVariables(
            np.concatenate([start.atoms.positions for start in starts]),
            np.array([start.atoms.cell.array for start in starts]),
            np.array([len(start.atoms) for start in starts]),
            self._freedom,
            np.array([start.reference_cell for start in starts]),
        )
        self._variables = self._variables.joined(new)
        self._optimizer.enter(new.rows)
        for index, start in entering:
            atoms = start.atoms.copy()
            atoms.info.update(start.atoms.info)
            trajectory = RelaxationTrajectory(atoms, start.reference_cell)
            self._members.append(_Member(index, start.lock, start.free_directions, trajectory))

    def _keep(self, keep: np.ndarray) -> None:
        """Let the structures leave for which `keep`, (structures,) bool, is False."""
        if not keep.all():
            self._optimizer.leave(keep, self._variables.rows)
            self._variables = self._variables.select(keep)
            self._members = [member for member, stays in zip(self._members, keep, strict=True) if stays]

    def _step(self) -> Iterator[Outcome]:
        """Evaluate all structures; let those leave that have failed or converged; move the others."""
        results = self._evaluations()
        for member, result in zip(self._members, results, strict=True):
            if isinstance(result, EsenFlowsError):
                yield member.index, result
        self._keep(np.array([isinstance(result, Evaluation) for result in results]))
        found = [result for result in results if isinstance(result, Evaluation)]
        if not found:
            return
        forces = self._forces(found)
        fmax = self._variables.rows.longest(forces)
        self._record(found, fmax)
        converged = fmax < self.protocol.fmax_ev_per_angstrom
        out_of_steps = [member.trajectory.n_steps >= self.protocol.max_steps for member in self._members]
        done = converged | np.array(out_of_steps)
        for position in np.flatnonzero(done):
            trajectory = self._members[position].trajectory
            trajectory.evaluation, trajectory.converged = found[position], bool(converged[position])
            yield self._members[position].index, trajectory
        forces = forces[self._variables.rows.of(~done)]
        self._keep(~done)
        if self._members:
            yield from self._move(forces)

    def _evaluations(self) -> list[Evaluation | EsenFlowsError]:
        for member, positions, cell in zip(self._members, self._variables.split(), self._variables.cells, strict=True):
            member.atoms.positions[:] = positions
            member.atoms.cell[:] = cell
        results = evaluate_apart(self.force_field, [member.atoms for member in self._members])
        return results if self._freedom is None else [self._with_stress(result) for result in results]

    def _with_stress(self, result: Evaluation | EsenFlowsError) -> Evaluation | EsenFlowsError:
        if isinstance(result, EsenFlowsError) or np.isfinite(result.stress).all():
            return result
        return EvaluationError(f"{self.force_field.label!r} gives no stress to relax a cell by; set relax_cell=false")

    def _forces(self, results: Sequence[Evaluation]) -> np.ndarray:
        """Generalised forces, (rows, 3), projected on the symmetry where it is locked, and on free directions."""
        forces, stresses = [], []
        for member, result in zip(self._members, results, strict=True):
            lock, free = member.lock, member.free_directions
            acting = result.forces if lock is None else lock.forces(result.forces)
            # Optimisers move along combinations of forces, so that what has no force never moves.
            forces.append(acting if free is None else np.einsum("aij,aj->ai", free, acting))
            stresses.append(result.stress if lock is None else lock.stress(result.stress))
        return self._variables.forces(np.concatenate(forces), np.array(stresses))

    def _record(self, results: Sequence[Evaluation], fmax: np.ndarray) -> None:
        for member, result, largest in zip(self._members, results, fmax, strict=True):
            member.trajectory.record(result.energy, float(largest), self.protocol)
            self.watch(member.index, member.trajectory.n_steps, float(largest))

    def _move(self, forces: np.ndarray) -> Iterator[Outcome]:
        """Move all structures; those whose cells explode leave before a cell becomes singular."""
        variables = self._variables
        variables.move(self._optimizer.step(variables.coordinates(), forces, variables.rows))
        if self._freedom is None:
            return
        ratio = np.linalg.det(variables.cells) / np.linalg.det(variables.start)
        intact = (ratio > 1 / LARGEST_VOLUME_RATIO) & (ratio < LARGEST_VOLUME_RATIO)  # False for NaN
        for position in np.flatnonzero(~intact):
            member = self._members[position]
            error = ExplosionError(
                f"the cell of {member.atoms.get_chemical_formula()} has {ratio[position]:.3g} times its volume "
                f"after {len(member.trajectory.energies)} steps, beyond what the force field can describe; use another "
                "force field, or start from a better structure"
            )
            yield member.index, error
        self._keep(intact)


def evaluate_apart(force_field: ForceField, structures: Sequence[Atoms]) -> list[Evaluation | EsenFlowsError]:
    """Evaluations in one call; after an error, of halves, so that only structures that fail alone have no result.

    Parameters
    ----------
    force_field
        Force field.
    structures
        Structures.

    Returns
    -------
    list[Evaluation | EsenFlowsError]
        For each structure its evaluation, or the error by which it fails.
    """
    try:
        return list(force_field.evaluate(structures))
    except (StructureError, EvaluationError, InsufficientMemoryError) as error:
        if len(structures) == 1:
            return [error]
        half = len(structures) // 2
        return evaluate_apart(force_field, structures[:half]) + evaluate_apart(force_field, structures[half:])

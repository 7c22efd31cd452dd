"""Many structures relaxed at once: one batch of forces a step; who has arrived leaves, and the next one enters."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

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
from esen_flows.physics.frechet import CellFreedom, Crystals
from esen_flows.physics.optimizers import optimizer_of
from esen_flows.physics.relax_start import RelaxationStart, RelaxationTrajectory, freedom_of
from esen_flows.schemas.protocols import RelaxProtocol

# A cell that has shrunk or grown by more than this is no longer the structure that was asked about.
LARGEST_VOLUME_RATIO = 20.0

Watch = Callable[[int, int, float], None]
Outcome = tuple[int, RelaxationTrajectory | EsenFlowsError]


@dataclass
class _Member:
    """A structure on its way."""

    index: int
    start: RelaxationStart
    atoms: Atoms
    energies: list[float] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)
    cells: list[np.ndarray] = field(default_factory=list)


class BatchRelaxation:
    """Relaxations that share their force calls; none of them is influenced by the others.

    Parameters
    ----------
    force_field
        evaluates the structures of a step together, in batches as its memory allows.
    protocol
        of all of them; its symmetry may be free or lock.
    cells
        whether these are crystals whose cells relax.
    atoms_at_once
        how many atoms are on their way together; a larger structure goes alone.
    watch
        called with the structure's number, its steps and its largest generalised force (eV/Angstrom).
    """

    def __init__(
        self, force_field: ForceField, protocol: RelaxProtocol, *, cells: bool, atoms_at_once: int, watch: Watch
    ) -> None:
        self.force_field, self.protocol, self.atoms_at_once, self.watch = force_field, protocol, atoms_at_once, watch
        self._freedom: CellFreedom | None = freedom_of(protocol) if cells else None
        self._optimizer = optimizer_of(protocol.optimizer)
        self._members: list[_Member] = []
        self._crystals = Crystals(
            np.zeros((0, 3)), np.zeros((0, 3, 3)), np.zeros(0, dtype=np.intp), self._freedom, np.zeros((0, 3, 3))
        )

    def run(self, starts: Iterator[tuple[int, RelaxationStart]]) -> Iterator[Outcome]:
        """Outcomes as they come, each with its structure's number: the path, or why there is none."""
        waiting = next(starts, None)
        while True:
            entering: list[tuple[int, RelaxationStart]] = []
            atoms = len(self._crystals.positions)
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
        new = Crystals(
            np.concatenate([start.atoms.positions for start in starts]),
            np.array([start.atoms.cell.array for start in starts]),
            np.array([len(start.atoms) for start in starts]),
            self._freedom,
            np.array([start.reference_cell for start in starts]),
        )
        self._crystals = self._crystals.joined(new)
        self._optimizer.enter(new.rows)
        for index, start in entering:
            moving = start.atoms.copy()
            moving.info.update(start.atoms.info)
            self._members.append(_Member(index, start, moving))

    def _leave(self, keep: np.ndarray) -> None:
        if not keep.all():
            self._optimizer.leave(keep, self._crystals.rows)
            self._crystals = self._crystals.select(keep)
            self._members = [member for member, stays in zip(self._members, keep, strict=True) if stays]

    def _step(self) -> Iterator[Outcome]:
        """Evaluate where all are; whoever has arrived or failed leaves; the others move."""
        results = self._evaluations()
        failed = np.array([isinstance(result, EsenFlowsError) for result in results])
        yield from self._failures(results)
        self._leave(~failed)
        found = [result for result in results if isinstance(result, Evaluation)]
        if not found:
            return
        forces = self._forces(found)
        fmax = self._crystals.rows.longest(forces)
        self._record(found, fmax)
        converged = fmax < self.protocol.fmax_ev_per_angstrom
        out_of_steps = np.array([len(member.energies) > self.protocol.max_steps for member in self._members])
        done = converged | out_of_steps
        for position in np.flatnonzero(done):
            member = self._members[position]
            path = RelaxationTrajectory(
                member.atoms,
                member.start.reference_cell,
                found[position],
                float(fmax[position]),
                bool(converged[position]),
                member.energies,
                member.positions,
                member.cells,
            )
            yield member.index, path
        forces = forces[self._crystals.rows.of(~done)]
        self._leave(~done)
        if self._members:
            yield from self._move(forces)

    def _failures(self, results: Sequence[Evaluation | EsenFlowsError]) -> Iterator[Outcome]:
        for member, result in zip(self._members, results, strict=True):
            if isinstance(result, EsenFlowsError):
                yield member.index, result

    def _evaluations(self) -> list[Evaluation | EsenFlowsError]:
        for member, positions, cell in zip(self._members, self._crystals.split(), self._crystals.cells, strict=True):
            member.atoms.positions[:] = positions
            member.atoms.cell[:] = cell
        results = evaluated_apart(self.force_field, [member.atoms for member in self._members])
        return results if self._freedom is None else [self._with_stress(result) for result in results]

    def _with_stress(self, result: Evaluation | EsenFlowsError) -> Evaluation | EsenFlowsError:
        if isinstance(result, EsenFlowsError) or np.isfinite(result.stress).all():
            return result
        return EvaluationError(f"{self.force_field.label!r} gives no stress to relax a cell by; set relax_cell=false")

    def _forces(self, results: Sequence[Evaluation]) -> np.ndarray:
        """Generalised forces, (rows, 3), projected on the symmetry where it is locked."""
        forces, stresses = [], []
        for member, result in zip(self._members, results, strict=True):
            lock = member.start.lock
            forces.append(result.forces if lock is None else lock.forces(result.forces))
            stresses.append(result.stress if lock is None else lock.stress(result.stress))
        return self._crystals.forces(np.concatenate(forces), np.array(stresses))

    def _record(self, results: Sequence[Evaluation], fmax: np.ndarray) -> None:
        for member, result, largest in zip(self._members, results, fmax, strict=True):
            member.energies.append(result.energy)
            if self.protocol.trajectory:
                member.positions.append(member.atoms.positions.copy())
                member.cells.append(member.atoms.cell.array.copy())
            self.watch(member.index, len(member.energies) - 1, float(largest))

    def _move(self, forces: np.ndarray) -> Iterator[Outcome]:
        """One step of all; what explodes leaves before its cell has no inverse."""
        crystals = self._crystals
        crystals.move(self._optimizer.step(crystals.coordinates(), forces, crystals.rows))
        if self._freedom is None:
            return
        ratio = np.linalg.det(crystals.cells) / np.linalg.det(crystals.start)
        whole = (ratio > 1 / LARGEST_VOLUME_RATIO) & (ratio < LARGEST_VOLUME_RATIO)  # NaN is neither
        for position in np.flatnonzero(~whole):
            member = self._members[position]
            yield (
                member.index,
                ExplosionError(
                    f"the cell of {member.atoms.get_chemical_formula()} has {ratio[position]:.3g} times its volume "
                    f"after {len(member.energies)} steps; the force field does not know such a structure: use "
                    "another one, or start from a better structure"
                ),
            )
        self._leave(whole)


def evaluated_apart(force_field: ForceField, structures: Sequence[Atoms]) -> list[Evaluation | EsenFlowsError]:
    """Evaluations in one call; where that fails, of halves, until only what fails by itself is left out."""
    try:
        return list(force_field.evaluate(structures))
    except (StructureError, EvaluationError, InsufficientMemoryError) as error:
        if len(structures) == 1:
            return [error]
        half = len(structures) // 2
        return evaluated_apart(force_field, structures[:half]) + evaluated_apart(force_field, structures[half:])

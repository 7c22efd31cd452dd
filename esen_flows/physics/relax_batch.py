"""Many structures relaxed at once on the device of their force field, with one batch of forces a step.

Converged structures leave the batch, and new ones take their place. A step waits for the device once, for the largest
forces; a step at which structures leave waits once more, for their results.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from esen_flows.data.batch_state import BatchState
from esen_flows.data.cells import determinant
from esen_flows.data.ragged import to_device, to_host
from esen_flows.errors import (
    EsenFlowsError,
    EvaluationError,
    ExplosionError,
    InsufficientMemoryError,
    StructureError,
)
from esen_flows.forcefield.contract import BatchEvaluation, Evaluation, ForceField
from esen_flows.physics.frechet import CellFreedom, RelaxationVariables
from esen_flows.physics.optimizers import new_optimizer
from esen_flows.physics.projections import Projections
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
        self._optimizer = new_optimizer(protocol.optimizer, force_field.device)
        self._members: list[_Member] = []
        self._steps = np.zeros(0, dtype=np.int64)  # of each member, -1 before its first evaluation
        self._state = BatchState.of([], force_field.device)
        self._variables = RelaxationVariables(self._state, self._freedom, self._state.cells)
        self._projections: Projections | None = None  # None where nothing is projected

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
            atoms = self._state.atoms.total
            while waiting is not None and (atoms == 0 or atoms + len(waiting[1].atoms) <= self.atoms_at_once):
                entering.append(waiting)
                atoms += len(waiting[1].atoms)
                waiting = next(starts, None)
            yield from self._enter(entering)
            if not self._members and waiting is None:
                return
            if self._members:
                yield from self._step()

    def _enter(self, entering: Sequence[tuple[int, RelaxationStart]]) -> Iterator[Outcome]:
        if not entering:
            return
        try:
            new = BatchState.of([start.atoms for _, start in entering], self.force_field.device)
            self.force_field.find_neighbors(new)
        except (StructureError, InsufficientMemoryError) as error:
            half = len(entering) // 2
            if not half:
                yield entering[0][0], error
                return
            yield from self._enter(entering[:half])
            yield from self._enter(entering[half:])
            return
        cells = np.array([start.reference_cell for _, start in entering])
        reference = new.cells if self._freedom is None else to_device(cells, new.device)
        variables = RelaxationVariables(new, self._freedom, reference)
        self._state, self._variables = self._state.joined(new), self._variables.joined(variables)
        self._optimizer.enter(variables.rows)
        for index, start in entering:
            atoms = start.atoms.copy()
            atoms.info.update(start.atoms.info)
            trajectory = RelaxationTrajectory(atoms, start.reference_cell)
            self._members.append(_Member(index, start.lock, start.free_directions, trajectory))
        self._steps = np.append(self._steps, np.full(len(entering), -1))
        self._project()

    def _project(self) -> None:
        locks, free = ([getattr(one, name) for one in self._members] for name in ("lock", "free_directions"))
        self._projections = None
        if any(one is not None for one in (*locks, *free)):
            counts = [len(member.atoms) for member in self._members]
            self._projections = Projections(locks, free, counts, self._state.device)

    def _keep(self, keep: np.ndarray) -> None:
        """Let the structures leave for which `keep`, (structures,) bool, is False."""
        if not keep.all():
            places = np.flatnonzero(keep)
            self._optimizer.keep(places, self._variables.rows)
            self._state, self._variables = self._state.select(places), self._variables.select(places)
            self._members, self._steps = [self._members[place] for place in places], self._steps[places]
            if self._projections is not None:
                self._project()

    def _step(self) -> Iterator[Outcome]:
        """Evaluate and move all structures, then let those leave that have failed or converged where they were."""
        result, failures = evaluate_apart(self.force_field.evaluate_batch, self._state)
        for place, error in failures.items():
            yield self._members[place].index, error
        if failures:
            stay = np.array([place not in failures for place in range(len(self._members))])
            result = _selected(result, self._state, np.flatnonzero(stay))
            self._keep(stay)
        if not self._members:
            return
        here, variables = self._state, self._variables
        acting, stress = result.forces, result.stress
        if self._projections is not None:
            acting, stress = self._projections.forces(acting), self._projections.stresses(stress)
        forces = variables.forces(here, acting, stress)
        step = self._optimizer.step(variables.coordinates(), forces, variables.rows)
        self._variables, self._state = variables.moved(here, step)
        ratio = determinant(self._state.cells) / determinant(variables.start)
        read = self._state.read(
            result.energy,
            variables.rows.longest(forces),
            _finite(result, here),
            _finite(result, here, stress=True),
            ratio,
        )
        yield from self._let_leave(here, result, read)

    def _let_leave(self, here: BatchState, result: BatchEvaluation, read: np.ndarray) -> Iterator[Outcome]:
        """Outcomes of the structures that end at this step; `here` and `result` are of before it, `read` of both."""
        energy, fmax, finite, finite_stress, ratio = read
        usable = (finite > 0) & ((finite_stress > 0) | (self._freedom is None))
        for place in np.flatnonzero(~usable):
            yield self._members[place].index, self._not_finite(place, bool(finite[place]))
        self._record(here, usable, energy, fmax)
        out_of_steps = self._steps >= self.protocol.max_steps
        converged = fmax < self.protocol.fmax_ev_per_angstrom
        done = usable & (converged | out_of_steps)
        yield from self._finished(np.flatnonzero(done), here, result, energy, converged)
        exploded = np.zeros_like(done)
        if self._freedom is not None:  # before a cell becomes singular
            intact = (ratio > 1 / LARGEST_VOLUME_RATIO) & (ratio < LARGEST_VOLUME_RATIO)  # False for NaN
            exploded = usable & ~done & ~intact
        for place in np.flatnonzero(exploded):
            yield self._members[place].index, self._explosion(place, ratio[place])
        self._keep(usable & ~done & ~exploded)

    def _record(self, here: BatchState, usable: np.ndarray, energy: np.ndarray, fmax: np.ndarray) -> None:
        if self.protocol.trajectory:
            positions, cells = to_host(here.positions), to_host(here.cells)
            for place, member in enumerate(self._members):
                _place(member.atoms, positions[here.atoms.starts[place] :][: len(member.atoms)], cells[place])
        self._steps += 1
        columns = (column.tolist() for column in (usable, energy, fmax, self._steps))
        for member, good, value, largest, steps in zip(self._members, *columns, strict=True):
            if good:
                member.trajectory.record(value, largest, self.protocol)
                self.watch(member.index, steps, largest)

    def _finished(
        self, places: np.ndarray, here: BatchState, result: BatchEvaluation, energy: np.ndarray, converged: np.ndarray
    ) -> Iterator[Outcome]:
        """Trajectories of structures, with the results that belong to their last geometry."""
        if not len(places):
            return
        rows, systems = here.atoms.of(places), to_device(places, here.device)
        of_atoms = torch.cat((here.positions.index_select(0, rows), result.forces.index_select(0, rows)), dim=1)
        of_cells = torch.cat((here.cells.index_select(0, systems), result.stress.index_select(0, systems)), dim=2)
        flat, n = to_host(torch.cat((of_cells.reshape(-1), of_atoms.reshape(-1)))), 18 * len(places)
        spreads = None if result.spread is None else to_host(result.spread.index_select(0, systems))
        cells, atoms = flat[:n].reshape(-1, 3, 6), flat[n:].reshape(-1, 6)
        first = 0
        for number, (place, cell) in enumerate(zip(places, cells, strict=True)):
            member = self._members[place]
            own = atoms[first : first + len(member.atoms)]
            first += len(member.atoms)
            _place(member.atoms, own[:, :3], cell[:, :3])
            evaluation = Evaluation(float(energy[place]), own[:, 3:].copy(), cell[:, 3:].copy())
            member.trajectory.evaluation = replace(evaluation, spread=None if spreads is None else spreads[number])
            member.trajectory.converged = bool(converged[place])
            yield member.index, member.trajectory

    def _not_finite(self, place: np.intp, only_stress: bool) -> EvaluationError:
        label, atoms = self.force_field.label, self._members[place].atoms
        if only_stress:
            return EvaluationError(f"{label!r} gives no stress to relax a cell by; set relax_cell=false")
        return EvaluationError(
            f"{label!r} returned NaN or infinity for {atoms.get_chemical_formula()}; check its interatomic distances, "
            "or use dtype float64"
        )

    def _explosion(self, place: np.intp, ratio: float) -> ExplosionError:
        member = self._members[place]
        return ExplosionError(
            f"the cell of {member.atoms.get_chemical_formula()} has {ratio:.3g} times its volume after "
            f"{len(member.trajectory.energies)} steps, beyond what the force field can describe; use another force "
            "field, or start from a better structure"
        )


def _place(atoms: Atoms, positions: np.ndarray, cell: np.ndarray) -> None:
    atoms.positions[:] = positions
    if atoms.pbc.all():
        atoms.cell[:] = cell


def _finite(result: BatchEvaluation, state: BatchState, *, stress: bool = False) -> Tensor:
    """(systems,) bool, whether the stress, or energy and forces, are numbers."""
    if stress:
        return torch.isfinite(result.stress).flatten(1).all(dim=1)
    nothing = 0.0 * (result.forces[:, 0] + result.forces[:, 1] + result.forces[:, 2])  # NaN where one is not finite
    return torch.isfinite(result.energy) & (state.atoms.reduce(nothing) == 0)


def _selected(result: BatchEvaluation, state: BatchState, places: np.ndarray) -> BatchEvaluation:
    rows, systems = state.atoms.of(places), to_device(places, state.device)
    return BatchEvaluation(
        result.energy.index_select(0, systems),
        result.forces.index_select(0, rows),
        result.stress.index_select(0, systems),
        spread=None if result.spread is None else result.spread.index_select(0, systems),
    )


def evaluate_apart(
    evaluate: Callable[[BatchState], BatchEvaluation], state: BatchState
) -> tuple[BatchEvaluation, dict[int, EsenFlowsError]]:
    """Results of one call, and no errors; after an error, of halves, so that only structures that fail alone have none.

    Parameters
    ----------
    evaluate
        Method of a force field that takes a batch.
    state
        The batch.

    Returns
    -------
    tuple[BatchEvaluation, dict[int, EsenFlowsError]]
        Energies, forces, stresses and spreads, zero for structures with an error, and these errors by the number of the
        structure.
    """
    try:
        return evaluate(state), {}
    except (StructureError, EvaluationError, InsufficientMemoryError) as error:
        if state.n_systems == 1:
            zeros = torch.zeros_like
            return BatchEvaluation(state.cells.new_zeros(1), zeros(state.positions), zeros(state.cells)), {0: error}
    half = state.n_systems // 2
    (first, errors), (second, others) = (
        evaluate_apart(evaluate, state.select(np.arange(*ends))) for ends in ((0, half), (half, state.n_systems))
    )
    energy, forces, stress = (
        torch.cat([getattr(one, name) for one in (first, second)]) for name in ("energy", "forces", "stress")
    )
    spread = None
    if first.spread is not None or second.spread is not None:  # a half without has failed
        spread = torch.cat([one.energy.new_zeros(len(one.energy), 3) if one.spread is None else one.spread
                            for one in (first, second)])  # fmt: skip
    return BatchEvaluation(energy, forces, stress, spread=spread), errors | {
        half + place: error for place, error in others.items()
    }

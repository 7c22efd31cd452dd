"""Molecular dynamics of one structure or of many, with one batch of forces a step."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from ase import Atoms

from esen_flows.errors import (
    EsenFlowsError,
    EvaluationError,
    ExplosionError,
    InputError,
    InsufficientMemoryError,
    StructureError,
)
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.physics.md.document import document_of
from esen_flows.physics.md.forces import DynamicsForces, MovingBatch, Outcome
from esen_flows.physics.md.integrators import Body, Integrator, integrator_of
from esen_flows.physics.md.start import degrees_of_freedom, start_of_dynamics
from esen_flows.physics.relax import ATOMS_AT_ONCE, relax
from esen_flows.physics.relax_batch import Watch
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.md_output import MDOutput

# Of MLIPAudit's test of stability: hotter than this above the temperature of the start, a run has exploded.
EXPLOSION_KELVIN = 10_000.0
_CELL = 9
Progress = Callable[[int, float], None]


class Checkpoint(Protocol):
    """Where an unfinished trajectory is kept: pieces, each with the state after it and the frames since the last one.

    `esen_flows.store.partial_results.PartialSeries` is one.
    """

    def load(self) -> list[np.ndarray]:
        """The pieces that were kept.

        Returns
        -------
        list[np.ndarray]
            Arrays in their order; none at the start.
        """

    def due(self, n_bytes: int) -> bool:
        """Whether a piece should be kept now.

        Parameters
        ----------
        n_bytes
            Size of the piece.

        Returns
        -------
        bool
            True if so.
        """

    def append(self, piece: np.ndarray) -> bool:
        """Keep one more piece.

        Parameters
        ----------
        piece
            The piece.

        Returns
        -------
        bool
            False if that is not possible now; then the next piece holds this one too.
        """


def molecular_dynamics(
    atoms: Atoms,
    force_field: ForceField,
    protocol: MDProtocol,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> MDOutput:
    """The trajectory of a structure in its constant cell.

    Parameters
    ----------
    atoms
        The structure; it is not changed, and its calculator and momenta are ignored. Fixed atoms and components stay
        where they are.
    force_field
        Force field.
    protocol
        Integrator, time, temperature and seed.
    progress
        Called after every step with the number of steps and the present temperature (K).
    checkpoint
        Keeps the unfinished trajectory, and gives it back to continue with the same bits; None to keep nothing.

    Returns
    -------
    MDOutput
        Frames, energies and what follows from them.

    Raises
    ------
    ExplosionError
        The temperature rises by more than 10,000 K, or the force field fails on the way.
    StructureError
        The structure has no atoms, NaN, or no atom that can move.
    InputError
        The protocol has no temperature for the structure.
    NotConvergedError, UnknownElementError, EvaluationError
        The relaxation before fails, or the force field refuses the start.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from esen_flows.forcefield.load import load_force_field
    >>> protocol = MDProtocol(ensemble="nve", n_steps=50, time_step=2.0)
    >>> output = molecular_dynamics(bulk("Cu", cubic=True), load_force_field("emt"), protocol)
    >>> output.positions_angstrom.shape
    (6, 4, 3)
    >>> bool(np.ptp(output.potential_energies_ev + output.kinetic_energies_ev) < 1e-3)
    True
    """
    watch = None if progress is None else lambda index, steps, kelvin: progress(steps, kelvin)
    ((_, outcome),) = molecular_dynamics_many(
        [atoms], force_field, protocol, watch=watch, checkpoints=lambda index: checkpoint
    )
    if isinstance(outcome, EsenFlowsError):
        raise outcome
    return outcome


def molecular_dynamics_many(
    structures: Iterable[Atoms],
    force_field: ForceField,
    protocol: MDProtocol | Sequence[MDProtocol],
    *,
    atoms_at_once: int = ATOMS_AT_ONCE,
    watch: Watch | None = None,
    checkpoints: Callable[[int], Checkpoint | None] | None = None,
) -> Iterator[tuple[int, MDOutput | EsenFlowsError]]:
    """`molecular_dynamics` of many structures, which share force calls and do not influence one another.

    Parameters
    ----------
    structures
        Structures of any kind, taken as there is room for them; they are not changed.
    force_field
        Force field.
    protocol
        One protocol for all, or one for each structure: these may differ in everything but `parity`, `force_symmetry`
        and `forces`.
    atoms_at_once
        Largest number of atoms that move together; a larger structure moves alone.
    watch
        Called for each structure after every step with its number, its steps and its temperature (K).
    checkpoints
        Where the unfinished trajectory of a structure, by its number, is kept.

    Yields
    ------
    tuple[int, MDOutput | EsenFlowsError]
        The number of a structure in the order of `structures`, and its document or the error that
        `molecular_dynamics` would raise, in the order in which the trajectories end.

    Raises
    ------
    InputError
        The protocols differ in `parity`, `force_symmetry` or `forces`.
    ModelError
        The protocol names direct forces, and the force field has none.
    """
    protocols = [protocol] if isinstance(protocol, MDProtocol) else protocol
    if len({(one.parity, one.force_symmetry, one.forces) for one in protocols}) != 1:
        raise InputError(
            "structures that share force calls share `parity`, `force_symmetry` and `forces`; give all the same"
        )
    forces = DynamicsForces.of(force_field, protocols[0])
    run = _Run(atoms_at_once, watch)
    yield from run.outcomes(_members(structures, forces, protocol, checkpoints))


@dataclass
class _Member:
    """A structure in the batch, with its frames: potential and kinetic energy, heat, stress and positions in rows."""

    index: int
    atoms: Atoms
    protocol: MDProtocol
    temperature: float
    body: Body
    integrator: Integrator
    checkpoint: Checkpoint | None
    forces: DynamicsForces  # with the axes of this structure, where these matter
    frames: list[np.ndarray] = field(default_factory=list)
    kept: int = 0
    spreads: list[np.ndarray] = field(default_factory=list)

    @property
    def begun(self) -> bool:
        return bool(self.frames)

    def record(self) -> None:
        body = self.body
        scalars = np.array([body.energy, body.kinetic_energy, body.heat])
        self.frames.append(np.concatenate([scalars, body.stress.ravel(), body.positions.ravel()]))

    def take(self, result: Evaluation, step: int) -> None:
        if result.spread is not None and step % self.forces.interval == 0:  # of one force field, that of the frames
            self.spreads.append(result.spread)
        self.body.energy, self.body.stress = result.energy, np.asarray(result.stress, dtype=float)
        self.body.forces = self.body.projected(result.forces)

    def keep(self, *, now: bool = False) -> None:
        """Keep the state and the frames since the last time, if the checkpoint wants them."""
        if self.checkpoint is None or not self.begun:
            return
        new = self.frames[self.kept :]
        n_bytes = sum(frame.nbytes for frame in new)
        if now or self.checkpoint.due(n_bytes):
            state = [self.atoms.cell.array.ravel(), self.body.state()]
            if self.checkpoint.append(np.concatenate([*state, *new])):
                self.kept = len(self.frames)

    def resume(self) -> None:
        """Continue from what the checkpoint has kept, if there is something."""
        pieces = [] if self.checkpoint is None else self.checkpoint.load()
        size, row = _CELL + len(self.body.state()), 12 + self.body.positions.size
        if not pieces or any(piece.ndim != 1 or len(piece) < size or (len(piece) - size) % row for piece in pieces):
            return
        self.atoms.set_cell(pieces[-1][:_CELL].reshape(3, 3))
        self.body.restore(pieces[-1][_CELL:size])
        self.atoms.positions[:] = self.body.positions  # no step follows if the run was over
        self.frames = [frame for piece in pieces for frame in piece[size:].reshape(-1, row)]
        self.kept = len(self.frames)
        # The first frame is the start, after the relaxation; this member was made from what was before it.
        start = self.atoms.copy()
        start.set_positions(self.frames[0][12:].reshape(-1, 3), apply_constraint=False)
        self.forces = self.forces.about(start)


def _members(
    structures: Iterable[Atoms],
    forces: DynamicsForces,
    protocol: MDProtocol | Sequence[MDProtocol],
    checkpoints: Callable[[int], Checkpoint | None] | None,
) -> Iterator[tuple[int, "_Member | EsenFlowsError"]]:
    for index, atoms in enumerate(structures):
        own = protocol if isinstance(protocol, MDProtocol) else protocol[index]
        try:
            yield index, _member(index, atoms, forces, own, checkpoints(index) if checkpoints else None)
        except EsenFlowsError as error:
            yield index, error


def _member(
    index: int, atoms: Atoms, forces: DynamicsForces, protocol: MDProtocol, checkpoint: Checkpoint | None
) -> _Member:
    def at_start(structure: Atoms) -> _Member:
        start = start_of_dynamics(structure, protocol)
        body = Body.at_start(start, protocol.tchain, degrees_of_freedom(start, protocol))
        kelvin = protocol.temperature_kelvin(start.numbers)
        integrator = integrator_of(protocol, start.numbers, kelvin)
        return _Member(index, start, protocol, kelvin, body, integrator, checkpoint, forces.about(start))

    member = at_start(atoms)
    member.resume()
    if member.begun or protocol.relax is None:
        return member
    settled = {"parity": "as_is", "force_symmetry": None, "forces": "conservative"}  # as the force field has them
    relaxed = relax(atoms, forces.accurate, protocol.relax.model_copy(update=settled)).structure.to_atoms()
    relaxed.info.update(member.atoms.info)
    return at_start(relaxed)


def _evaluated(moving: Sequence[tuple[_Member, int]], batches: dict[int, MovingBatch]) -> list[Outcome]:
    """Results of the structures at their steps, in one call for all that share their forces.

    The batches are those of the last step, of which those that have no structures any more are removed.
    """
    groups: dict[int, dict[int, tuple[Atoms, int]]] = {}
    for member, step in moving:
        batches.setdefault(id(member.forces), MovingBatch(member.forces))
        groups.setdefault(id(member.forces), {})[member.index] = (member.atoms, step)
    for key in batches.keys() - groups.keys():
        del batches[key]
    results = {number: outcome for key, own in groups.items() for number, outcome in batches[key].at(own).items()}
    return [results[member.index] for member, _ in moving]


class _Run:
    """The structures in motion, and their steps."""

    def __init__(self, atoms_at_once: int, watch: Watch | None) -> None:
        self.atoms_at_once, self.watch = atoms_at_once, watch
        self.members: list[_Member] = []
        self._batches: dict[int, MovingBatch] = {}  # by the identity of the forces that they hold
        self._between_steps = True

    def outcomes(
        self, starts: Iterator[tuple[int, _Member | EsenFlowsError]]
    ) -> Iterator[tuple[int, MDOutput | EsenFlowsError]]:
        """Trajectories and errors in the order in which they end; an interruption keeps what was reached."""
        try:
            waiting = next(starts, None)
            while waiting is not None or self.members:
                entering: list[_Member] = []
                atoms = sum(len(member.atoms) for member in self.members)
                while waiting is not None:
                    index, start = waiting
                    if isinstance(start, EsenFlowsError):
                        yield index, start
                    elif atoms == 0 or atoms + len(start.atoms) <= self.atoms_at_once:
                        entering.append(start)
                        atoms += len(start.atoms)
                    else:
                        break
                    waiting = next(starts, None)
                yield from self._enter(entering)
                yield from self._step()
        except BaseException:
            if self._between_steps:
                for member in self.members:
                    member.keep(now=True)
            raise

    def _enter(self, entering: Sequence[_Member]) -> Iterator[tuple[int, EsenFlowsError]]:
        """Evaluate new structures at their start; those that continue know their forces."""
        fresh = [member for member in entering if not member.begun]
        self.members += [member for member in entering if member.begun]
        results = _evaluated([(member, 0) for member in fresh], {})
        for member, result in zip(fresh, results, strict=True):
            if isinstance(result, EsenFlowsError):
                yield member.index, result
                continue
            member.take(result, 0)
            member.record()
            self.members.append(member)

    def _step(self) -> Iterator[tuple[int, MDOutput | EsenFlowsError]]:
        moving = [member for member in self.members if member.body.step < member.protocol.n_steps]
        self._between_steps = False
        for member in moving:
            member.integrator.begin(member.body)
            member.atoms.positions[:] = member.body.positions
        results = _evaluated([(member, member.body.step + 1) for member in moving], self._batches)
        failed: dict[int, EsenFlowsError] = {}
        for member, result in zip(moving, results, strict=True):
            error = self._finish(member, result)
            if error is not None:
                failed[member.index] = error
            if isinstance(error, ExplosionError):  # where the force field began to fail is worth learning from
                error.positions_angstrom = np.array(member.frames)[:, 12:].reshape(-1, len(member.atoms), 3)
        self.members = [member for member in self.members if member.index not in failed]
        self._between_steps = True
        for member in self.members:
            if self.watch is not None:
                self.watch(member.index, member.body.step, member.body.temperature)
            member.keep()
        yield from failed.items()
        ended = [member for member in self.members if member.body.step >= member.protocol.n_steps]
        self.members = [member for member in self.members if member.body.step < member.protocol.n_steps]
        for member in ended:
            document = document_of(member.atoms, member.body, np.array(member.frames), member.protocol)
            if member.spreads:
                spread = np.sqrt(np.mean(np.square(member.spreads), axis=0))
                document = document.model_copy(update={"orientation_spread": spread})
            yield member.index, document

    def _finish(self, member: _Member, result: Outcome) -> EsenFlowsError | None:
        """Finish the step of a structure; the error that ends its trajectory, or None."""
        body, name = member.body, member.atoms.get_chemical_formula()
        at = f"step {body.step + 1} ({(body.step + 1) * member.protocol.time_step_fs(member.atoms.numbers):g} fs)"
        remedy = "use another force field, a shorter time_step or a lower temperature"
        if isinstance(result, InsufficientMemoryError):
            return result
        if isinstance(result, StructureError | EvaluationError):
            return ExplosionError(
                f"the trajectory of {name} left what the force field can evaluate at {at}: {result}; {remedy}"
            )
        if isinstance(result, EsenFlowsError):
            return result
        member.take(result, body.step + 1)
        member.integrator.end(body)
        body.step += 1
        if not body.temperature <= member.temperature + EXPLOSION_KELVIN:  # also for NaN
            return ExplosionError(
                f"the trajectory of {name} exploded at {at}: {body.temperature:.3g} K, more than "
                f"{EXPLOSION_KELVIN:g} K above the {member.temperature:g} K of the start; {remedy}"
            )
        if body.step % member.protocol.traj_interval == 0:
            member.record()
        return None

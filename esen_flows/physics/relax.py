"""Relaxation of positions and cell, of one structure or of many at once, with or without the symmetry kept."""

from collections.abc import Callable, Iterable, Iterator

from ase import Atoms

from esen_flows.errors import EsenFlowsError, EvaluationError, InsufficientMemoryError, StructureError
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.symmetrized import with_parity
from esen_flows.physics.relax_ase import descend_by_ase
from esen_flows.physics.relax_batch import BatchRelaxation, Outcome, Watch
from esen_flows.physics.relax_start import RelaxationStart, RelaxationTrajectory, output_of, start_of
from esen_flows.physics.symmetry import space_group_number
from esen_flows.schemas.documents import RelaxOutput
from esen_flows.schemas.protocols import RelaxProtocol

Progress = Callable[[int, float], None]

# Enough small cells to fill a GPU's batches; a laptop's are full with far less.
ATOMS_AT_ONCE = 4000
# A free second stage is thrown away where it changes the space group by this measure (PhononDB's protocol).
REDIRECT_SYMPREC_ANGSTROM = 1e-5


def relax(
    atoms: Atoms, force_field: ForceField, protocol: RelaxProtocol, progress: Progress | None = None
) -> RelaxOutput:
    """The nearest minimum of the energy, in positions and (for a crystal) in the cell.

    A molecule (no periodic direction) has no cell to relax: its positions are relaxed. With `symmetry="fix"` or
    `"lock"` the crystal is first put exactly on the symmetry found within `symprec_angstrom`, and stays there.

    Parameters
    ----------
    atoms
        the starting structure; it is not changed, and its constraints and calculator are ignored.
    progress
        called with the number of steps done and the largest generalised force (eV/Angstrom).

    Returns
    -------
    RelaxOutput
        The relaxed structure; `fmax_ev_per_angstrom` is the largest force on an atom or on the cell (as the optimiser
        sees it), `forces_ev_per_angstrom` and `stress_ev_per_angstrom3` (NaN without a cell) are those of the force
        field.

    Raises
    ------
    StructureError
        no atoms, NaN, a cell to be relaxed with one or two periodic directions, symmetry not found.
    NotConvergedError
        the largest force is still above `fmax_ev_per_angstrom` after `max_steps`.
    ExplosionError
        the cell has lost all proportion.
    UnknownElementError, EvaluationError
        from the force field.
    """

    def watch(index: int, steps: int, fmax: float) -> None:
        if progress is not None:
            progress(steps, fmax)

    ((_, outcome),) = relax_many([atoms], force_field, protocol, watch=watch)
    if isinstance(outcome, EsenFlowsError):
        raise outcome
    return outcome


def relax_many(
    structures: Iterable[Atoms],
    force_field: ForceField,
    protocol: RelaxProtocol,
    *,
    atoms_at_once: int = ATOMS_AT_ONCE,
    watch: Watch | None = None,
) -> Iterator[tuple[int, RelaxOutput | EsenFlowsError]]:
    """`relax` of many structures, which share force calls and do not influence one another.

    Structures are taken from `structures` when there is room for them. Those of which cells are relaxed and those
    without (molecules) take their steps in batches of their own. With `symmetry="fix"` they go one by one, on ASE.

    Parameters
    ----------
    structures
        any kinds; they are not changed.
    atoms_at_once
        how many atoms are on their way together.
    watch
        called with a structure's number, its steps and its largest generalised force (eV/Angstrom).

    Yields
    ------
    Iterator[tuple[int, RelaxOutput | EsenFlowsError]]
        A structure's number in the order of `structures`, and its document or the error that `relax` would raise; those
        that end first come first.
    """
    averaged = with_parity(force_field, protocol.parity)
    say = watch or (lambda index, steps, fmax: None)
    given: dict[int, Atoms] = {}
    first: dict[int, RelaxationTrajectory] = {}  # stages that a free one follows

    def starts() -> Iterator[tuple[int, RelaxationStart | EsenFlowsError]]:
        for index, atoms in enumerate(structures):
            given[index] = atoms
            try:
                yield index, start_of(atoms, protocol)
            except StructureError as error:
                yield index, error

    outcomes = _descended(starts(), averaged, protocol, atoms_at_once, say)
    if protocol.then_free:
        again = protocol.model_copy(update={"symmetry": "free", "then_free": False})
        outcomes = _descended(_second(outcomes, first), averaged, again, atoms_at_once, say)
    for index, outcome in outcomes:
        atoms = given.pop(index)
        if isinstance(outcome, EsenFlowsError):
            yield index, outcome
            continue
        try:
            yield index, _document(atoms, outcome, first.pop(index, None), protocol)
        except EsenFlowsError as error:  # not converged
            yield index, error


def _second(
    outcomes: Iterator[Outcome], first: dict[int, RelaxationTrajectory]
) -> Iterator[tuple[int, RelaxationStart | EsenFlowsError]]:
    """Where the free stage begins: with the last structure of the first one, counted from the same cell."""
    for index, outcome in outcomes:
        if isinstance(outcome, EsenFlowsError):
            yield index, outcome
        else:
            first[index] = outcome
            yield index, RelaxationStart(outcome.atoms, outcome.reference_cell)


def _document(
    atoms: Atoms, path: RelaxationTrajectory, before: RelaxationTrajectory | None, protocol: RelaxProtocol
) -> RelaxOutput:
    if before is None:
        return output_of(atoms, path, protocol)
    groups = [space_group_number(stage.atoms, REDIRECT_SYMPREC_ANGSTROM) for stage in (before, path)]
    broken = groups[0] != groups[1]
    return output_of(atoms, before if broken else path.after(before), protocol, redirected=broken)


def _descended(
    starts: Iterator[tuple[int, RelaxationStart | EsenFlowsError]],
    force_field: ForceField,
    protocol: RelaxProtocol,
    atoms_at_once: int,
    watch: Watch,
) -> Iterator[Outcome]:
    """Paths of the starts, and the errors among them as they are."""
    if protocol.symmetry == "fix":
        yield from _one_by_one(starts, force_field, protocol, watch)
        return
    errors: list[Outcome] = []
    without_cell: list[tuple[int, RelaxationStart]] = []

    def with_cell() -> Iterator[tuple[int, RelaxationStart]]:
        for index, start in starts:
            if isinstance(start, EsenFlowsError):
                errors.append((index, start))
            elif start.atoms.pbc.all():
                yield index, start
            else:
                without_cell.append((index, start))

    for cells, chosen in ((True, with_cell()), (False, iter(without_cell))):
        batch = BatchRelaxation(force_field, protocol, cells=cells, atoms_at_once=atoms_at_once, watch=watch)
        for outcome in batch.run(chosen):
            yield from errors
            errors.clear()
            yield outcome
    yield from errors


def _one_by_one(
    starts: Iterator[tuple[int, RelaxationStart | EsenFlowsError]],
    force_field: ForceField,
    protocol: RelaxProtocol,
    watch: Watch,
) -> Iterator[Outcome]:
    for index, start in starts:
        if isinstance(start, EsenFlowsError):
            yield index, start
            continue

        def say(steps: int, fmax: float, index: int = index) -> None:
            watch(index, steps, fmax)

        try:
            yield index, descend_by_ase(start, force_field, protocol, say)
        except (StructureError, EvaluationError, InsufficientMemoryError) as error:
            yield index, error

"""Relaxation of positions and cell, of one structure or of many at once, with free or kept symmetry."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from ase import Atoms

from esen_flows.errors import EsenFlowsError, EvaluationError, InputError, InsufficientMemoryError, StructureError
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.direct import with_forces
from esen_flows.physics.force_symmetry import about, symmetrized
from esen_flows.physics.relax_ase import relax_by_ase
from esen_flows.physics.relax_batch import BatchRelaxation, Outcome, Watch
from esen_flows.physics.relax_start import RelaxationStart, RelaxationTrajectory, deformed, output_of, start_of
from esen_flows.physics.symmetry import space_group_number
from esen_flows.schemas.documents import RelaxOutput
from esen_flows.schemas.protocols import RelaxProtocol

Progress = Callable[[int, float], None]
# The number of a structure, and its checked start or the error that refuses it.
_Start = tuple[int, RelaxationStart | EsenFlowsError]

# Enough small cells to fill the batches of a GPU; a laptop's are full with far fewer atoms.
ATOMS_AT_ONCE = 4000
# A free second stage is discarded if it changes the space group within this tolerance (PhononDB's protocol).
REDIRECT_SYMPREC_ANGSTROM = 1e-5


def relax(
    atoms: Atoms, force_field: ForceField, protocol: RelaxProtocol, progress: Progress | None = None
) -> RelaxOutput:
    """The nearest minimum of the energy, in positions and (for a crystal) in the cell.

    A molecule (no periodic direction) has no cell to relax: its positions are relaxed. With `symmetry="fix"` or
    `"lock"` the crystal is first put exactly on the symmetry found within `symprec_angstrom`, and keeps it.

    Parameters
    ----------
    atoms
        Starting structure. It is not changed, and its calculator is ignored. Fixed atoms and components (ASE's
        FixAtoms, FixCartesian, FixScaled, and FixedPlane and FixedLine along the axes) stay where they are, which is
        possible with a constant cell and symmetry="free" alone.
    force_field
        Force field.
    protocol
        What is relaxed, how, and until when.
    progress
        Called with the number of steps and the largest generalised force (eV/Angstrom).

    Returns
    -------
    RelaxOutput
        The relaxed structure with its energy. `fmax_ev_per_angstrom` is the largest force on an atom or on the cell as
        the optimiser sees it, without the forces on fixed coordinates. `forces_ev_per_angstrom` and
        `stress_ev_per_angstrom3` (NaN without a cell) are those of the force field.

    Raises
    ------
    StructureError
        The structure has no atoms or has NaN, a cell to be relaxed has one or two periodic directions or fixed atoms,
        or the symmetry is not found.
    NotConvergedError
        The largest force is still above `fmax_ev_per_angstrom` after `max_steps`.
    SymmetryBrokenError
        The symmetry that had to be kept is lower at the end.
    ExplosionError
        The volume of the cell has changed by more than a factor of 20.
    UnknownElementError, EvaluationError
        The force field refuses the structure or fails.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from esen_flows.forcefield.load import load_force_field
    >>> from esen_flows.schemas.protocols import RelaxProtocol
    >>> output = relax(bulk("Cu", a=3.7), load_force_field("emt"), RelaxProtocol())
    >>> output.converged, output.space_group_final
    (True, 225)
    >>> print(f"{(4 * output.volume_per_atom_angstrom3) ** (1 / 3):.2f} Angstrom")  # lattice constant
    3.59 Angstrom
    """
    watch = None if progress is None else lambda index, steps, fmax: progress(steps, fmax)
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

    Structures are taken from `structures` when there is room for them. Crystals whose cells are relaxed and structures
    without a cell (molecules) are relaxed in separate batches. With `symmetry="fix"` structures are relaxed one by one
    by ASE.

    Parameters
    ----------
    structures
        Starting structures of any kind; they are not changed.
    force_field
        Force field.
    protocol
        What is relaxed, how, and until when.
    atoms_at_once
        Largest number of atoms that are relaxed together.
    watch
        Called with the number of a structure, its steps and its largest generalised force (eV/Angstrom).

    Raises
    ------
    InputError
        The protocol has symmetry="explore", which `physics.exploration` computes.

    Yields
    ------
    tuple[int, RelaxOutput | EsenFlowsError]
        The number of a structure in the order of `structures`, and its document or the error that `relax` would raise,
        in the order in which the relaxations end.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from esen_flows.forcefield.load import load_force_field
    >>> from esen_flows.schemas.protocols import RelaxProtocol
    >>> metals = [bulk("Cu", a=3.7), bulk("Au", a=4.2)]
    >>> outcomes = dict(relax_many(metals, load_force_field("emt"), RelaxProtocol()))
    >>> [f"{outcomes[number].volume_per_atom_angstrom3:.1f} Angstrom^3" for number in (0, 1)]
    ['11.6 Angstrom^3', '16.7 Angstrom^3']
    """
    if protocol.symmetry == "explore":
        raise InputError("symmetry=explore is more than one relaxation; call physics.exploration.explore")
    chosen, watch = with_forces(force_field, protocol.forces), watch or _ignore
    averaged = symmetrized(chosen, protocol.parity, protocol.force_symmetry)
    inputs: dict[int, Atoms] = {}
    first_stages: dict[int, RelaxationTrajectory] = {}  # of relaxations with a free second stage
    outcomes = _trajectories(_starts(structures, protocol, inputs), averaged, protocol, atoms_at_once, watch)
    if protocol.then_free:
        free = protocol.model_copy(update={"symmetry": "free", "then_free": False})
        outcomes = _trajectories(_free_starts(outcomes, first_stages), averaged, free, atoms_at_once, watch)
    for index, outcome in outcomes:
        atoms = inputs.pop(index)
        if isinstance(outcome, EsenFlowsError):
            yield index, outcome
        else:
            yield index, _document(atoms, outcome, first_stages.pop(index, None), protocol)


def _ignore(index: int, steps: int, fmax: float) -> None:
    pass


def _starts(structures: Iterable[Atoms], protocol: RelaxProtocol, inputs: dict[int, Atoms]) -> Iterator[_Start]:
    """Starts of the first stage; structures are added to `inputs` as they are taken."""
    for index, given in enumerate(structures):
        atoms = inputs[index] = deformed(given, protocol.deformation)
        try:
            yield index, start_of(atoms, protocol)
        except StructureError as error:
            yield index, error


def _free_starts(outcomes: Iterator[Outcome], first_stages: dict[int, RelaxationTrajectory]) -> Iterator[_Start]:
    """Starts of the free stage: the last structure of the first one, with the same undeformed cell."""
    for index, outcome in outcomes:
        if isinstance(outcome, EsenFlowsError):
            yield index, outcome
        else:
            first_stages[index] = outcome
            yield index, RelaxationStart(outcome.atoms, outcome.reference_cell)


def _document(
    atoms: Atoms, trajectory: RelaxationTrajectory, first_stage: RelaxationTrajectory | None, protocol: RelaxProtocol
) -> RelaxOutput | EsenFlowsError:
    redirected = None
    if first_stage is not None:
        groups = [space_group_number(stage.atoms, REDIRECT_SYMPREC_ANGSTROM) for stage in (first_stage, trajectory)]
        redirected = groups[0] != groups[1]
        trajectory = first_stage if redirected else trajectory.after(first_stage)
    try:
        return output_of(atoms, trajectory, protocol, redirected)
    except EsenFlowsError as error:  # not converged, or symmetry broken
        return error


def _trajectories(
    starts: Iterator[_Start], force_field: ForceField, protocol: RelaxProtocol, atoms_at_once: int, watch: Watch
) -> Iterator[Outcome]:
    """Trajectories of the starts; errors among the starts pass through."""
    if protocol.symmetry == "fix":
        yield from _trajectories_by_ase(starts, force_field, protocol, watch)
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


def _trajectories_by_ase(
    starts: Iterator[_Start], force_field: ForceField, protocol: RelaxProtocol, watch: Watch
) -> Iterator[Outcome]:
    for index, start in starts:
        if isinstance(start, EsenFlowsError):
            yield index, start
            continue
        try:
            yield index, relax_by_ase(start, about(force_field, start.atoms), protocol, partial(watch, index))
        except (StructureError, EvaluationError, InsufficientMemoryError) as error:
            yield index, error

"""Energy, forces and stress of structures as they are given, many in one batch."""

from collections.abc import Iterable, Iterator, Sequence

from ase import Atoms

from esen_flows.errors import EsenFlowsError, EvaluationError, InsufficientMemoryError, StructureError
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.forcefield.direct import with_forces
from esen_flows.physics.force_symmetry import symmetrized
from esen_flows.physics.relax import ATOMS_AT_ONCE
from esen_flows.physics.relax_batch import Watch
from esen_flows.schemas.documents import StaticOutput, StructureData
from esen_flows.schemas.protocols import StaticProtocol
from esen_flows.structures.checks import check_size


def static(atoms: Atoms, force_field: ForceField, protocol: StaticProtocol) -> StaticOutput:
    """Energy, forces, stress and, where the force field gives them, energies of the atoms.

    Parameters
    ----------
    atoms
        Structure of any periodicity; it is not changed, and its calculator is ignored.
    force_field
        Force field.
    protocol
        How mirror images are treated.

    Returns
    -------
    StaticOutput
        The results of the force field. Forces on fixed atoms are not set to zero.

    Raises
    ------
    StructureError
        The structure has no atoms or has NaN.
    UnknownElementError, EvaluationError, InsufficientMemoryError
        The force field refuses the structure or fails.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from esen_flows.forcefield.load import load_force_field
    >>> print(f"{static(bulk('Cu'), load_force_field('emt'), StaticProtocol()).energy_ev:.4f} eV")
    -0.0057 eV
    """
    ((_, outcome),) = static_many([atoms], force_field, protocol)
    if isinstance(outcome, EsenFlowsError):
        raise outcome
    return outcome


def static_many(
    structures: Iterable[Atoms],
    force_field: ForceField,
    protocol: StaticProtocol,
    *,
    atoms_at_once: int = ATOMS_AT_ONCE,
    watch: Watch | None = None,
) -> Iterator[tuple[int, StaticOutput | EsenFlowsError]]:
    """`static` of many structures, which share force calls and do not influence one another.

    Parameters
    ----------
    structures
        Structures of any kind, taken as batches have room for them; they are not changed.
    force_field
        Force field.
    protocol
        How mirror images are treated.
    atoms_at_once
        Largest number of atoms of a batch; a larger structure is evaluated alone.
    watch
        Called for each structure with its number, 1 and its largest force (eV/Angstrom).

    Yields
    ------
    tuple[int, StaticOutput | EsenFlowsError]
        The number of a structure in the order of `structures`, and its document or the error that `static` would raise.
    """
    chosen = with_forces(force_field, protocol.forces)
    averaged = symmetrized(chosen, protocol.parity, protocol.force_symmetry)
    batch: list[tuple[int, Atoms]] = []
    size = 0
    for index, atoms in enumerate(structures):
        if batch and size + len(atoms) > atoms_at_once:
            yield from _evaluated(batch, averaged, watch)
            batch, size = [], 0
        batch.append((index, atoms))
        size += len(atoms)
    yield from _evaluated(batch, averaged, watch)


def _evaluated(
    batch: Sequence[tuple[int, Atoms]], force_field: ForceField, watch: Watch | None
) -> Iterator[tuple[int, StaticOutput | EsenFlowsError]]:
    """Evaluate a batch; where a structure is refused, each by itself, so that the others get their results."""
    if not batch:
        return
    try:
        for _, atoms in batch:
            check_size(atoms, atoms.get_chemical_formula())
        results = force_field.evaluate([atoms for _, atoms in batch])
    except (StructureError, EvaluationError, InsufficientMemoryError) as error:
        if len(batch) == 1:
            yield batch[0][0], error
            return
        for one in batch:
            yield from _evaluated([one], force_field, watch)
        return
    for (index, atoms), result in zip(batch, results, strict=True):
        if watch is not None:
            watch(index, 1, float((result.forces**2).sum(axis=1).max() ** 0.5))
        yield index, _document(atoms, result)


def _document(atoms: Atoms, result: Evaluation) -> StaticOutput:
    return StaticOutput(
        structure=StructureData.from_atoms(atoms),
        energy_ev=result.energy,
        energy_per_atom_ev=result.energy / len(atoms),
        forces_ev_per_angstrom=result.forces,
        stress_ev_per_angstrom3=result.stress,
        atom_energies_ev=result.energies,
        orientation_spread=result.spread,
    )

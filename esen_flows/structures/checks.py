"""Checks that refuse a structure before anything expensive is computed for it."""

import warnings

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from esen_flows.errors import StructureError, StructureWarning, UnknownElementError
from esen_flows.schemas.atom_properties import properties_of
from esen_flows.schemas.card import ModelReference
from esen_flows.schemas.domain import chemical_system, domain_of
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.schemas.protocols import RelaxProtocol

MINIMUM_DISTANCE_ANGSTROM = 0.5  # below any bond (H2: 0.74), above any rounding of a duplicated site
MOST_ATOMS_IN_PAIRS = 300  # a table of all pairs of more atoms takes longer than a neighbour list
MOST_ATOMS = 1_000_000  # more than any force field here evaluates; files can claim any number
LARGEST_ANGSTROM = 1e5  # ten micrometres: cell lists of larger boxes do not fit into memory
HEAVIEST_U = 500.0  # the heaviest nuclei have 300
# The layers of van der Waals crystals are closer than this; slabs and molecules in a box have a wider gap.
VACUUM_ANGSTROM = 8.0


def check_structure(atoms: Atoms, name: str) -> None:
    """Refuse a structure for which the result of a force field would mean nothing.

    Parameters
    ----------
    atoms
        The structure.
    name
        Its name for error messages.

    Raises
    ------
    StructureError
        There are no atoms, a coordinate is NaN, infinite or absurdly large, a site has no element, the periodic cell is
        flat, or atoms are closer than 0.5 Angstrom.
    """
    if len(atoms) == 0:
        raise StructureError(f"{name} holds no atoms")
    check_size(atoms, name)
    if ((atoms.numbers < 1) | (atoms.numbers >= len(chemical_symbols))).any():
        raise StructureError(
            f"{name} has sites without an element (dummy atoms, unknown symbols); correct or remove them"
        )
    periodic = atoms.cell.array[atoms.pbc]
    heights = np.linalg.svd(periodic, compute_uv=False) if len(periodic) else np.ones(1)
    if heights.min() < 0.1:
        raise StructureError(f"{name} has a flat or missing lattice vector: cell {atoms.cell.array.tolist()}")
    _refuse_overlap(atoms, name)


def check_size(atoms: Atoms, name: str) -> None:
    """Refuse a structure of absurd size, for which neighbour lists and symmetry searches would exhaust the memory.

    Parameters
    ----------
    atoms
        The structure.
    name
        Its name for error messages.

    Raises
    ------
    StructureError
        There are more than a million atoms; a coordinate or lattice vector is NaN, infinite or beyond 10^5 Angstrom; a
        mass is NaN, not positive or beyond 500 u.
    """
    if len(atoms) > MOST_ATOMS:
        raise StructureError(f"{name} has {len(atoms)} atoms; at most {MOST_ATOMS} can be computed")
    for what, values in (("positions", atoms.positions), ("cell vectors", atoms.cell.array)):
        if not np.isfinite(values).all():
            raise StructureError(f"{name} has NaN or infinite {what}; correct the file")
        largest = np.abs(values).max(initial=0.0)
        if largest > LARGEST_ANGSTROM:
            raise StructureError(
                f"{name} has {what} of {largest:.3g} Angstrom; at most {LARGEST_ANGSTROM:.0e} can be computed; "
                "give them in Angstrom"
            )
    masses = atoms.arrays.get("masses", np.ones(1))
    if not ((masses > 0) & (masses < HEAVIEST_U)).all():  # False for NaN
        wrong = masses[~((masses > 0) & (masses < HEAVIEST_U))][0]
        raise StructureError(f"{name} has an atom with a mass of {wrong} u; correct the column of masses")


def check_elements(atoms: Atoms, model: ModelReference) -> None:
    """Refuse elements that the force field was not trained on.

    Parameters
    ----------
    atoms
        The structure.
    model
        The force field; one without a list of elements accepts all.

    Raises
    ------
    UnknownElementError
        There are such elements; the message names them and those of the force field.
    """
    if model.elements is None:
        return
    foreign = sorted(set(atoms.numbers.tolist()) - model.elements)
    if foreign:
        known = ", ".join(chemical_symbols[z] for z in sorted(model.elements))
        raise UnknownElementError(
            f"{model.label} never saw {', '.join(chemical_symbols[z] for z in foreign)}; it knows {known}; "
            "choose another force field (esen-flows models)"
        )


def warn_outside(atoms: Atoms, name: str, model: ModelReference) -> None:
    """Warn of a structure whose elements the force field never saw together.

    Parameters
    ----------
    atoms
        The structure.
    name
        Its name for the warning.
    model
        The force field; of one whose training structures are not known nothing is said.
    """
    if (text := outside_of(atoms, model)) is not None:
        warnings.warn(f"{name} is outside of what {model.label} was trained on: {text}", StructureWarning, stacklevel=2)


def outside_of(atoms: Atoms, model: ModelReference) -> str | None:
    """Why a structure is outside of the domain of a force field.

    Parameters
    ----------
    atoms
        The structure.
    model
        The force field.

    Returns
    -------
    str | None
        The reason; None if it is inside, or if nothing is known about the training structures.
    """
    chemsys = chemical_system(atoms.get_chemical_symbols())
    if domain_of(chemsys, model.chemical_systems) != "outside":
        return None
    calibrated = model.card is not None and model.card.calibration is not None
    end = "each result says whether its atoms are like training atoms" if calibrated else "results may be wrong"
    return f"no training structure has exactly the elements {chemsys.replace('-', ', ')}; {end}"


def check_crystal(atoms: Atoms, name: str, purpose: str) -> None:
    """Refuse molecules, wires and slabs for a property that only crystals have.

    Parameters
    ----------
    atoms
        The structure.
    name
        Its name for error messages.
    purpose
        Name of the property for error messages.

    Raises
    ------
    StructureError
        The structure is not periodic in three directions, has a vacuum of more than 8 Angstrom, or has fixed atoms.
    """
    check_all_free(atoms, name, purpose)
    if not atoms.pbc.all():
        count = int(atoms.pbc.sum())
        raise StructureError(f"{purpose} needs a crystal, but {name} is periodic in {count} of 3 directions")
    fractions = np.sort(np.mod(atoms.cell.scaled_positions(atoms.positions), 1.0), axis=0)
    gaps = np.diff(np.vstack([fractions, fractions[:1] + 1.0]), axis=0).max(axis=0)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    widest = int(np.argmax(gaps * heights))
    if gaps[widest] * heights[widest] > VACUUM_ANGSTROM:
        raise StructureError(
            f"{purpose} needs a crystal, but {name} has {gaps[widest] * heights[widest]:.1f} Angstrom of vacuum along "
            f"{'abc'[widest]}: it looks like a slab or a molecule in a box"
        )


def check_start(atoms: Atoms, name: str, kind: str, protocol: Frozen) -> None:
    """Refuse a structure whose periodicity, fixed atoms or symmetry do not fit a property.

    Parameters
    ----------
    atoms
        The structure.
    name
        Its name for error messages.
    kind
        The property.
    protocol
        Its protocol.

    Raises
    ------
    StructureError
        Only crystals without fixed atoms have the property, or a relaxation contradicts the structure.
    InputError
        Molecular dynamics has no temperature for the structure.
    """
    if entry_of(kind).crystal:
        check_crystal(atoms, name, kind)
    elif isinstance(protocol, RelaxProtocol):
        check_relaxation(atoms, name, protocol)
    elif isinstance(protocol, MDProtocol):
        protocol.temperature_kelvin(atoms.numbers)
        if protocol.relax is not None:
            check_relaxation(atoms, name, protocol.relax)


def check_all_free(atoms: Atoms, name: str, purpose: str) -> None:
    """Refuse fixed atoms for a property in which every atom moves.

    Parameters
    ----------
    atoms
        The structure.
    name
        Its name for error messages.
    purpose
        Name of the property for error messages.

    Raises
    ------
    StructureError
        Atoms or some of their components are fixed.
    """
    if _has_fixed_atoms(atoms, name):
        raise StructureError(
            f"{purpose} moves every atom, but {name} has fixed atoms (selective dynamics, move_mask or constraints); "
            "relax it with relax_cell=false first if they matter, then take them out of the file (of ASE Atoms: "
            "set_constraint())"
        )


def check_relaxation(atoms: Atoms, name: str, protocol: RelaxProtocol) -> None:
    """Refuse a relaxation whose cell or symmetry contradicts the structure.

    Parameters
    ----------
    atoms
        The structure.
    name
        Its name for error messages.
    protocol
        Protocol of the relaxation.

    Raises
    ------
    StructureError
        A cell is to be relaxed that is periodic in one or two directions or has fixed atoms, or symmetry is to be kept
        in a crystal with fixed atoms.
    """
    if protocol.relax_cell and atoms.pbc.any() and not atoms.pbc.all():
        raise StructureError(
            f"{name} is periodic in {int(atoms.pbc.sum())} of 3 directions, so its cell cannot be relaxed; "
            "set relax_cell=false (--set relax_cell=false)"
        )
    if not (atoms.pbc.any() and _has_fixed_atoms(atoms, name)):
        return
    fixed = f"{name} has fixed atoms (selective dynamics, move_mask or constraints)"
    if protocol.relax_cell:
        raise StructureError(
            f"{fixed}, which a changing cell would move; set relax_cell=false (--set relax_cell=false), or "
            "take them out of the file (of ASE Atoms: set_constraint())"
        )
    if protocol.symmetry != "free" and atoms.pbc.all():
        raise StructureError(
            f"{fixed}, which symmetry={protocol.symmetry} would move onto their symmetric places; set symmetry=free "
            "(--set symmetry=free)"
        )


def _has_fixed_atoms(atoms: Atoms, name: str) -> bool:
    try:
        return properties_of(atoms).is_constrained
    except StructureError as error:
        raise StructureError(f"{name}: {error}") from error


def _refuse_overlap(atoms: Atoms, name: str) -> None:
    first, second, distances = _close_pairs(atoms)
    if len(distances):
        nearest = int(np.argmin(distances))
        i, j = int(first[nearest]), int(second[nearest])
        what = f"atoms {i} ({atoms.symbols[i]}) and {j} ({atoms.symbols[j]})"
        if i == j:
            what = f"atom {i} ({atoms.symbols[i]}) and its periodic image"
        raise StructureError(
            f"{name}: {what} are {distances[nearest]:.3f} Angstrom apart, closer than "
            f"{MINIMUM_DISTANCE_ANGSTROM}; correct the structure"
        )


def _close_pairs(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of atoms that are closer than the minimum distance: both indices and the distance in Angstrom.

    If the cell is more than twice this distance high in every direction, only the nearest image of a pair by fractional
    coordinates can be that close. A table of these is many times faster than a neighbour list.
    """
    cell = atoms.cell.complete().array
    inverse = np.linalg.inv(cell)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    if len(atoms) > MOST_ATOMS_IN_PAIRS or heights[atoms.pbc].min(initial=np.inf) <= 2.01 * MINIMUM_DISTANCE_ANGSTROM:
        from ase.neighborlist import neighbor_list

        if len(shared := _in_one_cube(atoms)):
            first, second = shared[:, :1], shared[:, 1:]
            return (
                first.ravel(),
                second.ravel(),
                atoms.get_distances(shared[0, 0], shared[0, 1:], mic=bool(atoms.pbc.any())),
            )
        found: tuple[np.ndarray, np.ndarray, np.ndarray] = neighbor_list("ijd", atoms, MINIMUM_DISTANCE_ANGSTROM)
        return found
    first, second = np.triu_indices(len(atoms), 1)
    fractions = atoms.positions @ inverse
    apart = fractions[second] - fractions[first]
    apart[:, atoms.pbc] -= np.round(apart[:, atoms.pbc])
    distances = np.linalg.norm(apart @ cell, axis=1)
    close = distances < MINIMUM_DISTANCE_ANGSTROM
    return first[close], second[close], distances[close]


def _in_one_cube(atoms: Atoms) -> np.ndarray:
    """Two atoms (1, 2) in one cube whose diagonal is the minimum distance, or none (0, 2).

    With at most one atom in a cube a list of neighbours is short. Many atoms in one would have a list of all pairs.
    """
    places = atoms.get_positions(wrap=True) if atoms.pbc.any() else atoms.positions
    cubes = np.floor(places / (MINIMUM_DISTANCE_ANGSTROM / np.sqrt(3.0))).astype(np.int64)
    _, first, inverse = np.unique(cubes, axis=0, return_index=True, return_inverse=True)
    others = np.flatnonzero(first[inverse.ravel()] != np.arange(len(atoms)))
    return np.array([[first[inverse.ravel()[i]], i] for i in others[:1]], dtype=np.int64).reshape(-1, 2)

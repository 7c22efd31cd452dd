"""Checks that refuse a structure before anything expensive is computed for it."""

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from esen_flows.errors import StructureError, UnknownElementError
from esen_flows.schemas.card import ModelReference

MINIMUM_DISTANCE_ANGSTROM = 0.5  # below any bond (H2: 0.74), above any rounding of a duplicated site
MOST_ATOMS_IN_PAIRS = 300  # a table of all pairs of more atoms takes longer than a neighbour list
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
        There are no atoms, a coordinate is NaN or infinite, a site has no element, the periodic cell is flat, or atoms
        are closer than 0.5 Angstrom.
    """
    if len(atoms) == 0:
        raise StructureError(f"{name} holds no atoms")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise StructureError(f"{name} has NaN or infinite positions or cell vectors; correct the file")
    if ((atoms.numbers < 1) | (atoms.numbers >= len(chemical_symbols))).any():
        raise StructureError(
            f"{name} has sites without an element (dummy atoms, unknown symbols); correct or remove them"
        )
    periodic = atoms.cell.array[atoms.pbc]
    heights = np.linalg.svd(periodic, compute_uv=False) if len(periodic) else np.ones(1)
    if heights.min() < 0.1:
        raise StructureError(f"{name} has a flat or missing lattice vector: cell {atoms.cell.array.tolist()}")
    _refuse_overlap(atoms, name)


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
        The structure is not periodic in three directions, or has a vacuum of more than 8 Angstrom.
    """
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


def check_cell_relaxation(atoms: Atoms, name: str) -> None:
    """Refuse to relax the cell of a wire or a slab.

    Parameters
    ----------
    atoms
        The structure.
    name
        Its name for error messages.

    Raises
    ------
    StructureError
        The structure is periodic in one or two directions.
    """
    if atoms.pbc.any() and not atoms.pbc.all():
        raise StructureError(
            f"{name} is periodic in {int(atoms.pbc.sum())} of 3 directions, so its cell cannot be relaxed; "
            "add --set relax_cell=false"
        )


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

        found: tuple[np.ndarray, np.ndarray, np.ndarray] = neighbor_list("ijd", atoms, MINIMUM_DISTANCE_ANGSTROM)
        return found
    first, second = np.triu_indices(len(atoms), 1)
    fractions = atoms.positions @ inverse
    apart = fractions[second] - fractions[first]
    apart[:, atoms.pbc] -= np.round(apart[:, atoms.pbc])
    distances = np.linalg.norm(apart @ cell, axis=1)
    close = distances < MINIMUM_DISTANCE_ANGSTROM
    return first[close], second[close], distances[close]

"""Structures that no force field should be asked about, refused before anything expensive happens."""

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from esen_flows.errors import StructureError, UnknownElementError
from esen_flows.schemas.card import ModelReference

MINIMUM_DISTANCE_ANGSTROM = 0.5  # below any bond (H2: 0.74), above any rounding of a duplicated site
MOST_ATOMS_IN_PAIRS = 300
# Layers of van der Waals crystals are less than this apart; slabs and molecules in a box are more.
VACUUM_ANGSTROM = 8.0


def check_structure(atoms: Atoms, name: str) -> None:
    """Refuse a structure that no force field should be asked about.

    Raises
    ------
    StructureError
        no atoms, NaN or infinity, no elements, a flat periodic cell, or atoms closer than 0.5 Angstrom.
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
    """Refuse elements that the force field was never trained on.

    Raises
    ------
    UnknownElementError
        naming them and those that it knows.
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
    """Refuse molecules, wires and slabs where only a crystal has an answer.

    Raises
    ------
    StructureError
        not periodic in three directions, or with a vacuum of more than 8 Angstrom.
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

    Raises
    ------
    StructureError
        periodic in one or two directions.
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
    """Pairs of atoms closer than the least distance, and how far they are from one another.

    In a cell that is more than twice that distance high in every direction, only the nearest image of a pair by
    fractional coordinates can be so close: many times faster than a neighbour list.
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

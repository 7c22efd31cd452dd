"""Neighbour search in structures of all sizes, by the method that is fastest for each."""

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from esen_flows.data.image_search import FoundPairs, image_pairs
from esen_flows.data.neighbors import sorted_pairs
from esen_flows.data.ragged import Rows, to_device, to_host

# Larger structures are searched one by one on the CPU, at linear cost; with a CPU also fewer structures than these.
MOST_ATOMS_BY_IMAGES = {"cpu": 24, "cuda": 128}
FEW_STRUCTURES = 8
# Pairs of displaced copies are searched once, with a skin that these displacements do not use up.
LARGEST_DISPLACEMENT_ANGSTROM, SKIN_OF_COPIES_ANGSTROM = 0.1, 0.45


def are_displaced_copies(templates: Sequence[Atoms], positions: Tensor, cells: Tensor) -> bool:
    """Whether structures are one structure with its atoms slightly displaced, as for force constants.

    Parameters
    ----------
    templates
        The structures, whose periodicity is read; pairs do not depend on elements.
    positions
        (atoms, 3) float64 present positions in Angstrom.
    cells
        (structures, 3, 3) float64 present lattice vectors in Angstrom.

    Returns
    -------
    bool
        True for two structures or more that have the same cell, and no atom of which is further than
        `LARGEST_DISPLACEMENT_ANGSTROM` from its place in the first.
    """
    first, count = templates[0], len(templates)
    alike = count > 1 and all(len(one) == len(first) and (one.pbc == first.pbc).all() for one in templates[1:])
    if not alike:
        return False
    moved = positions.view(count, -1, 3) - positions[: len(first)]
    near = (moved.abs() <= LARGEST_DISPLACEMENT_ANGSTROM / 3**0.5).all()  # False for NaN
    return bool(near & (cells == cells[0]).all())


def found_pairs(templates: Sequence[Atoms], positions: Tensor, cells: Tensor, radius: float) -> FoundPairs:
    """All pairs within a radius, pairs of an atom with its own images included.

    Parameters
    ----------
    templates
        The structures, whose periodicity is read.
    positions
        (atoms, 3) float64 present positions in Angstrom.
    cells
        (structures, 3, 3) float64 present lattice vectors in Angstrom, linearly independent.
    radius
        Largest distance in Angstrom. Pairs that are longer by up to 1e-10 of it may be among the result.

    Returns
    -------
    FoundPairs
        The pairs, sorted by structure, target, source and shift.
    """
    counts, device = np.array([len(atoms) for atoms in templates]), positions.device
    few = device.type == "cpu" and len(counts) < FEW_STRUCTURES
    large = counts > (0 if few else MOST_ATOMS_BY_IMAGES[device.type])
    if large.all() or not large.any():
        return (_one_by_one if large.any() else _by_images)(templates, positions, cells, radius)
    atoms = Rows(counts, device)
    parts, numbers = [], []
    for kind, find in ((False, _by_images), (True, _one_by_one)):
        some = np.flatnonzero(large == kind)
        rows = atoms.of(some)
        chosen = [templates[int(index)] for index in some]
        part = find(chosen, positions.index_select(0, rows), cells.index_select(0, to_device(some, device)), radius)
        source, target = (rows.index_select(0, column) for column in (part.source, part.target))
        parts.append((source, target, part.shifts))
        numbers.append((some, part.counts))
    order, counts = (np.concatenate(columns) for columns in zip(*numbers, strict=True))
    place = np.argsort(order)
    rows = Rows(counts, device).of(place)
    source, target, shifts = (torch.cat(columns).index_select(0, rows) for columns in zip(*parts, strict=True))
    return FoundPairs(source, target, shifts, counts[place])


def _by_images(templates: Sequence[Atoms], positions: Tensor, cells: Tensor, radius: float) -> FoundPairs:
    pbc = np.stack([atoms.pbc for atoms in templates])
    return image_pairs(positions, cells, pbc, Rows([len(atoms) for atoms in templates], positions.device), radius)


def _one_by_one(templates: Sequence[Atoms], positions: Tensor, cells: Tensor, radius: float) -> FoundPairs:
    """Pairs by the neighbour list of one structure after the other, which is made on the CPU."""
    device, places, lattices = positions.device, to_host(positions), to_host(cells)
    columns, first = [], 0
    for atoms, cell in zip(templates, lattices, strict=True):
        source, target, shifts = sorted_pairs(places[first : first + len(atoms)], cell, atoms.pbc, radius)
        columns.append((source + first, target + first, shifts))
        first += len(atoms)
    joined = columns[0] if len(columns) == 1 else [np.concatenate(column) for column in zip(*columns, strict=True)]
    counts = np.array([len(one[0]) for one in columns])
    begin, end, images = (to_device(column, device) for column in joined)
    return FoundPairs(begin, end, images, counts)

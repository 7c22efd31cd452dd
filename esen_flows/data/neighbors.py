"""Neighbour pairs within a cutoff: no cap on their number, any cell, any mix of periodic directions, linear cost."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from vesin import NeighborList

from esen_flows.errors import StructureError

# Two atoms this close are one atom entered twice; no training set holds such a pair.
MINIMUM_DISTANCE_ANGSTROM = 0.01


@dataclass(frozen=True)
class NeighborPairs:
    """Directed pairs, sorted by target.

    Attributes
    ----------
    source, target : (pairs,) int64; the target receives the message.
    shifts : (pairs, 3) int64 lattice translation of the source.
    vectors : (pairs, 3) float64 Angstrom, r_source + shift.cell - r_target.
    """

    source: np.ndarray
    target: np.ndarray
    shifts: np.ndarray
    vectors: np.ndarray


def neighbor_pairs(atoms: Atoms, cutoff_angstrom: float) -> NeighborPairs:
    """All pairs with 0 < distance <= cutoff, self-images included.

    Raises
    ------
    StructureError : NaN coordinates, a periodic direction without a lattice vector, or coinciding atoms.
    """
    positions = np.ascontiguousarray(atoms.positions, dtype=np.float64)
    if not np.isfinite(positions).all() or not np.isfinite(atoms.cell.array).all():
        raise StructureError(
            f"{atoms.get_chemical_formula()}: positions or cell hold NaN or infinity; repair the input"
        )
    lengths = atoms.cell.lengths()
    if np.any(atoms.pbc & (lengths < 1e-8)):
        raise StructureError(
            f"{atoms.get_chemical_formula()}: periodic directions {atoms.pbc.tolist()} but lattice vector lengths "
            f"{lengths.tolist()} Angstrom; give a lattice vector or switch that periodicity off"
        )
    cell = np.ascontiguousarray(atoms.cell.complete().array, dtype=np.float64)
    if atoms.pbc.any() and abs(np.linalg.det(cell)) < 1e-8:
        raise StructureError(
            f"{atoms.get_chemical_formula()}: the lattice vectors {cell.tolist()} are linearly dependent; give a cell "
            "with a volume"
        )
    # A hair beyond the cutoff, then "<=" on our own distances: independent of the library's convention and rounding.
    finder = NeighborList(cutoff=cutoff_angstrom * (1.0 + 1e-10), full_list=True)
    target, source, shifts = finder.compute(positions, cell, atoms.pbc.tolist(), quantities="ijS")
    target, source = target.astype(np.int64), source.astype(np.int64)
    vectors = positions[source] + shifts @ cell - positions[target]
    distance = np.linalg.norm(vectors, axis=1)
    if distance.size and distance.min() < MINIMUM_DISTANCE_ANGSTROM:
        worst = int(distance.argmin())
        raise StructureError(
            f"{atoms.get_chemical_formula()}: atoms {target[worst]} and {source[worst]} are {distance[worst]:.2g} "
            "Angstrom apart; remove the duplicate"
        )
    keep = np.flatnonzero(distance <= cutoff_angstrom)
    keep = keep[np.lexsort((source[keep], target[keep]))]
    return NeighborPairs(source[keep], target[keep], np.asarray(shifts, dtype=np.int64)[keep], vectors[keep])


# Neighbours this much further (squared distance, Angstrom^2) than the last one that counts are kept too, so that
# symmetry-equivalent neighbours stay together; the published models' tolerance.
LIMIT_TOLERANCE_ANGSTROM2 = 0.01


def nearest(pairs: NeighborPairs, max_neighbors: int) -> NeighborPairs:
    """The nearest neighbours of each target, where there are more than `max_neighbors`.

    Kept are those whose squared distance is at most that of neighbour number `max_neighbors` (counted from 0) plus
    0.01 Angstrom^2. What a network makes of the result jumps whenever two atoms change places in this order.
    """
    squared = (pairs.vectors**2).sum(axis=1)
    order = np.lexsort((squared, pairs.target))
    targets = pairs.target[order]
    first = np.searchsorted(targets, targets)  # position of each target's nearest neighbour
    count = np.searchsorted(targets, targets, side="right") - first
    last = np.minimum(first + max_neighbors, len(order) - 1)
    limit = np.where(count > max_neighbors, squared[order][last] + LIMIT_TOLERANCE_ANGSTROM2, np.inf)
    keep = np.sort(order[squared[order] <= limit])
    return NeighborPairs(pairs.source[keep], pairs.target[keep], pairs.shifts[keep], pairs.vectors[keep])

"""Neighbour pairs within a cutoff: any number of them, any cell, any mix of periodic directions, at linear cost."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from ase import Atoms
from torch import Tensor
from vesin import NeighborList

from esen_flows.data.ragged import to_device, to_host
from esen_flows.errors import StructureError

# Two atoms closer than this are one atom that was entered twice; no training set has such a pair.
MINIMUM_DISTANCE_ANGSTROM = 0.01


@dataclass(frozen=True)
class PairTable:
    """The pairs of one geometry without their vectors, sorted by target, then source, then shift.

    Attributes
    ----------
    source
        (pairs,) int64 index of the atom that sends the message.
    target
        (pairs,) int64 index of the atom that receives the message.
    shifts
        (pairs, 3) float64 whole numbers, lattice translation of the source.
    """

    source: Tensor
    target: Tensor
    shifts: Tensor

    @cached_property
    def reverse(self) -> Tensor:
        """(pairs,) int64 index of the reverse of each pair: source and target exchanged, the other shift.

        It is found by whole numbers, so that no rounding can make a mistake, and made when it is first read.
        """
        columns = (self.source.cpu().numpy(), self.target.cpu().numpy(), self.shifts.cpu().numpy())
        n_atoms = int(max(columns[0].max(initial=0), columns[1].max(initial=0))) + 1
        rank = _rank(*columns, n_atoms)  # ascending, because the table is sorted
        wanted = _rank(columns[1], columns[0], -columns[2], n_atoms)
        reverse = np.searchsorted(rank, wanted)
        if len(rank) and not np.array_equal(rank.take(reverse, mode="clip"), wanted):
            raise RuntimeError("a neighbour list without the reverse of every pair; the library promises a full list")
        return torch.from_numpy(reverse).to(self.source.device)


@dataclass(frozen=True)
class EdgeVectors:
    """Pairs within the cutoff with their vectors, sorted by target.

    Attributes
    ----------
    source
        (pairs,) int64 index of the atom that sends the message.
    target
        (pairs,) int64 index of the atom that receives the message.
    vectors
        (pairs, 3) float64 vectors from target to source in Angstrom.
    reverse
        (pairs,) int64 index of the reverse of each pair; None unless asked for.
    """

    source: Tensor
    target: Tensor
    vectors: Tensor
    reverse: Tensor | None = None


def pair_table(atoms: Atoms, radius_angstrom: float) -> PairTable:
    """All pairs within a radius, pairs of an atom with its own images included.

    Parameters
    ----------
    atoms
        The structure.
    radius_angstrom
        Largest distance in Angstrom. Pairs that are longer by up to 1e-10 of it may be among the result.

    Returns
    -------
    PairTable
        The pairs.

    Raises
    ------
    StructureError
        A coordinate is NaN, or a periodic direction has no lattice vector.
    """
    columns = sorted_pairs(atoms.positions, checked_cell(atoms), atoms.pbc, radius_angstrom)
    return PairTable(*(torch.from_numpy(column) for column in columns))


def sorted_pairs(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, radius_angstrom: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The columns of `PairTable` as arrays.

    Parameters
    ----------
    positions
        (atoms, 3) finite positions in Angstrom, inside the cell or not.
    cell
        (3, 3) lattice vectors in Angstrom as `checked_cell` gives them.
    pbc
        (3,) periodicity of each direction.
    radius_angstrom
        Largest distance in Angstrom. Pairs that are longer by up to 1e-10 of it may be among the result.

    Returns
    -------
    tuple[np.ndarray, np.ndarray, np.ndarray]
        Sources and targets (pairs,) int64, and shifts (pairs, 3) float64.
    """
    # Slightly beyond the radius, so that the library's convention and rounding at the cutoff do not matter.
    finder = NeighborList(cutoff=radius_angstrom * (1.0 + 1e-10), full_list=True)
    target, source, shifts = finder.compute(positions, cell, pbc.tolist(), quantities="ijS")
    target, source = target.view(np.int64), source.view(np.int64)  # from unsigned
    shifts = shifts.astype(np.float64)
    order = np.argsort(_rank(source, target, shifts, len(positions)))
    return source.take(order), target.take(order), shifts.take(order, axis=0)


def _rank(source: np.ndarray, target: np.ndarray, shifts: np.ndarray, n_atoms: int) -> np.ndarray:
    """One integer per pair, in the order of target, source, shift. It sorts many times faster than several columns."""
    base = 2.0 * np.abs(shifts).max(initial=0.0) + 1.0
    code = (shifts @ np.array([base * base, base, 1.0])).astype(np.int64)
    return (target * n_atoms + source) * int(base) ** 3 + code


def checked_cell(atoms: Atoms) -> np.ndarray:
    """The cell of a structure that can have neighbours.

    Parameters
    ----------
    atoms
        The structure.

    Returns
    -------
    np.ndarray
        (3, 3) lattice vectors in Angstrom, completed where a direction has none.

    Raises
    ------
    StructureError
        A coordinate is NaN or infinite, or a periodic direction has no lattice vector.
    """
    cell = atoms.cell.array
    # A sum is finite only if all of its terms are; one sum is faster than a test of every number.
    if not np.isfinite(atoms.positions.sum() + cell.sum()):
        raise StructureError(
            f"{atoms.get_chemical_formula()}: positions or cell hold NaN or infinity; repair the input"
        )
    lengths = np.sqrt((cell * cell).sum(axis=1))
    if np.any(atoms.pbc & (lengths < 1e-8)):
        raise StructureError(
            f"{atoms.get_chemical_formula()}: periodic directions {atoms.pbc.tolist()} but lattice vector lengths "
            f"{lengths.tolist()} Angstrom; give a lattice vector or switch that periodicity off"
        )
    if not lengths.all():
        cell = atoms.cell.complete().array
    if atoms.pbc.any() and abs(determinant(cell)) < 1e-8:
        raise StructureError(
            f"{atoms.get_chemical_formula()}: the lattice vectors {cell.tolist()} are linearly dependent; give a cell "
            "with a volume"
        )
    return cell


def determinant(cell: np.ndarray) -> float:
    """Determinant of a 3 x 3 array; for this few numbers plain arithmetic is faster than LAPACK.

    Parameters
    ----------
    cell
        (3, 3) array.

    Returns
    -------
    float
        The determinant, in the cubed unit of the array.
    """
    (a, b, c), (d, e, f), (g, h, i) = cell.tolist()
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def neighbor_pairs(atoms: Atoms, cutoff_angstrom: float, *, reverse: bool = False) -> EdgeVectors:
    """All pairs with 0 < distance <= cutoff, pairs of an atom with its own images included.

    Parameters
    ----------
    atoms
        The structure.
    cutoff_angstrom
        Largest distance in Angstrom.
    reverse
        Whether the index of the reverse of each pair is given too.

    Returns
    -------
    EdgeVectors
        The pairs with their vectors.

    Raises
    ------
    StructureError
        A coordinate is NaN, a periodic direction has no lattice vector, or atoms coincide.

    Examples
    --------
    >>> from ase.build import bulk
    >>> len(neighbor_pairs(bulk("Cu"), 3.0).source)
    12
    """
    table = pair_table(atoms, cutoff_angstrom)
    source, target, positions = table.source, table.target, torch.from_numpy(atoms.positions)
    vectors = (table.shifts @ torch.from_numpy(atoms.cell.array)).add_(positions[source]).sub_(positions[target])
    distance = torch.linalg.vector_norm(vectors, dim=1)
    if len(distance) and float(distance.min()) < MINIMUM_DISTANCE_ANGSTROM:
        worst = int(distance.argmin())
        raise StructureError(
            f"{atoms.get_chemical_formula()}: atoms {int(target[worst])} and {int(source[worst])} are "
            f"{float(distance[worst]):.2g} Angstrom apart; remove the duplicate"
        )
    if reverse:  # a pair is kept exactly if its reverse is, whatever rounding does at the cutoff
        distance = torch.minimum(distance, distance[table.reverse])
    kept = (distance <= cutoff_angstrom).nonzero().squeeze(1)
    reverses = None
    if reverse:
        reverses = torch.empty_like(table.reverse).index_copy_(0, kept, torch.arange(len(kept)))[table.reverse[kept]]
    return EdgeVectors(source[kept], target[kept], vectors[kept], reverses)


# Neighbours that are this much farther (squared distance, Angstrom^2) than the last one are kept too, so that
# symmetry-equivalent neighbours stay together. The value is that of the published models.
LIMIT_TOLERANCE_ANGSTROM2 = 0.01


def nearest(vectors: Tensor, target: Tensor, max_neighbors: int) -> Tensor:
    """About the nearest neighbours of each target.

    A neighbour is kept if its squared distance is at most that of neighbour number `max_neighbors` (counted from 0)
    plus 0.01 Angstrom^2. The output of a network on the result jumps whenever two atoms change places in this order.

    Parameters
    ----------
    vectors
        (pairs, 3) vectors of all pairs in Angstrom.
    target
        (pairs,) int64 atom to which each pair belongs, ascending.
    max_neighbors
        Number of neighbours above which a target loses its farthest ones.

    Returns
    -------
    Tensor
        (kept,) int64 rows of the kept pairs, ascending, on the device of `vectors`; they are found on the host.
    """
    squared, targets = (to_host(vectors) ** 2).sum(axis=1), to_host(target)
    order = np.lexsort((squared, targets))
    targets = targets[order]
    first = np.searchsorted(targets, targets)  # position of each target's nearest neighbour
    count = np.searchsorted(targets, targets, side="right") - first
    last = np.minimum(first + max_neighbors, len(order) - 1)
    limit = np.where(count > max_neighbors, squared[order][last] + LIMIT_TOLERANCE_ANGSTROM2, np.inf)
    return to_device(np.sort(order[squared[order] <= limit]), vectors.device)

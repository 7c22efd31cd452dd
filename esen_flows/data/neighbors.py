"""Neighbour pairs within a cutoff: any number of them, any cell, any mix of periodic directions, at linear cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from ase import Atoms
from torch import Tensor
from vesin import NeighborList

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
class Candidates:
    """A structure with a table that contains all of its neighbour pairs, and others.

    Attributes
    ----------
    atoms
        The structure with its current cell.
    positions
        (atoms, 3) positions in Angstrom, each in the periodic image to which the shifts of the table refer.
    table
        The pairs.
    """

    atoms: Atoms
    positions: np.ndarray
    table: PairTable


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


def pair_table(atoms: Atoms, radius_angstrom: float, device: torch.device | str = "cpu") -> PairTable:
    """All pairs within a radius, pairs of an atom with its own images included.

    Parameters
    ----------
    atoms
        The structure.
    radius_angstrom
        Largest distance in Angstrom. Pairs that are longer by up to 1e-10 of it may be among the result.
    device
        Device of the table; the search itself is done on the CPU.

    Returns
    -------
    PairTable
        The pairs.

    Raises
    ------
    StructureError
        A coordinate is NaN, or a periodic direction has no lattice vector.
    """
    cell = checked_cell(atoms)
    # Slightly beyond the radius, so that the library's convention and rounding at the cutoff do not matter.
    finder = NeighborList(cutoff=radius_angstrom * (1.0 + 1e-10), full_list=True)
    target, source, shifts = finder.compute(atoms.positions, cell, atoms.pbc.tolist(), quantities="ijS")
    target, source = target.view(np.int64), source.view(np.int64)  # from unsigned
    shifts = shifts.astype(np.float64)
    order = np.argsort(_rank(source, target, shifts, len(atoms)))
    columns = (source.take(order), target.take(order), shifts.take(order, axis=0))
    return PairTable(*(torch.from_numpy(column).to(device) for column in columns))


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


def edges_within(
    candidates: Sequence[Candidates], cutoff_angstrom: float, *, reverse: bool = False
) -> list[EdgeVectors]:
    """The pairs within the cutoff of each structure, computed for all structures at once on the device of the tables.

    Parameters
    ----------
    candidates
        Structures with tables that contain their pairs.
    cutoff_angstrom
        Largest distance in Angstrom.
    reverse
        Whether the index of the reverse of each pair is given too.

    Returns
    -------
    list[EdgeVectors]
        Pairs of each structure.

    Raises
    ------
    StructureError
        Two atoms of a structure coincide.
    """
    source, target = (_joined([getattr(one.table, name) for one in candidates]) for name in ("source", "target"))
    vectors = _vectors(candidates, source, target)
    reverses = _joined_reverses(candidates) if reverse else None
    kept, counts = _within(candidates, vectors, cutoff_angstrom, reverses)
    columns = (source, target, vectors)
    if kept is not None:
        columns = (source.index_select(0, kept), target.index_select(0, kept), vectors.index_select(0, kept))
    found = [EdgeVectors(*part) for part in zip(*(column.split(counts) for column in columns), strict=True)]
    if reverses is None:
        return found
    if kept is not None:
        places = torch.empty_like(reverses)
        places[kept] = torch.arange(len(kept), device=kept.device)
        reverses = places[reverses.index_select(0, kept)]
    firsts = np.cumsum([0, *counts[:-1]]).tolist()
    parts = zip(found, reverses.split(counts), firsts, strict=True)
    return [replace(one, reverse=part - first) for one, part, first in parts]


def _joined_reverses(candidates: Sequence[Candidates]) -> Tensor:
    """Index of the reverse of each pair, counted over the pairs of all structures."""
    sizes = [len(one.table.source) for one in candidates]
    firsts = np.cumsum([0, *sizes[:-1]]).tolist()
    return _joined([one.table.reverse + first for one, first in zip(candidates, firsts, strict=True)])


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)  # `cat` copies even a single tensor


def _vectors(candidates: Sequence[Candidates], source: Tensor, target: Tensor) -> Tensor:
    """(pairs, 3) r_source + shift.cell - r_target; source and target count the atoms of each structure from 0."""
    positions = torch.from_numpy(np.concatenate([one.positions for one in candidates])).to(source.device)
    cells = torch.from_numpy(np.stack([one.atoms.cell.array for one in candidates])).to(source.device)
    if len(candidates) > 1:
        atoms = np.array([len(one.positions) for one in candidates])
        sizes = [len(one.table.source) for one in candidates]
        first = torch.from_numpy(np.repeat(np.cumsum(atoms) - atoms, sizes)).to(source.device)
        source, target = source + first, target + first
    vectors = _joined([one.table.shifts @ cell for one, cell in zip(candidates, cells, strict=True)])
    return vectors.add_(positions.index_select(0, source)).sub_(positions.index_select(0, target))


def _within(
    candidates: Sequence[Candidates], vectors: Tensor, cutoff_angstrom: float, reverses: Tensor | None = None
) -> tuple[Tensor | None, list[int]]:
    """Rows within the cutoff (None for all rows), and their number for each structure.

    With `reverses` a pair is kept exactly if its reverse is, whatever rounding does to their distances at the cutoff.
    """
    sizes = [len(one.table.source) for one in candidates]
    distance = torch.linalg.vector_norm(vectors, dim=1)
    if len(distance) and float(distance.min()) < MINIMUM_DISTANCE_ANGSTROM:
        raise _coincidence(candidates, sizes, distance)
    if reverses is not None:
        distance = torch.minimum(distance, distance.index_select(0, reverses))
    kept = (distance <= cutoff_angstrom).nonzero().squeeze(1)
    if len(kept) == len(distance):
        return None, sizes
    if len(sizes) == 1:
        return kept, [len(kept)]
    ends = torch.from_numpy(np.cumsum(sizes)).to(kept.device)
    return kept, torch.searchsorted(kept, ends).diff(prepend=ends.new_zeros(1)).tolist()


def _coincidence(candidates: Sequence[Candidates], sizes: Sequence[int], distance: Tensor) -> StructureError:
    worst = int(distance.argmin())
    row = int(np.searchsorted(np.cumsum(sizes), worst, side="right"))
    pair = worst - sum(sizes[:row])
    table = candidates[row].table
    return StructureError(
        f"{candidates[row].atoms.get_chemical_formula()}: atoms {int(table.target[pair])} and "
        f"{int(table.source[pair])} are {float(distance[worst]):.2g} Angstrom apart; remove the duplicate"
    )


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
    candidates = Candidates(atoms, atoms.positions, pair_table(atoms, cutoff_angstrom))
    return edges_within([candidates], cutoff_angstrom, reverse=reverse)[0]


# Neighbours that are this much farther (squared distance, Angstrom^2) than the last one are kept too, so that
# symmetry-equivalent neighbours stay together. The value is that of the published models.
LIMIT_TOLERANCE_ANGSTROM2 = 0.01


def nearest(pairs: EdgeVectors, max_neighbors: int) -> EdgeVectors:
    """About the nearest neighbours of each target.

    A neighbour is kept if its squared distance is at most that of neighbour number `max_neighbors` (counted from 0)
    plus 0.01 Angstrom^2. The output of a network on the result jumps whenever two atoms change places in this order.

    Parameters
    ----------
    pairs
        All pairs.
    max_neighbors
        Number of neighbours above which a target loses its farthest ones.

    Returns
    -------
    EdgeVectors
        The kept pairs, sorted by target.
    """
    squared, target = (pairs.vectors.numpy() ** 2).sum(axis=1), pairs.target.numpy()
    order = np.lexsort((squared, target))
    targets = target[order]
    first = np.searchsorted(targets, targets)  # position of each target's nearest neighbour
    count = np.searchsorted(targets, targets, side="right") - first
    last = np.minimum(first + max_neighbors, len(order) - 1)
    limit = np.where(count > max_neighbors, squared[order][last] + LIMIT_TOLERANCE_ANGSTROM2, np.inf)
    keep = torch.from_numpy(np.sort(order[squared[order] <= limit]))
    return EdgeVectors(pairs.source[keep], pairs.target[keep], pairs.vectors[keep])

"""Neighbour search in many small cells at once, on any device, by their periodic images.

Every atom is put into its cell. The images that can be within the radius of an atom of the cell are enumerated, and all
distances between the atoms of a cell and these are computed. The cost per structure grows with the square of its number
of atoms; larger structures are searched by `neighbors.sorted_pairs`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from esen_flows.data.cells import inverse, vectors_times
from esen_flows.data.ragged import Rows, to_device, to_host

# Candidates in one pass, each of which takes about 100 bytes.
CANDIDATES_AT_ONCE = 2_000_000
# Rounding of fractional coordinates may not lose a pair at the radius.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class FoundPairs:
    """Pairs of many structures, sorted by structure, target, source and shift.

    Attributes
    ----------
    source
        (pairs,) int64 atom that sends the message, counted over all structures.
    target
        (pairs,) int64 atom that receives the message.
    shifts
        (pairs, 3) float64 whole numbers, lattice translation of the source.
    counts
        (structures,) number of pairs of each structure, on the host.
    """

    source: Tensor
    target: Tensor
    shifts: Tensor
    counts: np.ndarray


def image_pairs(positions: Tensor, cells: Tensor, pbc: np.ndarray, atoms: Rows, radius: float) -> FoundPairs:
    """All pairs within a radius, pairs of an atom with its own images included.

    Parameters
    ----------
    positions
        (atoms, 3) float64 in Angstrom.
    cells
        (structures, 3, 3) float64 lattice vectors as rows in Angstrom, linearly independent.
    pbc
        (structures, 3) bool, which of them are periodic.
    atoms
        Atoms of each structure.
    radius
        Largest distance in Angstrom.

    Returns
    -------
    FoundPairs
        The pairs.
    """
    inverses = inverse(cells)
    periodic = to_device(pbc.astype(float), positions.device)
    fractions = torch.bmm(positions.unsqueeze(1), inverses.index_select(0, atoms.owner)).squeeze(1)
    wraps = torch.floor(fractions) * atoms.spread(periodic)
    reach = radius * torch.linalg.vector_norm(inverses, dim=1)  # (structures, 3), in lattice vectors
    most = np.ceil(to_host(reach)) * pbc
    shifts, shift_rows = _shifts(most, positions.device)
    inside = fractions - wraps
    wrapped = positions - torch.bmm(wraps.unsqueeze(1), cells.index_select(0, atoms.owner)).squeeze(1)
    parts, first = [], 0
    candidates = np.cumsum(atoms.counts**2 * shift_rows.counts)
    while first < len(atoms.counts):
        before = candidates[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(candidates, before + CANDIDATES_AT_ONCE, side="right")))
        some = np.arange(first, last)
        parts.append(_pairs_of(some, atoms, shift_rows, shifts, inside, wrapped, cells, reach, radius))
        first = last
    source, target, image = (torch.cat(columns) for columns in list(zip(*parts, strict=True))[:3])
    counts = np.concatenate([part[3] for part in parts])
    # Translations between the atoms as they were given, not as they were put into the cell: for one target and source
    # they differ by a constant, so that their order is the same.
    between = shifts.index_select(0, image) - wraps.index_select(0, source) + wraps.index_select(0, target)
    return FoundPairs(source, target, between, counts)


def _shifts(most: np.ndarray, device: torch.device) -> tuple[Tensor, Rows]:
    """Lattice translations up to a number in each direction, in lexicographic order, for each structure."""
    kinds, which = np.unique(most.astype(np.int64), axis=0, return_inverse=True)
    boxes = [np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in kind), indexing="ij"), -1) for kind in kinds]
    lists = [box.reshape(-1, 3).astype(float) for box in boxes]
    which = which.reshape(-1)
    rows = Rows(np.array([len(lists[kind]) for kind in which]), device)
    return to_device(np.concatenate([lists[kind] for kind in which]), device), rows


def _pairs_of(
    some: np.ndarray, atoms: Rows, shift_rows: Rows, shifts: Tensor, inside: Tensor, wrapped: Tensor, cells: Tensor,
    reach: Tensor, radius: float,
) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:  # fmt: skip
    """Sources, targets and images of the pairs of consecutive structures, and their numbers."""
    device = wrapped.device
    n_atoms, n_shifts = atoms.counts[some], shift_rows.counts[some]
    system = to_device(some, device)
    # The images of all atoms, ordered by atom and translation.
    per_atom = Rows(np.repeat(n_shifts, n_atoms), device)
    atom = per_atom.owner + int(atoms.starts[some[0]])
    own_system = atoms.owner.index_select(0, atom)
    first_shift = to_device(shift_rows.starts, device).index_select(0, own_system)
    image = torch.arange(per_atom.total, device=device) - per_atom.offsets.index_select(0, per_atom.owner) + first_shift
    box, row = Rows(n_atoms, device), own_system - int(some[0])
    of_box = inside.narrow(0, int(atoms.starts[some[0]]), box.total)
    room = reach.index_select(0, system) + TOLERANCE
    near = torch.ones(len(atom), dtype=torch.bool, device=device)
    for k in range(3):
        place = inside[:, k].index_select(0, atom) + shifts[:, k].index_select(0, image)
        own = of_box[:, k].contiguous()
        near &= place >= (box.reduce(own, "min", torch.inf) - room[:, k]).index_select(0, row)
        near &= place <= (box.reduce(own, "max", -torch.inf) + room[:, k]).index_select(0, row)
    kept = near.nonzero().squeeze(1)
    atom, image, row = (column.index_select(0, kept) for column in (atom, image, row))
    n_images = to_host(torch.bincount(row, minlength=len(some)))
    return _within(some, atoms, Rows(n_images, device), atom, image, shifts, wrapped, cells, radius)


def _within(
    some: np.ndarray, atoms: Rows, images: Rows, atom: Tensor, image: Tensor, shifts: Tensor, wrapped: Tensor,
    cells: Tensor, radius: float,
) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:  # fmt: skip
    """The pairs within the radius among all atoms and the images near the cell of each structure."""
    device, n_atoms = wrapped.device, atoms.counts[some]
    own_shifts = shifts.index_select(0, image).T.contiguous().unbind(0)
    moved = vectors_times(own_shifts, cells, images.owner + int(some[0]))
    candidates = Rows(np.repeat(images.counts, n_atoms), device)  # one structure of rows for each target
    target = candidates.owner
    box = Rows(n_atoms, device)
    first_image = images.offsets.index_select(0, box.owner) - candidates.offsets[:-1]
    which = torch.arange(candidates.total, device=device) + first_image.index_select(0, target)
    own = wrapped.narrow(0, int(atoms.starts[some[0]]), box.total)
    squared = torch.zeros(candidates.total, dtype=wrapped.dtype, device=device)
    for k in range(3):
        places = wrapped[:, k].index_select(0, atom) + moved[k]
        apart = places.index_select(0, which).sub_(own[:, k].index_select(0, target))
        squared.addcmul_(apart, apart)
    kept = (squared <= (radius * (1 + 1e-10)) ** 2).nonzero().squeeze(1)
    which, target = which.index_select(0, kept), target.index_select(0, kept) + int(atoms.starts[some[0]])
    source, image = atom.index_select(0, which), image.index_select(0, which)
    apart_at_all = (source != target) | (shifts.index_select(0, image) != 0).any(dim=1)
    kept = apart_at_all.nonzero().squeeze(1)
    source, target, image = (column.index_select(0, kept) for column in (source, target, image))
    counts = to_host(torch.bincount(atoms.owner.index_select(0, target) - int(some[0]), minlength=len(some)))
    return source, target, image, counts

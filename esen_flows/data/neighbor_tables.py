"""Neighbour pairs that a batch of structures carries along, searched again only where the skin is used up.

The pairs of each structure are searched up to cutoff + skin. At a later geometry the pairs within the cutoff are those
of a fresh search as long as no atom has moved too far (see `NeighborTables.status`). Everything between two searches is
done on the device of the positions and does not wait for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from esen_flows.data.cells import inverse, vectors_times
from esen_flows.data.image_search import FoundPairs, image_pairs
from esen_flows.data.neighbors import pair_table
from esen_flows.data.ragged import Rows, to_device

SKIN_ANGSTROM = 0.6
# Larger structures are searched one by one on the CPU, at linear cost.
MOST_ATOMS_BY_IMAGES = 128


@dataclass(frozen=True)
class Edges:
    """Pairs within the cutoff at one geometry, sorted by target.

    Attributes
    ----------
    source
        (edges,) int64 atom that sends the message, counted over all structures.
    target
        (edges,) int64 atom that receives the message.
    vectors
        (edges, 3) float64 vectors from target to source in Angstrom.
    system
        (edges,) int64 structure.
    counts
        (structures,) number of edges of each structure, on the host.
    reverse
        (edges,) int64 index of the reverse of each edge; None unless asked for.
    """

    source: Tensor
    target: Tensor
    vectors: Tensor
    system: Tensor
    counts: np.ndarray
    reverse: Tensor | None = None


@dataclass(frozen=True)
class NeighborTables:
    """The pairs of a batch of structures within cutoff + skin.

    Attributes
    ----------
    cutoff
        Length of the longest edge in Angstrom.
    skin
        Distance in Angstrom by which pairs are searched beyond the cutoff.
    atoms
        Which atoms belong to which structure.
    pairs
        Which pairs belong to which structure.
    images
        Which rows of `shifts` belong to which structure.
    source
        (pairs,) int64 atom that sends the message, counted over the batch.
    target
        (pairs,) int64 atom that receives the message.
    image
        (pairs,) int64 row of `shifts` of the source.
    shifts
        (images, 3) float64 whole numbers, lattice translations.
    wraps
        (atoms, 3) float64 whole numbers: the pairs refer to positions minus `wraps` times the lattice vectors.
    positions
        (atoms, 3) float64 positions in Angstrom at the search.
    cells
        (structures, 3, 3) float64 lattice vectors in Angstrom at the search.
    reverse
        (pairs,) int64 index of the reverse of each pair; None unless asked for.
    """

    cutoff: float
    skin: float
    atoms: Rows
    pairs: Rows
    images: Rows
    source: Tensor
    target: Tensor
    image: Tensor
    shifts: Tensor
    wraps: Tensor
    positions: Tensor
    cells: Tensor
    reverse: Tensor | None = None

    @classmethod
    def search(
        cls,
        templates: Sequence[Atoms],
        positions: Tensor,
        cells: Tensor,
        cutoff_angstrom: float,
        *,
        skin_angstrom: float = SKIN_ANGSTROM,
        reverse: bool = False,
    ) -> "NeighborTables":
        """The pairs of structures at their present geometry.

        Parameters
        ----------
        templates
            The structures, whose periodicity is read.
        positions
            (atoms, 3) float64 present positions in Angstrom.
        cells
            (structures, 3, 3) float64 present lattice vectors in Angstrom, linearly independent.
        cutoff_angstrom
            Length of the longest edge in Angstrom.
        skin_angstrom
            Distance in Angstrom by which pairs are searched beyond the cutoff.
        reverse
            Whether the index of the reverse of each edge is given too.

        Returns
        -------
        NeighborTables
            The pairs.
        """
        counts = np.array([len(atoms) for atoms in templates])
        large, radius = counts > MOST_ATOMS_BY_IMAGES, cutoff_angstrom + skin_angstrom
        atoms, device = Rows(counts, positions.device), positions.device
        found = []
        for kind, find in ((False, _by_images), (True, _one_by_one)):
            some = np.flatnonzero(large == kind)
            if len(some):
                chosen = [templates[int(index)] for index in some]
                here = positions.index_select(0, atoms.of(some))
                there = cells.index_select(0, to_device(some, device))
                one = find(chosen, here, there, radius)
                parts = Rows(counts[some], device), Rows(one.counts, device), Rows(one.shift_counts, device)
                columns = (one.source, one.target, one.image, one.shifts, one.wraps, here, there)
                tables = cls(cutoff_angstrom, skin_angstrom, *parts, *columns)
                found.append(replace(tables, reverse=tables._reverses()) if reverse else tables)
        joined = found[0] if len(found) == 1 else found[0].joined(found[1])
        order = np.argsort(np.concatenate([np.flatnonzero(~large), np.flatnonzero(large)]))
        return joined if len(found) == 1 else joined.select(order)

    def _reverses(self) -> Tensor:
        """(pairs,) index of the reverse of each pair: source and target exchanged, the other translation."""
        shifts, n = self.shifts.long(), max(1, self.atoms.total)
        base = 2 * int(shifts.abs().max()) + 1 if len(shifts) else 1
        code = shifts @ torch.tensor([base * base, base, 1], device=shifts.device)
        of_pair = code.index_select(0, self.image)
        ranks = (self.target * n + self.source) * base**3 + of_pair
        wanted = (self.source * n + self.target) * base**3 - of_pair
        places = torch.searchsorted(ranks, wanted).clamp(max=max(0, len(ranks) - 1))
        if not torch.equal(ranks.index_select(0, places), wanted):
            raise RuntimeError("a neighbour list without the reverse of every pair; all searches give full lists")
        return places

    def select(self, structures: Sequence[int] | np.ndarray) -> "NeighborTables":
        """The tables of some structures.

        Parameters
        ----------
        structures
            Numbers of structures, in any order.

        Returns
        -------
        NeighborTables
            Their tables, in this order.
        """
        chosen = np.asarray(structures, dtype=np.int64)
        device = self.positions.device
        atoms, pairs, images = (Rows(rows.counts[chosen], device) for rows in (self.atoms, self.pairs, self.images))
        rows, own_atoms, own_images = self.pairs.of(chosen), self.atoms.of(chosen), self.images.of(chosen)

        def renumbered(column: Tensor, before: Rows, after: Rows) -> Tensor:
            moved = to_device(after.starts - before.starts[chosen], device)
            return column.index_select(0, rows) + moved.index_select(0, pairs.owner)

        return replace(
            self,
            atoms=atoms,
            pairs=pairs,
            images=images,
            source=renumbered(self.source, self.atoms, atoms),
            target=renumbered(self.target, self.atoms, atoms),
            image=renumbered(self.image, self.images, images),
            shifts=self.shifts.index_select(0, own_images),
            wraps=self.wraps.index_select(0, own_atoms),
            positions=self.positions.index_select(0, own_atoms),
            cells=self.cells.index_select(0, to_device(chosen, device)),
            reverse=None if self.reverse is None else renumbered(self.reverse, self.pairs, pairs),
        )

    def joined(self, others: "NeighborTables") -> "NeighborTables":
        """The tables of these structures, followed by those of others.

        Parameters
        ----------
        others
            Tables with the same cutoff.

        Returns
        -------
        NeighborTables
            New tables.
        """
        device = self.positions.device

        def rows(name: str) -> Rows:
            return Rows(np.concatenate([getattr(self, name).counts, getattr(others, name).counts]), device)

        def both(name: str, first: int = 0) -> Tensor:
            return torch.cat((getattr(self, name), getattr(others, name) + first))

        n_atoms, n_pairs, n_images = (each.total for each in (self.atoms, self.pairs, self.images))
        return replace(
            self,
            atoms=rows("atoms"),
            pairs=rows("pairs"),
            images=rows("images"),
            source=both("source", n_atoms),
            target=both("target", n_atoms),
            image=both("image", n_images),
            reverse=None if self.reverse is None else both("reverse", n_pairs),
            shifts=both("shifts"),
            wraps=both("wraps"),
            positions=both("positions"),
            cells=both("cells"),
        )

    def turned(self, proper: Tensor, signs: Tensor) -> "NeighborTables":
        """The tables of the images of the structures under rotations, with or without the inversion.

        Parameters
        ----------
        proper
            (structures, 3, 3) float64 matrices that turn row vectors.
        signs
            (structures,) -1 where positions, but not cells, are inverted too, otherwise 1.

        Returns
        -------
        NeighborTables
            Tables with the same pairs in the same order.
        """
        turned = torch.bmm(self.positions.unsqueeze(1), self.atoms.spread(proper)).squeeze(1)
        of_atoms = self.atoms.spread(signs)
        return replace(
            self,
            shifts=self.images.spread(signs) * self.shifts,
            wraps=of_atoms * self.wraps,
            positions=of_atoms * turned,
            cells=torch.bmm(self.cells, proper),
        )

    def status(self, positions: Tensor, cells: Tensor) -> Tensor:
        """What has to be known of a geometry before its edges can be taken from the tables.

        Let F be the linear map that takes the cell at the search to the present one, and u the displacements beyond
        this map and beyond their mean. A pair vector v becomes v F + u_source - u_target, with a length of at least
        |v| (1 - |F - 1|) - 2 max|u|. While (cutoff + skin) (1 - |F - 1|) - 2 max|u| >= cutoff, no pair from outside
        the tables can be within the cutoff.

        Parameters
        ----------
        positions
            (atoms, 3) float64 in Angstrom.
        cells
            (structures, 3, 3) float64 in Angstrom.

        Returns
        -------
        Tensor
            (3, structures) float64: one where a new search is needed, the number of edges, and the shortest squared
            distance in Angstrom^2 (infinite without pairs).
        """
        map_of_cells = torch.bmm(inverse(self.cells), cells)
        distortion = (map_of_cells - torch.eye(3, dtype=cells.dtype, device=cells.device)).flatten(1)
        room = (self.cutoff + self.skin) * (1 - torch.linalg.vector_norm(distortion, dim=1)) - self.cutoff
        before = torch.bmm(self.positions.unsqueeze(1), self.atoms.spread(map_of_cells)).squeeze(1)
        moved = positions - before
        mean = self.atoms.reduce(moved) / torch.clamp(self.atoms.offsets.diff(), min=1).unsqueeze(1)
        needed = ~(2 * self.atoms.longest(moved - self.atoms.spread(mean)) <= room)  # also for NaN
        squared, within = self._distances(positions, cells)[1:]
        numbers = self.pairs.reduce(within.to(squared.dtype))
        return torch.stack((needed.to(squared.dtype), numbers, self.pairs.reduce(squared, "min", torch.inf)))

    def edges(self, positions: Tensor, cells: Tensor, counts: np.ndarray) -> Edges:
        """The pairs within the cutoff at a geometry of which `status` is known.

        Parameters
        ----------
        positions
            (atoms, 3) float64 in Angstrom.
        cells
            (structures, 3, 3) float64 in Angstrom.
        counts
            (structures,) number of edges of each structure, from `status`.

        Returns
        -------
        Edges
            The edges.
        """
        apart, _, within = self._distances(positions, cells)
        kept = true_rows(within, int(counts.sum()))
        source, target, system = (
            column.index_select(0, kept) for column in (self.source, self.target, self.pairs.owner)
        )
        vectors = torch.stack([column.index_select(0, kept) for column in apart], dim=1)
        reverse = None
        if self.reverse is not None:
            places = torch.zeros_like(self.reverse).index_copy_(0, kept, torch.arange(len(kept), device=kept.device))
            reverse = places.index_select(0, self.reverse.index_select(0, kept))
        return Edges(source, target, vectors, system, counts.astype(np.int64), reverse)

    def _distances(self, positions: Tensor, cells: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Components (pairs,) of the pair vectors, squared distances, and which of these are within the cutoff.

        The last geometry is remembered, of which `status` and `edges` are asked one after the other.
        """
        last = self._last
        if last and last[0][0] is positions and last[0][1] is cells:
            return last[0][2]
        shifts = vectors_times(self._columns[0].unbind(0), cells, self.images.owner)
        wraps = vectors_times(self._columns[1].unbind(0), cells, self.atoms.owner)
        # By components: torch gathers rows of three numbers several times more slowly.
        components = []
        for place, wrap, shift in zip(positions.unbind(1), wraps, shifts, strict=True):
            inside = place - wrap
            vector = inside.index_select(0, self.source).sub_(inside.index_select(0, self.target))
            components.append(vector.add_(shift.index_select(0, self.image)))
        x, y, z = components
        squared = (x * x).addcmul_(y, y).addcmul_(z, z)
        compared = squared
        if self.reverse is not None:  # a pair is kept exactly if its reverse is, whatever rounding does at the cutoff
            compared = torch.minimum(squared, squared.index_select(0, self.reverse))
        result = components, squared, compared <= self.cutoff * self.cutoff
        last[:] = [(positions, cells, result)]
        return result

    @cached_property
    def _columns(self) -> tuple[Tensor, Tensor]:
        """Components of `shifts` and of `wraps`, (3, ...)."""
        return self.shifts.T.contiguous(), self.wraps.T.contiguous()

    @cached_property
    def _last(self) -> list[tuple[Tensor, Tensor, tuple[list[Tensor], Tensor, Tensor]]]:
        return []


def true_rows(mask: Tensor, count: int) -> Tensor:
    """Rows where a mask is true, of which the number is known, so that the host need not wait for a GPU to count them.

    Parameters
    ----------
    mask
        (rows,) bool.
    count
        How many of them are true.

    Returns
    -------
    Tensor
        (count,) int64, ascending.
    """
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return _true_rows_without_waiting(mask, count)


def _true_rows_without_waiting(mask: Tensor, count: int) -> Tensor:
    rows = torch.arange(len(mask), device=mask.device)
    places = torch.where(mask, mask.cumsum(0) - 1, count)  # all others go behind the end
    return rows.new_empty(count + 1).scatter_(0, places, rows)[:count]


def _by_images(templates: Sequence[Atoms], positions: Tensor, cells: Tensor, radius: float) -> FoundPairs:
    pbc = np.stack([atoms.pbc for atoms in templates])
    return image_pairs(positions, cells, pbc, Rows([len(atoms) for atoms in templates], positions.device), radius)


def _one_by_one(templates: Sequence[Atoms], positions: Tensor, cells: Tensor, radius: float) -> FoundPairs:
    """Pairs by the neighbour list of one structure after the other, which is made on the CPU."""
    device, places, lattices = positions.device, positions.cpu().numpy(), cells.cpu().numpy()
    columns: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    first_atom = first_shift = 0
    for atoms, cell in zip(templates, lattices, strict=True):
        own = places[first_atom : first_atom + len(atoms)]
        table = pair_table(Atoms(atoms.numbers, positions=own, cell=cell, pbc=atoms.pbc), radius)
        shifts, image = torch.unique(table.shifts, dim=0, return_inverse=True)
        columns.append((table.source + first_atom, table.target + first_atom, image + first_shift, shifts))
        first_atom, first_shift = first_atom + len(atoms), first_shift + len(shifts)
    source, target, image, shifts = (torch.cat([one[k] for one in columns]).to(device) for k in range(4))
    counts, shift_counts = (np.array([len(one[k]) for one in columns]) for k in (0, 3))
    return FoundPairs(source, target, image, counts, shifts, shift_counts, torch.zeros_like(positions))

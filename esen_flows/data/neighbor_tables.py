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
from esen_flows.data.edges import Edges, PairGeometry, true_rows
from esen_flows.data.pair_kernels import is_passable, pair_kernels
from esen_flows.data.pair_search import SKIN_OF_COPIES_ANGSTROM, are_displaced_copies, found_pairs
from esen_flows.data.ragged import Rows, squared_sum, to_device, to_host
from esen_flows.native import Functions

SKIN_ANGSTROM = 0.6


@dataclass(frozen=True)
class NeighborTables:
    """The pairs of a batch of structures within cutoff + skin, sorted by structure, target, source and shift.

    The edges of a geometry are the same rows in the same order, and their vectors the same bits, whichever geometry the
    tables were searched at.

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
    positions
        (atoms, 3) float64 positions in Angstrom at the search, wherever they are: `shifts` lead from atom to atom.
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
            Distance in Angstrom by which pairs are searched beyond the cutoff. Zero is for one geometry only; copies of
            a structure with small displacements then share one search, with a small skin.
        reverse
            Whether the index of the reverse of each edge is given too.

        Returns
        -------
        NeighborTables
            The pairs.
        """
        if not skin_angstrom and are_displaced_copies(templates, positions, cells):
            one, skin = positions[: len(templates[0])], SKIN_OF_COPIES_ANGSTROM
            shared = cls.search(templates[:1], one, cells[:1], cutoff_angstrom, skin_angstrom=skin, reverse=reverse)
            return shared.select(np.zeros(len(templates), dtype=np.int64))
        device = positions.device
        found = found_pairs(templates, positions, cells, cutoff_angstrom + skin_angstrom)
        atoms, pairs = Rows(np.array([len(one) for one in templates]), device), Rows(found.counts, device)
        # Without a skin the tables serve one geometry, for which it does not pay to find equal translations.
        images, image, shifts = _distinct(found.shifts, pairs) if skin_angstrom else _all(found.shifts, pairs)
        rows = atoms, pairs, images, found.source, found.target, image, shifts, positions, cells
        tables = cls(cutoff_angstrom, skin_angstrom, *rows)
        return replace(tables, reverse=tables._reverses()) if reverse else tables

    def _reverses(self) -> Tensor:
        """(pairs,) index of the reverse of each pair: source and target exchanged, the other translation."""
        base = _base(self.shifts)
        code = self.shifts.long() @ torch.tensor([base * base, base, 1], device=self.shifts.device)
        of_pair, n = code.index_select(0, self.image), int(self.atoms.counts.max(initial=1))
        first = self.atoms.offsets.index_select(0, self.pairs.owner)
        ranks = (self.target * n + self.source - first) * base**3 + of_pair
        wanted = (self.source * n + self.target - first) * base**3 - of_pair
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
        return replace(
            self,
            shifts=self.images.spread(signs) * self.shifts,
            positions=self.atoms.spread(signs) * turned,
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
        here = self._at(positions, cells)
        # Without a skin this is the geometry of the search, or one that was turned from it.
        needed = self._needed(positions, cells) if self.skin else torch.zeros_like(here.numbers)
        return torch.stack((needed, here.numbers, here.smallest))

    def _needed(self, positions: Tensor, cells: Tensor) -> Tensor:
        """(structures,) float64, one where a new search is needed."""
        if kernels := self._kernels(positions, cells):
            needed = cells.new_empty(len(cells))
            kernels.search_needed(
                len(cells), self.atoms.offsets, self.positions.contiguous(), self._inverse_cells,
                positions.contiguous(), cells.contiguous(), self._radii, needed,
            )  # fmt: skip
            return needed
        map_of_cells = torch.bmm(self._inverse_cells, cells)
        distortion = (map_of_cells - torch.eye(3, dtype=cells.dtype, device=cells.device)).flatten(1)
        room = (self.cutoff + self.skin) * (1 - torch.linalg.vector_norm(distortion, dim=1)) - self.cutoff
        before = torch.bmm(self.positions.unsqueeze(1), self.atoms.spread(map_of_cells)).squeeze(1)
        moved = positions - before
        mean = self.atoms.reduce(moved) / torch.clamp(self.atoms.offsets.diff(), min=1).unsqueeze(1)
        return (~(2 * self.atoms.longest(moved - self.atoms.spread(mean)) <= room)).to(cells.dtype)  # also for NaN

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
        here, pairs = self._at(positions, cells), int(counts.sum())
        if pairs == self.pairs.total:
            return Edges(self.source, self.target, here.vectors, self.pairs.owner, self.pairs.counts, self.reverse)
        columns = self.source, self.target, self.pairs.owner, here.vectors
        if kernels := self._kernels(positions, cells):
            if pairs != (found := int(here.numbers.sum())):  # more would be written behind the end of the memory
                raise ValueError(f"{pairs} edges were expected at a geometry with {found}; take `counts` from `status`")
            kept, *chosen = (self.source.new_empty(pairs), *(one.new_empty(pairs, *one.shape[1:]) for one in columns))
            kernels.pairs_within(len(self.source), here.within, *columns, kept, *chosen)
        else:
            kept = true_rows(here.within, pairs)
            chosen = [one.index_select(0, kept) for one in columns]
        source, target, system, vectors = chosen
        reverse = None
        if self.reverse is not None:
            places = torch.zeros_like(self.reverse).index_copy_(0, kept, torch.arange(pairs, device=kept.device))
            reverse = places.index_select(0, self.reverse.index_select(0, kept))
        return Edges(source, target, vectors, system, counts.astype(np.int64), reverse)

    def closest(self, positions: Tensor, cells: Tensor) -> tuple[int, int, int, float]:
        """The shortest of all pairs. The host waits for the device.

        Parameters
        ----------
        positions
            (atoms, 3) float64 in Angstrom.
        cells
            (structures, 3, 3) float64 in Angstrom.

        Returns
        -------
        tuple[int, int, int, float]
            Number of the structure, numbers of target and source in it, and their distance in Angstrom.
        """
        squared = self._at(positions, cells).squared
        row = int(squared.argmin())
        system = int(self.pairs.owner[row])
        target, source = (int(column[row]) - int(self.atoms.starts[system]) for column in (self.target, self.source))
        return system, target, source, float(squared[row]) ** 0.5

    def _at(self, positions: Tensor, cells: Tensor) -> PairGeometry:
        """The pairs at a geometry; `status` and `edges` ask for the same one, one after the other."""
        for last_positions, last_cells, found in tuple(self._last):  # a copy: states in several threads may share it
            if last_positions is positions and last_cells is cells:
                return found
        kernels = self._kernels(positions, cells)
        found = self._compiled(kernels, positions, cells) if kernels else self._by_torch(positions, cells)
        self._last[:] = [(positions, cells, found)]
        return found

    def _compiled(self, kernels: Functions, positions: Tensor, cells: Tensor) -> PairGeometry:
        pairs, n = len(self.source), len(cells)
        places, vectors = (cells.new_empty(rows, 3) for rows in (len(self.shifts), pairs))
        squared, numbers, smallest = (cells.new_empty(rows) for rows in (pairs, n, n))
        within = cells.new_empty(pairs, dtype=torch.bool)
        kernels.pair_vectors(
            len(self.shifts), pairs, self.images.owner, self.shifts.contiguous(), cells.contiguous(),
            positions.contiguous(), self.source, self.target, self.image, self.reverse, self._radii, places, vectors,
            squared, within,
        )  # fmt: skip
        kernels.pair_summary(n, self.pairs.offsets, squared, within, numbers, smallest)
        return PairGeometry(vectors, squared, within, numbers, smallest)

    def _by_torch(self, positions: Tensor, cells: Tensor) -> PairGeometry:
        places = torch.stack(vectors_times(self.shifts.unbind(1), cells, self.images.owner), dim=1)
        vectors = positions.index_select(0, self.source) - positions.index_select(0, self.target)
        vectors = vectors + (places if self.images is self.pairs else places.index_select(0, self.image))  # see `_all`
        squared = squared_sum(vectors, vectors)
        compared = squared
        if self.reverse is not None:  # a pair is kept exactly if its reverse is, whatever rounding does at the cutoff
            compared = torch.minimum(squared, squared.index_select(0, self.reverse))
        within = compared <= self.cutoff * self.cutoff
        smallest = self.pairs.reduce(squared, "min", torch.inf)
        return PairGeometry(vectors, squared, within, self.pairs.count(within), smallest)

    def _kernels(self, positions: Tensor, cells: Tensor) -> Functions | None:
        """The compiled functions where they can be used."""
        return pair_kernels() if is_passable(positions, self.positions) and is_passable(cells, self.cells) else None

    @cached_property
    def _inverse_cells(self) -> Tensor:
        return inverse(self.cells).contiguous()

    @cached_property
    def _radii(self) -> Tensor:
        """(2,) cutoff, and cutoff + skin."""
        return torch.tensor([self.cutoff, self.cutoff + self.skin], dtype=torch.float64, device="cpu")

    @cached_property
    def _last(self) -> list[tuple[Tensor, Tensor, PairGeometry]]:
        return []


def _all(shifts: Tensor, pairs: Rows) -> tuple[Rows, Tensor, Tensor]:
    """A translation of its own for every pair."""
    return pairs, torch.arange(len(shifts), device=shifts.device), shifts


def _distinct(shifts: Tensor, pairs: Rows) -> tuple[Rows, Tensor, Tensor]:
    """The translations of each structure without repetition, and which of them each pair has."""
    base, device = _base(shifts), shifts.device
    reach, codes = base // 2, base**3
    code = (shifts.long() + reach) @ torch.tensor([base * base, base, 1], device=device) + pairs.owner * codes
    distinct, image = torch.unique(code, return_inverse=True)
    counts = to_host(torch.bincount(distinct.div(codes, rounding_mode="floor"), minlength=len(pairs.counts)))
    digits = [(distinct % codes).div(base**k, rounding_mode="floor") % base - reach for k in (2, 1, 0)]
    return Rows(counts, device), image, torch.stack(digits, dim=1).to(shifts.dtype)


def _base(shifts: Tensor) -> int:
    """A number to the base of which the components of all translations are digits, from -base // 2 to base // 2."""
    return 2 * int(shifts.abs().max()) + 1 if len(shifts) else 1

"""Neighbour pairs that are kept with a skin and used again for every geometry near that of their search.

The pairs of one geometry are searched up to cutoff + skin. For a geometry near it only their distances are computed,
and the pairs within the cutoff are kept: exactly those of a fresh search, for models with and without an envelope.
Steps of molecular dynamics, steps of a relaxation with its cell, and displaced supercells share a search in this way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from ase import Atoms

from esen_flows.data.neighbors import Candidates, EdgeVectors, PairTable, edges_within, pair_table

SKIN_ANGSTROM = 1.0
# For fewer atoms a search takes less time than the test whether it is needed.
MINIMUM_ATOMS = 24
# Bound of the kept tables. 5 million pairs take 200 MB; 30,000 atoms of silicon at 6 + 1 Angstrom have two million.
MAXIMUM_PAIRS = 5_000_000
# A table that was not used in this many rounds of all kept tables makes room for others.
IDLE_ROUNDS = 2
# Geometries that a structure is compared with, besides the one that matched last: those whose fingerprints are nearest.
COMPARED = 3
# Bound of the pairs that are computed at once; each takes about 150 bytes.
PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Reference:
    """A geometry and its pairs within cutoff + skin.

    Attributes
    ----------
    positions
        (atoms, 3) positions in Angstrom.
    pbc
        (3,) periodicity of each direction.
    lattice
        (periodic directions, 3) lattice vectors of these directions in Angstrom.
    table
        The pairs.
    """

    positions: np.ndarray
    pbc: tuple[bool, ...]
    lattice: np.ndarray
    table: PairTable

    def images(self, atoms: Atoms, cutoff: float, skin: float) -> np.ndarray | None:
        """Positions of a structure in the periodic images to which the table refers.

        Let F be the linear map that takes the old lattice to the new one, and u the displacements beyond this map. A
        pair vector v becomes v F + u_source - u_target, with a length of at least |v| s - 2 max|u|, where s is the
        smallest stretch of F. If (cutoff + skin) s - 2 max|u| >= cutoff, no pair from outside the table can be within
        the cutoff. Species do not matter.

        Parameters
        ----------
        atoms
            A structure, near this geometry or not.
        cutoff
            Cutoff in Angstrom.
        skin
            Distance in Angstrom by which the table reaches beyond the cutoff.

        Returns
        -------
        np.ndarray | None
            (atoms, 3) positions in Angstrom; None if the table may lack a neighbour.
        """
        if len(atoms) != len(self.positions) or tuple(atoms.pbc.tolist()) != self.pbc:
            return None
        positions, lattice = atoms.positions, atoms.cell.array[atoms.pbc]
        before, room = self.positions, skin
        if not np.array_equal(lattice, self.lattice):
            if not np.isfinite(lattice).all():
                return None
            strain = np.eye(3) + np.linalg.pinv(self.lattice) @ (lattice - self.lattice)
            room = (cutoff + skin) * np.linalg.svd(strain, compute_uv=False)[-1] - cutoff
            if room < 0:
                return None
            before = before @ strain
        moved = positions - before
        if len(lattice) and not 2 * _largest(moved) <= room:
            # Atoms were wrapped into the cell, or left it. Displacements are taken relative to the first atom, so that
            # a common drift of all atoms does not count.
            cells = np.rint((moved - moved[0]) @ np.linalg.pinv(lattice))
            positions = positions - cells @ lattice
            moved = positions - before
        return positions if 2 * _largest(moved) <= room else None


@dataclass(eq=False)
class _Kept:
    """A reference, and the number of the look-up that used it last."""

    reference: Reference
    fingerprint: np.ndarray
    used: int

    @property
    def pairs(self) -> int:
        return len(self.reference.table.source)


@dataclass(frozen=True)
class _Shelf:
    """References with one number of atoms and one periodicity, and their fingerprints as rows."""

    kept: tuple[_Kept, ...]
    fingerprints: np.ndarray

    @classmethod
    def of(cls, kept: tuple[_Kept, ...]) -> "_Shelf":
        return cls(kept, np.stack([one.fingerprint for one in kept]))

    def nearest(self, atoms: Atoms) -> list[_Kept]:
        """The references that are most probably of the same structure."""
        if len(self.kept) <= COMPARED:
            return list(self.kept)
        distance = np.abs(self.fingerprints - _fingerprint(atoms)).sum(axis=1)
        return [self.kept[index] for index in np.argsort(distance)[:COMPARED]]


def _fingerprint(atoms: Atoms) -> np.ndarray:
    """Numbers that change little when a structure moves a little, and not at all when atoms are wrapped into the cell.

    They only say which references are compared first.
    """
    relative = atoms.positions - atoms.positions[0]
    weights = np.linspace(-1.0, 1.0, len(atoms)) / len(atoms)
    lattice = atoms.cell.array[atoms.pbc]
    if not len(lattice):
        return weights @ relative
    phases: np.ndarray = np.sin(2 * np.pi * (relative @ np.linalg.pinv(lattice)))
    return np.concatenate((lattice.ravel(), weights @ phases))


def _largest(moved: np.ndarray) -> float:
    """Length of the longest displacement after the mean one is subtracted; no distance depends on the mean."""
    relative = moved - moved.mean(axis=0)
    return float(np.sqrt((relative * relative).sum(axis=1).max()))


class NeighborCache:
    """Edges of structures, from the pairs of earlier structures wherever these are certain to contain them.

    Tables are bounded by their pairs. Where these are not enough for the structures that come again and again, the
    tables that there are stay, and other structures are searched as if there were no cache. Several threads may share a
    cache: references never change, and collections of them are replaced as a whole. At worst two threads make the
    same search.

    Parameters
    ----------
    cutoff_angstrom
        Length of the longest edge in Angstrom.
    skin_angstrom
        Distance in Angstrom by which pairs are searched beyond the cutoff.
    device
        Device on which pairs are kept and distances computed; the search itself is done on the CPU.
    reverse
        Whether the index of the reverse of each edge is given too.

    Attributes
    ----------
    searches
        Number of neighbour searches so far.
    """

    def __init__(
        self,
        cutoff_angstrom: float,
        *,
        skin_angstrom: float = SKIN_ANGSTROM,
        device: torch.device | str = "cpu",
        reverse: bool = False,
    ) -> None:
        self.cutoff, self.skin, self.device = cutoff_angstrom, skin_angstrom, device
        self.reverse, self.searches = reverse, 0
        self._look_ups = 0
        # By number of atoms and periodicity.
        self._shelves: dict[tuple[int, ...], _Shelf] = {}
        self._last: dict[tuple[int, ...], _Kept] = {}  # the ones that matched last

    def clear(self) -> bool:
        """Give back the memory of all tables.

        Returns
        -------
        bool
            Whether there was any.
        """
        had, self._shelves, self._last = bool(self._shelves), {}, {}
        return had

    def edges(self, structures: Sequence[Atoms]) -> list[EdgeVectors]:
        """The edges of structures.

        Parameters
        ----------
        structures
            The structures.

        Returns
        -------
        list[EdgeVectors]
            Edges of each structure, float64 on the device.

        Raises
        ------
        StructureError
            A coordinate is NaN, a periodic direction has no lattice vector, or atoms coincide.
        """
        found: list[EdgeVectors] = []
        for group in self._groups(structures):
            found += edges_within(group, self.cutoff, reverse=self.reverse)
        return found

    def _groups(self, structures: Sequence[Atoms]) -> Iterator[list[Candidates]]:
        group: list[Candidates] = []
        pairs = 0
        for atoms in structures:
            candidates = self._candidates(atoms)
            size = len(candidates.table.source)
            if group and pairs + size > PAIRS_AT_ONCE:
                yield group
                group, pairs = [], 0
            group.append(candidates)
            pairs += size
        if group:
            yield group

    def _candidates(self, atoms: Atoms) -> Candidates:
        if len(atoms) < MINIMUM_ATOMS:
            self.searches += 1
            return Candidates(atoms, atoms.positions, pair_table(atoms, self.cutoff, self.device))
        self._look_ups += 1
        place = (len(atoms), *atoms.pbc.tolist())
        last, shelf = self._last.get(place), self._shelves.get(place)
        for kept in chain(() if last is None else (last,), _when_needed(shelf, atoms)):
            positions = kept.reference.images(atoms, self.cutoff, self.skin)
            if positions is not None:
                kept.used, self._last[place] = self._look_ups, kept
                return Candidates(atoms, positions, kept.reference.table)
        self.searches += 1
        if not self._has_room():
            return Candidates(atoms, atoms.positions, pair_table(atoms, self.cutoff, self.device))
        table = pair_table(atoms, self.cutoff + self.skin, self.device)
        lattice = atoms.cell.array[atoms.pbc]
        reference = Reference(atoms.positions.copy(), tuple(atoms.pbc.tolist()), lattice, table)
        new = _Kept(reference, _fingerprint(atoms), self._look_ups)
        shelf = self._shelves.get(place)
        self._shelves[place] = _Shelf.of((*(shelf.kept if shelf else ()), new))
        self._last[place] = new
        return Candidates(atoms, atoms.positions, table)

    def _has_room(self) -> bool:
        """Whether another table may be kept, after those that were not used for long have been removed if need be."""
        kept = [one for shelf in list(self._shelves.values()) for one in shelf.kept]
        if sum(one.pairs for one in kept) < MAXIMUM_PAIRS:
            return True
        oldest = self._look_ups - IDLE_ROUNDS * len(kept) - 1
        left = {
            place: tuple(one for one in shelf.kept if one.used >= oldest)
            for place, shelf in list(self._shelves.items())
        }
        self._shelves = {place: _Shelf.of(some) for place, some in left.items() if some}
        self._last = {place: one for place, one in list(self._last.items()) if one in left.get(place, ())}
        return sum(one.pairs for some in left.values() for one in some) < MAXIMUM_PAIRS


def _when_needed(shelf: _Shelf | None, atoms: Atoms) -> Iterator[_Kept]:
    """The nearest references of a shelf, found only where the one that matched last does not match again."""
    yield from shelf.nearest(atoms) if shelf is not None else ()

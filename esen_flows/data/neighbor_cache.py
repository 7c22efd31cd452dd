"""Neighbour pairs that are kept with a skin and used again for every geometry near that of their search.

The pairs of one geometry are searched up to cutoff + skin. For a geometry near it only their distances are computed,
and the pairs within the cutoff are kept: exactly those of a fresh search, for models with and without an envelope.
Steps of molecular dynamics, steps of a relaxation with its cell, and displaced supercells share a search in this way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from ase import Atoms

from esen_flows.data.neighbors import Candidates, EdgeVectors, PairTable, edges_within, pair_table

SKIN_ANGSTROM = 1.0
# For fewer atoms a search takes less time than the test whether it is needed.
MINIMUM_ATOMS = 24
# Bounds of the kept tables. 5 million pairs take 200 MB; 30,000 atoms of silicon at 6 + 1 Angstrom have two million.
MAXIMUM_TABLES = 8
MAXIMUM_PAIRS = 5_000_000
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


def _largest(moved: np.ndarray) -> float:
    """Length of the longest displacement after the mean one is subtracted; no distance depends on the mean."""
    relative = moved - moved.mean(axis=0)
    return float(np.sqrt((relative * relative).sum(axis=1).max()))


class NeighborCache:
    """Edges of structures, from the pairs of earlier structures wherever these are certain to contain them.

    Several threads may share a cache: references are replaced as a whole and never changed, so that at worst two
    threads make the same search.

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
        self._references: tuple[Reference, ...] = ()  # the last used one first

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
        for index, reference in enumerate(references := self._references):
            positions = reference.images(atoms, self.cutoff, self.skin)
            if positions is not None:
                if index:
                    self._references = (reference, *references[:index], *references[index + 1 :])
                return Candidates(atoms, positions, reference.table)
        self.searches += 1
        table = pair_table(atoms, self.cutoff + self.skin, self.device)
        lattice = atoms.cell.array[atoms.pbc]
        new = Reference(atoms.positions.copy(), tuple(atoms.pbc.tolist()), lattice, table)
        self._references = _bounded((new, *references))
        return Candidates(atoms, atoms.positions, table)


def _bounded(references: tuple[Reference, ...]) -> tuple[Reference, ...]:
    """The first references within the bounds; always at least one."""
    kept = references[:MAXIMUM_TABLES]
    pairs = accumulate(len(reference.table.source) for reference in kept)
    return tuple(reference for reference, total in zip(kept, pairs, strict=True) if total <= MAXIMUM_PAIRS) or kept[:1]

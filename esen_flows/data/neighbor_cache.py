"""Neighbour pairs that outlive a step: kept with a skin, and used again for every geometry near the one they are of.

The pairs of one geometry are searched up to cutoff + skin. For another one only their distances are computed, and those
within the cutoff are kept: exactly the pairs of a fresh search, for models with and without an envelope. Steps of
molecular dynamics, of a relaxation with its cell, and displaced supercells share a search in this way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from esen_flows.data.neighbors import Candidates, EdgeVectors, PairTable, edges_within, pair_table

SKIN_ANGSTROM = 1.0
# A search among fewer atoms takes less time than to find out that it can be spared.
MINIMUM_ATOMS = 24
# Bounds of what is kept: 5 million pairs are 200 MB, and 30,000 atoms of silicon at 6 + 1 Angstrom two million.
MAXIMUM_TABLES = 8
MAXIMUM_PAIRS = 5_000_000
# Bound of what is computed at once, about 150 bytes each.
PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Reference:
    """A geometry and its pairs within cutoff + skin.

    Attributes
    ----------
    positions
        (atoms, 3) Angstrom; pbc : (3,) of them; lattice : (periodic directions, 3) their lattice vectors.
    """

    positions: np.ndarray
    pbc: tuple[bool, ...]
    lattice: np.ndarray
    table: PairTable

    def images(self, atoms: Atoms, cutoff: float, skin: float) -> np.ndarray | None:
        """Positions of `atoms` in the periodic images that the table speaks of; None if a neighbour may be missing.

        Let F be the linear map that takes the old lattice to the new one, u what atoms moved beyond it. A pair vector v
        becomes v F + u_source - u_target, of a length of at least |v| s - 2 max|u| with s the smallest stretch of F.
        With (cutoff + skin) s - 2 max|u| >= cutoff no pair from outside the table can have come within the cutoff.
        Species do not matter here.
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
            # Atoms that were wrapped into the cell, or left it. Seen from the first atom: all may drift as they like.
            cells = np.rint((moved - moved[0]) @ np.linalg.pinv(lattice))
            positions = positions - cells @ lattice
            moved = positions - before
        return positions if 2 * _largest(moved) <= room else None


def _largest(moved: np.ndarray) -> float:
    """Length of the longest displacement about their mean, which no distance depends on."""
    relative = moved - moved.mean(axis=0)
    return float(np.sqrt((relative * relative).sum(axis=1).max()))


class NeighborCache:
    """Edges of structures, from pairs of earlier ones wherever those are certain to hold them all.

    Parameters
    ----------
    cutoff_angstrom
        of the edges.
    skin_angstrom
        how much further pairs are searched.
    device
        where pairs are kept and distances computed; the search itself is done on the CPU.

    Attributes
    ----------
    searches
        number of neighbour searches so far.

    References are replaced as a whole and never changed, so that threads that share a cache at worst search twice.
    """

    def __init__(
        self, cutoff_angstrom: float, *, skin_angstrom: float = SKIN_ANGSTROM, device: torch.device | str = "cpu"
    ) -> None:
        self.cutoff, self.skin, self.device = cutoff_angstrom, skin_angstrom, device
        self.searches = 0
        self._references: tuple[Reference, ...] = ()  # the latest used first

    def edges(self, structures: Sequence[Atoms]) -> list[EdgeVectors]:
        """The edges of each structure, float64 on the device.

        Raises
        ------
        StructureError
            see `neighbor_pairs`.
        """
        found: list[EdgeVectors] = []
        for group in self._groups(structures):
            found += edges_within(group, self.cutoff)
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
        self._references = tuple(_bounded((new, *references)))
        return Candidates(atoms, atoms.positions, table)


def _bounded(references: Sequence[Reference]) -> Iterator[Reference]:
    """The latest ones within the bounds, the newest in any case."""
    pairs = 0
    for index, reference in enumerate(references[:MAXIMUM_TABLES]):
        pairs += len(reference.table.source)
        if index and pairs > MAXIMUM_PAIRS:
            return
        yield reference

"""An order of structures in which those of similar size follow one another."""

import math
from collections.abc import Sequence

from ase import Atoms

# Numbers of edges within this factor are one class.
CLASS_FACTOR = 1.4
# Measures how dense a structure is, where a force field does not say its cutoff.
DEFAULT_CUTOFF_ANGSTROM = 6.0


def by_size_class(structures: Sequence[Atoms], cutoff_angstrom: float | None) -> list[int]:
    """Order structures by their number of atoms, then by classes of their number of edges, the largest first in each.

    Force fields on JAX compile for arrays of fixed sizes, which takes some 20 seconds, and compile anew when a
    structure has another number of atoms, or more edges than fit (nequix 0.4.5). In this order they compile about once
    for each class, and at most a third of each array is padding.

    Parameters
    ----------
    structures
        Structures of any size.
    cutoff_angstrom
        Radius of the neighbour list in Angstrom; None: 6 Angstrom.

    Returns
    -------
    list[int]
        Indices into `structures`.
    """
    from esen_flows.data.neighbors import pair_table  # imports torch, which nothing else here needs

    cutoff = cutoff_angstrom or DEFAULT_CUTOFF_ANGSTROM

    def place(index: int) -> tuple[int, int, int]:
        edges = max(1, len(pair_table(structures[index], cutoff).source))
        return len(structures[index]), math.floor(math.log(edges) / math.log(CLASS_FACTOR)), -edges

    return sorted(range(len(structures)), key=place)

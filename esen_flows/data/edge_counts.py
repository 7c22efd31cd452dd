"""Numbers of directed edges of the structures of a dataset, counted once and kept beside its folder.

Batches of a training are cut by these numbers, so that they are known before the first epoch.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from esen_flows.data.npy import FileRows
from esen_flows.data.tables import Tables, structure_at
from esen_flows.files import written_whole


def known_edges(tables: Tables, cutoff_angstrom: float) -> np.ndarray | None:
    """Edge counts that were counted before.

    Parameters
    ----------
    tables
        The structures.
    cutoff_angstrom
        Radius of the neighbour list in Angstrom.

    Returns
    -------
    np.ndarray | None
        (n,) int32 directed edges of each structure, self-images included; None if they were never counted.
    """
    known = tables.edges.get(cutoff_angstrom)
    if known is None and tables.folder is not None and _path(tables.folder, cutoff_angstrom).is_file():
        known = FileRows(_path(tables.folder, cutoff_angstrom), np.dtype("<i4"), (), len(tables))[:]
        tables.edges[cutoff_angstrom] = known
    return known


def count_edges(tables: Tables, cutoff_angstrom: float, on_structure: Callable[[], None]) -> None:
    """Count the edges of all structures and keep the counts.

    Parameters
    ----------
    tables
        The structures.
    cutoff_angstrom
        Radius of the neighbour list in Angstrom.
    on_structure
        Called after each structure.

    Raises
    ------
    StructureError
        A structure has a cell for which there is no neighbour list.
    """
    from esen_flows.data.neighbors import pair_table  # imports torch, which nothing else here needs

    counts = np.empty(len(tables), np.int32)
    for row in range(len(tables)):
        counts[row] = len(pair_table(structure_at(tables, row).atoms, cutoff_angstrom).source)
        on_structure()
    keep_edges(tables, cutoff_angstrom, counts)


def keep_edges(tables: Tables, cutoff_angstrom: float, counts: np.ndarray) -> None:
    """Keep edge counts until the end of the process and, where the tables are files, in their folder.

    Parameters
    ----------
    tables
        The structures.
    cutoff_angstrom
        Radius of the neighbour list in Angstrom.
    counts
        (n,) int32 directed edges of each structure.
    """
    tables.edges[cutoff_angstrom] = counts
    if tables.folder is None:
        return
    try:
        with written_whole(_path(tables.folder, cutoff_angstrom)) as temporary:
            np.save(temporary, counts)
    except OSError as error:  # a folder of another user, or a full disk: this process has the counts all the same
        warnings.warn(f"edge counts cannot be kept in {tables.folder}: {error}; they are counted again", stacklevel=2)


def _path(folder: Path, cutoff_angstrom: float) -> Path:
    return folder / f"edges_{float(cutoff_angstrom)}.npy"

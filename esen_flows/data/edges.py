"""Pairs and edges of many structures at one geometry."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from esen_flows.data.neighbors import nearest
from esen_flows.data.ragged import to_host


@dataclass(frozen=True)
class PairGeometry:
    """The pairs of neighbour tables at one geometry.

    Attributes
    ----------
    vectors
        (pairs, 3) from target to source in Angstrom.
    squared
        (pairs,) squared lengths in Angstrom^2.
    within
        (pairs,) bool, which are within the cutoff.
    numbers
        (structures,) float64, how many of each structure are.
    smallest
        (structures,) smallest squared lengths in Angstrom^2, infinite without pairs.
    """

    vectors: Tensor
    squared: Tensor
    within: Tensor
    numbers: Tensor
    smallest: Tensor


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

    def nearest(self, max_neighbors: int) -> "Edges":
        """About the nearest edges of each target.

        Parameters
        ----------
        max_neighbors
            Number of edges above which a target loses its longest ones (see `neighbors.nearest`).

        Returns
        -------
        Edges
            Those that are left, without their reverses.
        """
        kept = nearest(self.vectors, self.target, max_neighbors)
        columns = (column.index_select(0, kept) for column in (self.source, self.target, self.vectors, self.system))
        source, target, vectors, system = columns
        counts = to_host(torch.bincount(system, minlength=len(self.counts)))
        return Edges(source, target, vectors, system, counts)


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

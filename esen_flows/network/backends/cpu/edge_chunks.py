"""Consecutive edges that the compiled kernels of a frozen network process together, and the memory that they share."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from esen_flows.network.esen.edges import EdgeGeometry

# Edges x channels of a chunk, per thread. Small chunks stay in the caches, large ones wake the threads less often.
# Measured with two threads, seconds a call: 216 Si, 128 channels, 128, 256, 512, 1024 edges a chunk and thread 0.93,
# 0.77, 0.72, 0.70 (the last takes 40 MB more); 640 Si, 32 channels, 256, 1024, 2048, 4096 edges 0.32, 0.20, 0.20, 0.19.
CHUNK_SIZE = 65536

# Per edge: rotation (edges, n_reduced, coefficients), envelope (edges,) and radial basis (edges, K).
EdgeTensors = tuple[Tensor, Tensor, Tensor]
# Source and target species rows of the first radial layer, each (atoms, edge_channels).
SpeciesTables = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class EdgeChunk:
    """The edges of one chunk.

    Attributes
    ----------
    n
        Number of edges.
    rows
        Their positions among all edges.
    source
        (n,) source atoms.
    target
        (n,) target atoms, ascending.
    by_source
        (n,) order in which the sources ascend.
    rotation
        (n, n_reduced, coefficients) rotation into the edge frame; its transpose leads out of it.
    envelope
        (n,) factors of the messages.
    basis
        (n, K) radial basis.
    tables
        Contributions of the species to the first layer of the radial network.
    keeps
        Whether forward values are kept for the backward pass; otherwise the backward pass recomputes them.
    buffers
        Memory that all chunks share. Allocating it anew for every chunk fragments the heap and touches new pages.
    """

    n: int
    rows: slice
    source: Tensor
    target: Tensor
    by_source: Tensor
    rotation: Tensor
    envelope: Tensor
    basis: Tensor
    tables: SpeciesTables
    keeps: bool
    buffers: dict[tuple[str, int], Tensor]

    def scratch(self, name: str, columns: int) -> Tensor:
        """Uninitialised memory that is valid until the next chunk.

        Parameters
        ----------
        name
            Name of the buffer.
        columns
            Values per edge.

        Returns
        -------
        Tensor
            (n, columns), contiguous.
        """
        found = self.buffers.get((name, columns))
        if found is None or found.shape[0] < self.n:
            found = self.buffers[name, columns] = self.basis.new_empty(self.n, columns)
        return found if found.shape[0] == self.n else found[: self.n]

    def lasting(self, name: str, columns: int) -> Tensor:
        """Uninitialised memory for a forward value: its own if values are kept, otherwise scratch memory.

        Parameters
        ----------
        name
            Name of the scratch buffer.
        columns
            Values per edge.

        Returns
        -------
        Tensor
            (n, columns), contiguous.
        """
        return self.basis.new_empty(self.n, columns) if self.keeps else self.scratch(name, columns)


class ChunkedEdges:
    """The edges of a batch in chunks, for all layers.

    Parameters
    ----------
    geometry
        All edges, sorted by target.
    channels
        Channels of the node features.
    limit
        Forward values of the first `limit` edges are kept for the backward pass, those of the others are recomputed.
        None: all are kept.
    """

    def __init__(self, geometry: EdgeGeometry, channels: int, limit: int | None) -> None:
        self.geometry, self.limit = geometry, limit
        size = max(1, CHUNK_SIZE // channels) * torch.get_num_threads()
        if limit is not None:  # the limit may be below one chunk
            size = max(1, min(size, limit))
        ends = (geometry.source.split(size), geometry.target.split(size))
        self.buffers: dict[tuple[str, int], Tensor] = {}
        self.parts = [(source, target, source.argsort(stable=True)) for source, target in zip(*ends, strict=True)]

    def chunks(self, tensors: EdgeTensors, tables: SpeciesTables) -> Iterator[EdgeChunk]:
        """The chunks, one after the other.

        Parameters
        ----------
        tensors
            Rotation, envelope and basis of all edges.
        tables
            Contributions of the species to the first layer of the radial network.

        Yields
        ------
        EdgeChunk
            The next chunk.
        """
        start = 0
        for source, target, by_source in self.parts:
            n = source.shape[0]
            rows = slice(start, start := start + n)
            # A single chunk is the common case of small cells, in which every operation counts.
            parts = tensors if len(self.parts) == 1 else [tensor[rows] for tensor in tensors]
            rotation, envelope, basis = parts
            keeps = self.limit is None or rows.stop <= self.limit
            yield EdgeChunk(n, rows, source, target, by_source, rotation, envelope, basis, tables, keeps, self.buffers)

    def replaced(self, tensors: EdgeTensors) -> EdgeGeometry:
        """The geometry with other tensors.

        Parameters
        ----------
        tensors
            Rotation, envelope and basis of all edges.

        Returns
        -------
        EdgeGeometry
            The geometry of these edges.
        """
        rotation, envelope, basis = tensors
        return replace(self.geometry, rotation=rotation, envelope=envelope, basis=basis)

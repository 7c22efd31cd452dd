"""A few hundred edges at a time: what the compiled kernels of `fused` are given, and the memory that steps share."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from esen_flows.network.edges import EdgeGeometry
from esen_flows.network.native import Kernels
from esen_flows.network.radial import RadialMLP

# Edges x channels of a step, per thread. Small steps stay in the caches, large ones wake the threads less often.
# Measured with two threads, seconds a call: 216 Si, 128 channels, 128, 256, 512, 1024 edges a step and thread 0.93,
# 0.77, 0.72, 0.70 (the last takes 40 MB more); 640 Si, 32 channels, 256, 1024, 2048, 4096 edges 0.32, 0.20, 0.20, 0.19.
STEP_SIZE = 65536


class Radial:
    """All but the last layer of a radial network, (edges, K) -> (edges, edge_channels)."""

    def __init__(self, kernel: Kernels, network: RadialMLP) -> None:
        self.kernel = kernel
        first, norm_1, _, second, norm_2, _, last = cast(Iterable[Any], network.net)
        self.basis, self.source, self.target = (
            part.contiguous() for part in first.weight.detach().split(network.split, 1)
        )
        self.bias = first.bias.detach()
        self.norms = [(norm.weight.detach(), norm.bias.detach()) for norm in (norm_1, norm_2)]
        self.weight, self.shift = second.weight.detach(), second.bias.detach()
        self.last_weight, self.last_bias = last.weight.detach(), last.bias.detach()
        self.channels = len(self.bias)

    def tables(self, species: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """What the species of source and target add to the first layer, each (atoms, edge_channels)."""
        return species[0].detach() @ self.source.T, torch.addmm(self.bias, species[1].detach(), self.target.T)

    def forward(self, step: "EdgeChunk", place: "Place") -> tuple[Tensor, Tensor, Tensor]:
        """Before the first norm, before the second (both in their `place`), and the result."""
        before_1, before_2 = place("before_1", self.channels), place("before_2", self.channels)
        after = step.scratch("after", self.channels)
        torch.mm(step.basis, self.basis.T, out=before_1)
        self.kernel.add_of_nodes(self.channels, step.n, step.source, step.target, *step.tables, before_1)
        self.kernel.norm_silu(self.channels, step.n, before_1, *self.norms[0], after)
        torch.addmm(self.shift, after, self.weight.T, out=before_2)
        self.kernel.norm_silu(self.channels, step.n, before_2, *self.norms[1], after)
        return before_1, before_2, after

    def backward(self, step: "EdgeChunk", before_1: Tensor, before_2: Tensor, grad: Tensor, grad_basis: Tensor) -> None:
        """Writes the gradient of the basis, (edges, K), from that of the result, which is overwritten."""
        down = step.scratch("down", self.channels)
        self.kernel.norm_silu_backward(self.channels, step.n, before_2, *self.norms[1], grad, down)
        torch.mm(down, self.weight, out=grad)
        self.kernel.norm_silu_backward(self.channels, step.n, before_1, *self.norms[0], grad, down)
        torch.mm(down, self.basis, out=grad_basis)


# A name and a number of columns -> memory for that, one row per edge.
Place = Callable[[str, int], Tensor]


@dataclass(frozen=True)
class EdgeChunk:
    """The edges of one step.

    Attributes
    ----------
    n
        their number.
    source, target
        (n,) atoms; target sorted.
    by_source
        (n,) order in which the sources are sorted.
    rotation
        (n, rows, coefficients) into the edge frame; its transpose leads out of it.
    envelope
        (n,) factors of the messages.
    basis
        (n, K).
    tables
        of the radial network.
    kept
        whether what the way back needs is kept from the way there; if not, it is computed again.
    buffers
        memory that all steps share. Allocating it anew at every step fragments the heap, and touches new pages.
    """

    n: int
    source: Tensor
    target: Tensor
    by_source: Tensor
    rotation: Tensor
    envelope: Tensor
    basis: Tensor
    tables: tuple[Tensor, Tensor]
    kept: bool
    buffers: dict[tuple[str, int], Tensor]

    def scratch(self, name: str, columns: int) -> Tensor:
        """Memory until the next step."""
        found = self.buffers.get((name, columns))
        if found is None or len(found) < self.n:
            found = self.buffers[name, columns] = self.basis.new_empty(self.n, columns)
        return found[: self.n]

    def lasting(self, name: str, columns: int) -> Tensor:
        """Memory of its own for what is kept."""
        return self.basis.new_empty(self.n, columns) if self.kept else self.scratch(name, columns)


class ChunkedEdges:
    """The edges of a batch in steps, for all layers.

    Of the first `limit` edges, what the way back needs is kept from the way there; of others it is computed again.
    """

    def __init__(self, geometry: EdgeGeometry, channels: int, limit: int | None) -> None:
        self.geometry, self.limit = geometry, limit
        size = max(1, STEP_SIZE // channels) * torch.get_num_threads()
        if limit is not None:  # less memory than for one step
            size = max(1, min(size, limit))
        columns = (geometry.source.split(size), geometry.target.split(size))
        self.buffers: dict[tuple[str, int], Tensor] = {}
        self.parts = [(source, target, source.argsort(stable=True)) for source, target in zip(*columns, strict=True)]

    def steps(
        self, radial: Radial, rotation: Tensor, envelope: Tensor, basis: Tensor
    ) -> Iterator[tuple[slice, EdgeChunk]]:
        """The rows of each step, and the step."""
        tables, start = radial.tables(self.geometry.species), 0
        for source, target, order in self.parts:
            rows = slice(start, start := start + len(source))
            of_edges = (rotation[rows], envelope[rows], basis[rows])
            kept = self.limit is None or rows.stop <= self.limit
            yield rows, EdgeChunk(len(source), source, target, order, *of_edges, tables, kept, self.buffers)

    def replaced(self, rotation: Tensor, envelope: Tensor, basis: Tensor) -> EdgeGeometry:
        """The geometry with these tensors."""
        return replace(self.geometry, rotation=rotation, envelope=envelope, basis=basis)

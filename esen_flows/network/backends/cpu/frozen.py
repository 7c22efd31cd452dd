"""Messages of frozen networks on CPUs: compiled kernels around matrix products, a few hundred edges at a time.

The results are those of `Layer.messages` and `EdgeDegreeEmbedding`, in less memory and time. Parameters get no gradient
here. A gradient that has to be differentiated itself (`create_graph`) is computed by the modules.

One row per edge: rows (l, m) of the edge frame in the m-major order of `reduced_order`, channels last, so that the
matrix product of each m reads and writes consecutive columns. The layouts are described in `edge_kernels.cpp`.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from esen_flows.native import Functions
from esen_flows.network.backends.cpu.edge_chunks import ChunkedEdges, EdgeChunk, EdgeTensors, SpeciesTables
from esen_flows.network.backends.cpu.frozen_nodes import on_nodes
from esen_flows.network.backends.cpu.native import MAX_LMAX, kernels
from esen_flows.network.backends.cpu.training import message_sum
from esen_flows.network.backends.plain import EdgePart, sum_in_chunks
from esen_flows.network.esen.edges import EdgeGeometry
from esen_flows.network.esen.harmonics import reduced_order
from esen_flows.network.esen.layers import EDGE_DEGREE_RESCALE, EdgeDegreeEmbedding, Layer
from esen_flows.network.esen.norms import degree_index
from esen_flows.network.esen.radial import RadialMLP
from esen_flows.network.esen.so2 import Columns, GateActivation

# Forward values of one chunk that its backward pass needs; None where it recomputes them.
_Saved = tuple[Tensor, ...] | None


class _Radial:
    """All layers of a radial network except the last, (edges, K) -> (edges, edge_channels)."""

    def __init__(self, kernel: Functions, network: RadialMLP) -> None:
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
        # Views that are made once: in a cell of a few atoms even these count.
        self.basis_t, self.weight_t, self.last_weight_t = self.basis.T, self.weight.T, self.last_weight.T

    def tables(self, species: tuple[Tensor, Tensor]) -> SpeciesTables:
        """Contributions of source and target species to the first layer, per atom: edges of an atom share them."""
        return species[0].detach() @ self.source.T, torch.addmm(self.bias, species[1].detach(), self.target.T)

    def forward(self, chunk: EdgeChunk, memory: Callable[[str, int], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the two norms, in `memory` of (name, columns), and the result."""
        before_1, before_2 = memory("before_1", self.channels), memory("before_2", self.channels)
        after = chunk.scratch("after", self.channels)
        torch.mm(chunk.basis, self.basis_t, out=before_1)
        self.kernel.add_node_rows(self.channels, chunk.n, chunk.source, chunk.target, *chunk.tables, before_1)
        self.kernel.norm_silu(self.channels, chunk.n, before_1, *self.norms[0], after)
        torch.addmm(self.shift, after, self.weight_t, out=before_2)
        self.kernel.norm_silu(self.channels, chunk.n, before_2, *self.norms[1], after)
        return before_1, before_2, after

    def backward(self, chunk: EdgeChunk, before_1: Tensor, before_2: Tensor, grad: Tensor, grad_basis: Tensor) -> None:
        """Write the gradient of the basis, (edges, K), given that of the result, which is overwritten."""
        down = chunk.scratch("down", self.channels)
        self.kernel.norm_silu_backward(self.channels, chunk.n, before_2, *self.norms[1], grad, down)
        torch.mm(down, self.weight, out=grad)
        self.kernel.norm_silu_backward(self.channels, chunk.n, before_1, *self.norms[0], grad, down)
        torch.mm(down, self.basis, out=grad_basis)


class _LayerMessages:
    """The edge part of one layer."""

    def __init__(self, kernel: Functions, layer: Layer) -> None:
        self.kernel, self.differentiable = kernel, partial(message_sum, layer)
        one, two = layer.edge_wise.so2_conv_1, layer.edge_wise.so2_conv_2
        self.sizes = (one.lmax, one.mmax)
        self.rows = len(reduced_order(*self.sizes))
        self.channels, self.hidden, self.extra = one.in_channels // 2, one.out_channels, one.extra_outputs
        self.radial = _Radial(kernel, one.rad_func)
        self.columns = (Columns.of(one), Columns.of(two))
        self.weights = [[matrix.detach() for matrix in convolution.matrices()] for convolution in (one, two)]
        self.transposed = [[matrix.T for matrix in matrices] for matrices in self.weights]
        self.bias_1, self.bias_2 = one.fc_m0.bias.detach(), two.fc_m0.bias.detach()

    def sum(self, edges: ChunkedEdges, x: Tensor, tensors: EdgeTensors) -> tuple[Tensor, list[_Saved]]:
        """Sums of messages (atoms, coefficients, channels), and the saved values of each chunk."""
        total, saved = torch.zeros_like(x), []
        for chunk in edges.chunks(tensors, self.radial.tables(edges.geometry.species)):
            values = self._forward(chunk, x)
            shared = (chunk.target, chunk.rotation, chunk.envelope, values[-1], self.bias_2, total)
            self.kernel.rotate_back(*self.sizes, self.channels, chunk.n, *shared)
            saved.append(values if chunk.keeps else None)
        return total, saved

    def gradients(
        self, edges: ChunkedEdges, saved: Sequence[_Saved], grad: Tensor, x: Tensor, tensors: EdgeTensors
    ) -> tuple[Tensor, *EdgeTensors]:
        """Gradients of x, rotation, envelope and basis, given that of the sums."""
        grad_x, (rotation, envelope, basis) = torch.zeros_like(x), tensors
        # Kernels add to the gradient of the rotation and write the others.
        grads = (torch.zeros_like(rotation), torch.empty_like(envelope), torch.empty_like(basis))
        chunks = edges.chunks(tensors, self.radial.tables(edges.geometry.species))
        for chunk, values in zip(chunks, saved, strict=True):
            of_chunk = (grads[0][chunk.rows], grads[1][chunk.rows], grads[2][chunk.rows])
            self._backward(chunk, x, values or self._forward(chunk, x), grad, grad_x, of_chunk)
        return grad_x, *grads

    def _forward(self, chunk: EdgeChunk, x: Tensor) -> tuple[Tensor, ...]:
        """The values that the backward pass needs.

        The inputs of the two norms of the radial network, the modulation, the gates and hidden rows (without their
        bias), and last the messages in the edge frame (without their bias).
        """
        kernel, n = self.kernel, chunk.n
        before_1, before_2, scalars = self.radial.forward(chunk, chunk.lasting)
        modulation = chunk.lasting("modulation", len(self.radial.last_bias))
        torch.addmm(self.radial.last_bias, scalars, self.radial.last_weight_t, out=modulation)
        rotated = chunk.scratch("rotated", self.rows * 2 * self.channels)
        shared = (chunk.source, chunk.target, x, chunk.rotation, modulation, rotated)
        kernel.gather_rotate(*self.sizes, self.channels, n, *shared)
        hidden = chunk.lasting("hidden", self.extra + self.rows * self.hidden)
        self.columns[0].multiply(rotated, self.transposed[0], hidden)
        gated = chunk.scratch("gated", self.rows * self.hidden)
        # The gates are replaced by their sigmoids in place: the backward pass needs the sigmoids alone.
        kernel.gate(*self.sizes, self.hidden, n, hidden.shape[1], hidden, self.bias_1, hidden, gated)
        values = chunk.lasting("values", self.rows * self.channels)
        self.columns[1].multiply(gated, self.transposed[1], values)
        return before_1, before_2, modulation, hidden, values

    def _backward(
        self, chunk: EdgeChunk, x: Tensor, saved: tuple[Tensor, ...], grad: Tensor, grad_x: Tensor, grads: EdgeTensors
    ) -> None:
        """Add to `grad_x` and the gradient of the rotation; write those of envelope and basis."""
        kernel, n, ends = self.kernel, chunk.n, (chunk.source, chunk.target)
        before_1, before_2, modulation, hidden, values = saved
        grad_rotation, grad_envelope, grad_basis = grads
        grad_values = chunk.scratch("grad_values", values.shape[1])
        shared: tuple[Tensor, ...] = (chunk.rotation, chunk.envelope, values, self.bias_2, grad)
        shared = (*shared, grad_rotation, grad_envelope, grad_values)
        kernel.rotate_back_backward(*self.sizes, self.channels, n, chunk.target, *shared)
        grad_gated = chunk.scratch("gated", self.rows * self.hidden)
        self.columns[1].multiply_back(grad_values, self.weights[1], grad_gated)
        grad_hidden = chunk.scratch("grad_hidden", hidden.shape[1])
        shared = (hidden, self.bias_1, hidden, grad_gated, grad_hidden)
        kernel.gate_backward(*self.sizes, self.hidden, n, hidden.shape[1], *shared)
        grad_rows = chunk.scratch("rotated", self.rows * 2 * self.channels)
        self.columns[0].multiply_back(grad_hidden, self.weights[0], grad_rows)
        grad_modulation = chunk.scratch("grad_modulation", modulation.shape[1])
        shared = (*ends, x, chunk.rotation, modulation, grad_rows, grad_rows, grad_rotation, grad_modulation)
        kernel.gather_rotate_backward(*self.sizes, self.channels, n, *shared)
        for half, order in enumerate((chunk.by_source, None)):
            shared = (chunk.rotation, grad_rows, grad_x)
            kernel.scatter_rotated(*self.sizes, self.channels, n, half, ends[half], order, *shared)
        grad_scalars = chunk.scratch("after", self.radial.channels)
        torch.mm(grad_modulation, self.radial.last_weight, out=grad_scalars)
        self.radial.backward(chunk, before_1, before_2, grad_scalars, grad_basis)


class _DegreeMessages:
    """The first messages: edge scalars as m = 0 rows, rotated back.

    The last linear layer of their radial network is applied to the sums over edges instead of to each edge, which is
    possible because rotation and summation are linear too.
    """

    def __init__(self, kernel: Functions, module: EdgeDegreeEmbedding) -> None:
        self.kernel, self.differentiable = kernel, partial(message_sum, module)
        self.radial = _Radial(kernel, module.rad_func)
        self.degrees = torch.tensor(degree_index(module.rows - 1))
        # Each coefficient in the m = 0 row of its degree, among the entries of a flattened rotation.
        self.entries = self.degrees * len(self.degrees) + torch.arange(len(self.degrees))
        shape = (module.rows, module.channels)
        weights = self.radial.last_weight.view(*shape, self.radial.channels) / EDGE_DEGREE_RESCALE
        self.weights = weights[self.degrees]  # (coefficients, out, in)
        self.transposed = self.weights.transpose(1, 2).contiguous()
        self.biases = (self.radial.last_bias.view(shape) / EDGE_DEGREE_RESCALE)[self.degrees]

    def _columns(self, chunk: EdgeChunk) -> tuple[Tensor, Tensor]:
        """(n, coefficients) rotation of each coefficient to its degree's m = 0 row, and the same times the envelope."""
        columns = chunk.rotation.flatten(1).index_select(1, self.entries)
        return columns, columns * chunk.envelope.unsqueeze(1)

    def sum(self, edges: ChunkedEdges, x: Tensor, tensors: EdgeTensors) -> tuple[Tensor, list[_Saved]]:
        """Sums of messages (atoms, coefficients, channels); no values are saved."""
        n_atoms, size = x.shape[:2]
        sums, counts = x.new_zeros(n_atoms, size, self.radial.channels), x.new_zeros(n_atoms, size)
        for chunk in edges.chunks(tensors, self.radial.tables(edges.geometry.species)):
            _, _, scalars = self.radial.forward(chunk, chunk.scratch)
            _, columns = self._columns(chunk)
            shared = (chunk.target, columns, scalars, sums)
            self.kernel.spread_scalars(size, self.radial.channels, chunk.n, *shared)
            counts.index_add_(0, chunk.target, columns)
        return _by_coefficient(sums, self.transposed) + counts.unsqueeze(2) * self.biases, [None] * len(edges.parts)

    def gradients(
        self, edges: ChunkedEdges, saved: Sequence[_Saved], grad: Tensor, x: Tensor, tensors: EdgeTensors
    ) -> tuple[None, *EdgeTensors]:
        """Gradients of rotation, envelope and basis, given that of the sums; the messages do not depend on x."""
        rotation, envelope, basis = tensors
        grads = (torch.zeros_like(rotation), torch.empty_like(envelope), torch.empty_like(basis))
        grad_sums = _by_coefficient(grad, self.weights)
        grad_counts = (grad * self.biases).sum(dim=2)
        size, channels = grad.shape[1], self.radial.channels
        for chunk in edges.chunks(tensors, self.radial.tables(edges.geometry.species)):
            before_1, before_2, scalars = self.radial.forward(chunk, chunk.scratch)
            rotations, columns = self._columns(chunk)
            grad_columns, grad_scalars = torch.empty_like(columns), chunk.scratch("grad_scalars", channels)
            shared = (chunk.target, columns, scalars, grad_sums, grad_columns, grad_scalars)
            self.kernel.spread_scalars_backward(size, channels, chunk.n, *shared)
            grad_columns += grad_counts.index_select(0, chunk.target)
            grad_rotation, grad_envelope, grad_basis = (each[chunk.rows] for each in grads)
            entries = grad_columns * chunk.envelope.unsqueeze(1)
            grad_rotation.flatten(1).index_copy_(1, self.entries, entries)
            grad_envelope.copy_((grad_columns * rotations).sum(dim=1))
            self.radial.backward(chunk, before_1, before_2, grad_scalars, grad_basis)
        return None, *grads


def _by_coefficient(x: Tensor, weights: Tensor) -> Tensor:
    """(atoms, coefficients, in) times the matrix (in, out) of each coefficient, (atoms, coefficients, out)."""
    return torch.bmm(x.transpose(0, 1), weights).transpose(0, 1).contiguous()


class _EdgeSum(torch.autograd.Function):
    """Sums of messages at their targets, with gradients for x, rotation, envelope and basis."""

    @staticmethod
    def forward(
        ctx: Any, part: _LayerMessages | _DegreeMessages, edges: ChunkedEdges, x: Tensor, *tensors: Tensor
    ) -> Tensor:
        ctx.part, ctx.edges = part, edges
        ctx.save_for_backward(x, *tensors)
        total, ctx.saved = part.sum(edges, x, cast(EdgeTensors, tensors))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        if torch.is_grad_enabled():
            return None, None, *_differentiable_gradients(ctx.part, ctx.edges, ctx.saved_tensors, grads[0])
        x, *tensors = ctx.saved_tensors
        return None, None, *ctx.part.gradients(ctx.edges, ctx.saved, grads[0].contiguous(), x, tensors)


def _differentiable_gradients(
    part: _LayerMessages | _DegreeMessages, edges: ChunkedEdges, inputs: Sequence[Tensor], grad: Tensor
) -> list[Tensor | None]:
    # Views make the inputs independent: x itself depends on the edges through earlier layers, and the gradient along
    # that dependence is taken elsewhere.
    views = [value.view_as(value) for value in inputs]
    needed = [value for value in views if value.requires_grad]
    x, rotation, envelope, basis = views
    chunks = edges.replaced((rotation, envelope, basis)).chunks(edges.limit)
    total = sum_in_chunks(part.differentiable, x, chunks=chunks)
    found = iter(torch.autograd.grad(total, needed, grad, create_graph=True, allow_unused=True))
    return [next(found) if value.requires_grad else None for value in inputs]


class FrozenKernels:
    """A frozen network by compiled kernels: its edge parts, and its norms and node blocks.

    Parameters
    ----------
    kernel
        Kernels for the dtype of the network.
    first
        First messages of the network; the present parameters are used.
    layers
        Its layers, likewise.
    nodes
        Its norms and node blocks, likewise.
    """

    def __init__(
        self, kernel: Functions, first: EdgeDegreeEmbedding, layers: Sequence[Layer], nodes: Sequence[nn.Module]
    ) -> None:
        self.dtype, self.channels = next(first.parameters()).dtype, first.channels
        self.parts: list[_LayerMessages | _DegreeMessages]
        self.parts = [_DegreeMessages(kernel, first), *(_LayerMessages(kernel, layer) for layer in layers)]
        self.nodes = {module: on_nodes(kernel, module) for module in nodes}

    def supports(self, edges: EdgeGeometry) -> bool:
        """Whether these edges can be summed here.

        Parameters
        ----------
        edges
            All edges of a batch.

        Returns
        -------
        bool
            Whether they have the dtype of the network and are sorted by target.
        """
        return edges.basis.dtype == self.dtype and edges.sorted_by_target

    def sums(self, edges: EdgeGeometry, edges_per_chunk: int | None) -> list[Callable[[Tensor], Tensor]]:
        """One function per part: normed node features to sums of messages, both (atoms, coefficients, channels).

        Parameters
        ----------
        edges
            All edges of a batch.
        edges_per_chunk
            Forward values of this many edges are kept for the backward pass; None: of all edges.

        Returns
        -------
        list[Callable[[Tensor], Tensor]]
            The functions, differentiable to any order.
        """
        chunked = ChunkedEdges(edges, self.channels, edges_per_chunk)
        return [partial(_sum, part, chunked) for part in self.parts]

    def on_nodes(self, module: nn.Module) -> Callable[[Tensor], Tensor]:
        """One of the norms and node blocks, for batches that are supported.

        Parameters
        ----------
        module
            The module.

        Returns
        -------
        Callable[[Tensor], Tensor]
            Its function of node features (atoms, coefficients, channels), differentiable to any order.
        """
        return self.nodes[module]


def _sum(part: _LayerMessages | _DegreeMessages, edges: ChunkedEdges, x: Tensor) -> Tensor:
    geometry = edges.geometry
    inputs = (x, geometry.rotation, geometry.envelope, geometry.basis)
    return cast(Tensor, _EdgeSum.apply(part, edges, *(value.contiguous() for value in inputs)))


def frozen_kernels(parts: Sequence[EdgePart], nodes: Sequence[nn.Module]) -> FrozenKernels | None:
    """The compiled kernels for the parts of a network with their present parameters.

    Parameters
    ----------
    parts
        First messages and layers of a network whose parameters will not change.
    nodes
        Its norms and node blocks.

    Returns
    -------
    FrozenKernels | None
        None where the kernels do not apply: they are for gate activations and lmax up to `native.MAX_LMAX`, in float32
        and float64, and need a C++ compiler (see `native`).
    """
    first, *layers = parts
    assert isinstance(first, EdgeDegreeEmbedding)
    blocks = [layer.edge_wise for layer in layers if isinstance(layer, Layer)]
    if not all(isinstance(block.activation, GateActivation) and block.so2_conv_1.lmax <= MAX_LMAX for block in blocks):
        return None
    kernel = kernels(next(first.parameters()).dtype)
    return None if kernel is None else FrozenKernels(kernel, first, cast(Sequence[Layer], layers), nodes)

"""Messages of frozen networks on CPUs: the compiled kernels between matrix products, a few hundred edges at a time.

The numbers are those of `Layer.messages` and `EdgeDegreeEmbedding`, in less memory and time. Parameters get no
gradient here. Where a gradient itself has to be differentiated (`create_graph`), it is that of the modules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from esen_flows.network.edges import EdgeGeometry, sum_messages
from esen_flows.network.harmonics import reduced_order
from esen_flows.network.native import MAX_LMAX, Kernels, kernels
from esen_flows.network.norms import degree_index
from esen_flows.network.so2 import Columns, SO2Convolution
from esen_flows.network.so3 import by_rows
from esen_flows.network.steps import ChunkedEdges, EdgeChunk, Radial

if TYPE_CHECKING:
    from esen_flows.network.esen import ESEN, EdgeDegreeEmbedding, Layer


@dataclass(frozen=True)
class Product:
    """One matrix product of a convolution: columns `read` times `weight` are columns `write`."""

    read: slice
    write: slice
    weight: Tensor


def _products(convolution: SO2Convolution) -> list[Product]:
    weights = [matrix.detach().T for matrix in convolution.matrices()]
    return [Product(read, write, weights[which]) for read, write, which in Columns.of(convolution)]


def _bias(convolution: SO2Convolution) -> Tensor:
    return convolution.fc_m0.bias.detach()


def _multiply(products: Sequence[Product], values: Tensor, out: Tensor) -> None:
    for product in products:
        torch.mm(values[:, product.read], product.weight, out=out[:, product.write])


def _multiply_back(products: Sequence[Product], grad: Tensor, out: Tensor) -> None:
    for product in products:
        torch.mm(grad[:, product.write], product.weight.T, out=out[:, product.read])


class Messages:
    """The edge part of one layer."""

    def __init__(self, kernel: Kernels, layer: "Layer", lmax: int, mmax: int) -> None:
        self.kernel, self.differentiable = kernel, layer.sums
        block = layer.edge_wise
        one, two = block.so2_conv_1, block.so2_conv_2
        self.sizes = (lmax, mmax)
        self.rows = len(reduced_order(lmax, mmax))
        self.channels, self.hidden, self.extra = one.in_channels // 2, one.out_channels, one.extra_outputs
        self.radial = Radial(kernel, one.rad_func)
        self.first, self.second = _products(one), _products(two)
        self.bias_1, self.bias_2 = _bias(one), _bias(two)

    def sum(
        self, edges: ChunkedEdges, x: Tensor, rotation: Tensor, envelope: Tensor, basis: Tensor
    ) -> tuple[Tensor, list[Any]]:
        """Total (atoms, coefficients, channels), and what is kept of each step."""
        total, kept = torch.zeros_like(x), []
        for _, step in edges.steps(self.radial, rotation, envelope, basis):
            values = self._compute(step, x)
            shared = (step.target, step.rotation, step.envelope, values[-1], self.bias_2, total)
            self.kernel.rotate_back(*self.sizes, self.channels, step.n, *shared)
            kept.append(values if step.kept else None)
        return total, kept

    def gradients(
        self,
        edges: ChunkedEdges,
        kept: Sequence[Any],
        grad: Tensor,
        x: Tensor,
        rotation: Tensor,
        envelope: Tensor,
        basis: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of x, rotation, envelope and basis, from that of the total."""
        grad_x = torch.zeros_like(x)
        of_edges = (torch.zeros_like(rotation), torch.empty_like(envelope), torch.empty_like(basis))
        for (rows, step), values in zip(edges.steps(self.radial, rotation, envelope, basis), kept, strict=True):
            known = values or self._compute(step, x)
            self._backward(step, x, known, grad, grad_x, *(value[rows] for value in of_edges))
        return grad_x, *of_edges

    def _compute(self, step: EdgeChunk, x: Tensor) -> tuple[Tensor, ...]:
        """What the way back needs.

        Two hidden layers of the radial network, the modulation, gates and hidden rows (these without their bias), and
        last the messages in the edge frame, without theirs.
        """
        kernel, n = self.kernel, step.n
        before_1, before_2, scalars = self.radial.forward(step, step.lasting)
        modulation = step.lasting("modulation", len(self.radial.last_bias))
        torch.addmm(self.radial.last_bias, scalars, self.radial.last_weight.T, out=modulation)
        rotated = step.scratch("rotated", self.rows * 2 * self.channels)
        shared = (step.source, step.target, x, step.rotation, modulation, rotated)
        kernel.gather_rotate(*self.sizes, self.channels, n, *shared)
        hidden = step.lasting("hidden", self.extra + self.rows * self.hidden)
        _multiply(self.first, rotated, hidden)
        gated = step.scratch("gated", self.rows * self.hidden)
        # The gates become their sigmoids in place.
        kernel.gate(*self.sizes, self.hidden, n, hidden.shape[1], hidden, self.bias_1, hidden, gated)
        values = step.lasting("values", self.rows * self.channels)
        _multiply(self.second, gated, values)
        return before_1, before_2, modulation, hidden, values

    def _backward(
        self,
        step: EdgeChunk,
        x: Tensor,
        known: tuple[Tensor, ...],
        grad: Tensor,
        grad_x: Tensor,
        grad_rotation: Tensor,
        grad_envelope: Tensor,
        grad_basis: Tensor,
    ) -> None:
        """Adds to `grad_x`, `grad_rotation`; writes `grad_envelope`, `grad_basis`."""
        kernel, n, ends = self.kernel, step.n, (step.source, step.target)
        before_1, before_2, modulation, hidden, values = known
        grad_values = step.scratch("grad_values", values.shape[1])
        shared: tuple[Tensor, ...] = (step.rotation, step.envelope, values, self.bias_2, grad)
        shared = (*shared, grad_rotation, grad_envelope, grad_values)
        kernel.rotate_back_backward(*self.sizes, self.channels, n, step.target, *shared)
        grad_gated = step.scratch("gated", self.rows * self.hidden)
        _multiply_back(self.second, grad_values, grad_gated)
        grad_hidden = step.scratch("grad_hidden", hidden.shape[1])
        shared = (hidden, self.bias_1, hidden, grad_gated, grad_hidden)
        kernel.gate_backward(*self.sizes, self.hidden, n, hidden.shape[1], *shared)
        grad_rows = step.scratch("rotated", self.rows * 2 * self.channels)
        _multiply_back(self.first, grad_hidden, grad_rows)
        grad_modulation = step.scratch("grad_modulation", modulation.shape[1])
        shared = (*ends, x, step.rotation, modulation, grad_rows, grad_rows, grad_rotation, grad_modulation)
        kernel.gather_rotate_backward(*self.sizes, self.channels, n, *shared)
        for half, order in enumerate((step.by_source, None)):
            shared = (step.rotation, grad_rows, grad_x)
            kernel.scatter_rotated(*self.sizes, self.channels, n, half, ends[half], order, *shared)
        grad_scalars = step.scratch("after", self.radial.channels)
        torch.mm(grad_modulation, self.radial.last_weight, out=grad_scalars)
        self.radial.backward(step, before_1, before_2, grad_scalars, grad_basis)


class Degrees:
    """The first messages: scalars of edges as m = 0 rows. Its last linear layer acts on the sums over edges."""

    def __init__(self, kernel: Kernels, module: "EdgeDegreeEmbedding", rescale: float) -> None:
        self.kernel, self.differentiable = kernel, module.sums
        self.radial = Radial(kernel, module.rad_func)
        self.degrees = torch.tensor(degree_index(module.rows - 1))
        self.sizes = [2 * degree + 1 for degree in range(module.rows)]
        shape = (module.rows, module.channels)
        self.weights = self.radial.last_weight.view(*shape, self.radial.channels) / rescale
        self.biases = (self.radial.last_bias.view(shape) / rescale)[self.degrees]

    def _columns(self, step: EdgeChunk) -> tuple[Tensor, Tensor]:
        """(n, coefficients): of each coefficient, the entry in the m = 0 row of its own degree; times the envelope."""
        columns = step.rotation[:, self.degrees, torch.arange(len(self.degrees))]
        return columns, columns * step.envelope.unsqueeze(1)

    def sum(
        self, edges: ChunkedEdges, x: Tensor, rotation: Tensor, envelope: Tensor, basis: Tensor
    ) -> tuple[Tensor, list[Any]]:
        """Total (atoms, coefficients, channels); nothing is kept."""
        n_atoms, size = x.shape[:2]
        sums, counts = x.new_zeros(n_atoms, size, self.radial.channels), x.new_zeros(n_atoms, size)
        for _, step in edges.steps(self.radial, rotation, envelope, basis):
            _, _, scalars = self.radial.forward(step, step.scratch)
            _, columns = self._columns(step)
            shared = (step.target, columns, scalars, sums)
            self.kernel.spread_scalars(size, self.radial.channels, step.n, *shared)
            counts.index_add_(0, step.target, columns)
        parts = [by_rows(part, weight) for part, weight in zip(sums.split(self.sizes, 1), self.weights, strict=True)]
        return torch.cat(parts, dim=1) + counts.unsqueeze(2) * self.biases, [None] * len(edges.parts)

    def gradients(
        self,
        edges: ChunkedEdges,
        kept: Sequence[Any],
        grad: Tensor,
        x: Tensor,
        rotation: Tensor,
        envelope: Tensor,
        basis: Tensor,
    ) -> tuple[None, Tensor, Tensor, Tensor]:
        """Of rotation, envelope and basis, from that of the total; the messages do not depend on x."""
        of_edges = (torch.zeros_like(rotation), torch.empty_like(envelope), torch.empty_like(basis))
        parts = [by_rows(part, weight.T) for part, weight in zip(grad.split(self.sizes, 1), self.weights, strict=True)]
        of_sums, of_counts = torch.cat(parts, dim=1), (grad * self.biases).sum(dim=2)
        size, channels = grad.shape[1], self.radial.channels
        for rows, step in edges.steps(self.radial, rotation, envelope, basis):
            before_1, before_2, scalars = self.radial.forward(step, step.scratch)
            bare, columns = self._columns(step)
            grad_columns, grad_scalars = torch.empty_like(columns), step.scratch("grad_scalars", channels)
            shared = (step.target, columns, scalars, of_sums, grad_columns, grad_scalars)
            self.kernel.spread_scalars_backward(size, channels, step.n, *shared)
            grad_columns += of_counts.index_select(0, step.target)
            of_rotation, of_envelope, of_basis = (value[rows] for value in of_edges)
            of_rotation[:, self.degrees, torch.arange(size)] = grad_columns * step.envelope.unsqueeze(1)
            of_envelope.copy_((grad_columns * bare).sum(dim=1))
            self.radial.backward(step, before_1, before_2, grad_scalars, of_basis)
        return None, *of_edges


class EdgeSum(torch.autograd.Function):
    """Sums of messages at their targets; gradients for x, rotation, envelope and basis."""

    @staticmethod
    def forward(ctx: Any, part: Messages | Degrees, edges: ChunkedEdges, *inputs: Tensor) -> Tensor:
        """Total (atoms, coefficients, channels)."""
        ctx.part, ctx.edges = part, edges
        ctx.save_for_backward(*inputs)
        total, ctx.kept = part.sum(edges, *inputs)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """From the gradient of the total."""
        if torch.is_grad_enabled():
            return None, None, *_differentiable_gradients(ctx.part, ctx.edges, ctx.saved_tensors, grads[0])
        found = ctx.part.gradients(ctx.edges, ctx.kept, grads[0].contiguous(), *ctx.saved_tensors)
        return None, None, *found


def _differentiable_gradients(
    part: Messages | Degrees, edges: ChunkedEdges, inputs: Sequence[Tensor], grad: Tensor
) -> list[Tensor | None]:
    # Views, because x itself depends on the edges through earlier layers, and that way is not taken here.
    views = [value.view_as(value) for value in inputs]
    wanted = [value for value in views if value.requires_grad]
    x, *of_edges = views
    total = sum_messages(part.differentiable, x, chunks=edges.replaced(*of_edges).chunks(edges.limit))
    found = iter(torch.autograd.grad(total, wanted, grad, create_graph=True, allow_unused=True))
    return [next(found) if value.requires_grad else None for value in inputs]


class FusedNetwork:
    """The edge parts of a frozen network."""

    def __init__(self, kernel: Kernels, network: "ESEN", rescale: float) -> None:
        config = network.config
        self.dtype = network.sphere_embedding.weight.dtype
        layers = cast("Sequence[Layer]", network.blocks)
        self.parts: list[Messages | Degrees] = [Degrees(kernel, network.edge_degree_embedding, rescale)]
        self.parts += [Messages(kernel, layer, config.lmax, config.mmax) for layer in layers]

    def takes(self, edges: EdgeGeometry) -> bool:
        """Whether these edges are of the right dtype and sorted by target."""
        return edges.basis.dtype == self.dtype and bool((edges.target[1:] >= edges.target[:-1]).all())

    def sum(self, part: Messages | Degrees, edges: ChunkedEdges, x: Tensor) -> Tensor:
        """Sum of the messages of one part, (atoms, coefficients, channels); differentiable to any order."""
        geometry = edges.geometry
        of_edges = (geometry.rotation, geometry.envelope, geometry.basis)
        return cast(Tensor, EdgeSum.apply(part, edges, x.contiguous(), *(value.contiguous() for value in of_edges)))


def fused(network: "ESEN", rescale: float) -> FusedNetwork | None:
    """The kernels for this network as it is now; None where they do not apply.

    They are for CPUs, gate activations, float32 and float64, with a compiler at hand (see `native`).
    """
    config, weight = network.config, network.sphere_embedding.weight
    if config.act_type != "gate" or config.lmax > MAX_LMAX or weight.device.type != "cpu":
        return None
    kernel = kernels(weight.dtype)
    return None if kernel is None else FusedNetwork(kernel, network, rescale)

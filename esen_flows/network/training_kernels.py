"""Messages of networks in training on CPUs: the compiled kernels as functions that can be differentiated to any order.

The numbers are those of `Layer.messages`. Forces are a gradient, and a loss of forces needs the gradient of that: each
function below is a pair, the operation and its gradient, and the gradient of the second is made of the two again.
Between them nothing is copied: matrix products read and write columns of one array per edge.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from esen_flows.network.edges import EdgeGeometry
from esen_flows.network.harmonics import reduced_order
from esen_flows.network.native import MAX_LMAX, Kernels, kernels
from esen_flows.network.so2 import Columns, GateActivation

if TYPE_CHECKING:
    from esen_flows.network.so2 import EdgeBlock

_WITHOUT_PARAMETERS: ContextVar[bool] = ContextVar("_WITHOUT_PARAMETERS", default=False)


@contextmanager
def gradients_without_parameters() -> Iterator[None]:
    """Gradients taken here are of inputs alone: those of weights, which torch cannot know to be unwanted, are not made.

    Only for `torch.autograd.grad`: with `backward`, weights would silently get no gradient.
    """
    token = _WITHOUT_PARAMETERS.set(True)
    try:
        yield
    finally:
        _WITHOUT_PARAMETERS.reset(token)


@dataclass(frozen=True)
class EdgeList:
    """What the kernels need to know of some edges.

    Attributes
    ----------
    kernel
        for the dtype of the features.
    lmax, mmax
        of the network.
    source, target
        (edges,) atoms; target sorted.
    by_source
        (edges,) order in which the sources are sorted.
    first, rows
        messages are summed into `rows` atoms from the atom `first` on.
    """

    kernel: Kernels
    lmax: int
    mmax: int
    source: Tensor
    target: Tensor
    by_source: Tensor
    first: int
    rows: int

    @property
    def sizes(self) -> tuple[int, int]:
        """lmax and mmax, as all kernels take them first."""
        return self.lmax, self.mmax

    @property
    def place(self) -> Tensor:
        """(edges,) rows of the targets in the sum."""
        return self.target - self.first if self.first else self.target


class GatherRotate(torch.autograd.Function):
    """Features of source and target in the edge frame, times the modulation: (edges, rows * 2 channels)."""

    @staticmethod
    def forward(ctx: Any, edges: EdgeList, x: Tensor, rotation: Tensor, modulation: Tensor) -> Tensor:
        """From x (atoms, coefficients, channels), rotation (edges, rows, coefficients), modulation (edges, m-major)."""
        ctx.edges = edges
        inputs = _contiguous(x, rotation, modulation)
        ctx.save_for_backward(*inputs)
        out = x.new_empty(len(edges.source), rotation.shape[1] * 2 * x.shape[2])
        edges.kernel.gather_rotate(*edges.sizes, x.shape[2], len(out), edges.source, edges.target, *inputs, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Of x, rotation and modulation."""
        return None, *_apply(GatherRotateBack, ctx.edges, *ctx.saved_tensors, grads[0])


class GatherRotateBack(torch.autograd.Function):
    """The gradients of GatherRotate."""

    @staticmethod
    def forward(ctx: Any, edges: EdgeList, x: Tensor, rotation: Tensor, modulation: Tensor, grad: Tensor) -> Any:
        """Of x, rotation and modulation, from that of the result."""
        ctx.edges = edges
        grad = grad.contiguous()
        ctx.save_for_backward(x, rotation, modulation, grad)
        bare, of_rotation = torch.empty_like(grad), torch.zeros_like(rotation)
        of_modulation = torch.empty_like(modulation)
        shared = (x, rotation, modulation, grad, bare, of_rotation, of_modulation)
        edges.kernel.gather_rotate_backward(*edges.sizes, x.shape[2], len(grad), edges.source, edges.target, *shared)
        return _scattered(edges, x, (rotation, bare)), of_rotation, of_modulation

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Of x, rotation, modulation and the gradient."""
        edges, saved = ctx.edges, ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *_gather_rotate_thrice(edges, saved, grads)
        (x, rotation, modulation, grad), (u_x, u_rotation, u_modulation) = saved, _contiguous(*grads)
        bare, u_bare, of_grad = (torch.empty_like(grad) for _ in range(3))
        of_rotation, of_modulation = torch.zeros_like(rotation), torch.empty_like(modulation)
        known = (x, u_x, rotation, u_rotation, modulation, u_modulation, grad)
        made = (bare, u_bare, of_rotation, of_modulation, of_grad)
        ends = (edges.source, edges.target)
        edges.kernel.gather_rotate_twice(*edges.sizes, x.shape[2], len(grad), *ends, *known, *made)
        of_x = _scattered(edges, x, (u_rotation, bare), (rotation, u_bare))
        return None, of_x, of_rotation, of_modulation, of_grad


def _scattered(edges: EdgeList, x: Tensor, *parts: tuple[Tensor, Tensor]) -> Tensor:
    """Rows of both ends rotated back and summed at their atoms, for each pair of rotation and rows."""
    total = torch.zeros_like(x)
    for rotation, rows in parts:
        for half, (nodes, order) in enumerate(((edges.source, edges.by_source), (edges.target, None))):
            shared = (nodes, order, rotation, rows, total)
            edges.kernel.scatter_rotated(*edges.sizes, x.shape[2], len(rows), half, *shared)
    return total


def _gather_rotate_thrice(edges: EdgeList, saved: Sequence[Tensor], grads: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The same from the two functions themselves, since the operation is linear in each of its three arguments."""
    x, rotation, modulation, grad = saved
    u_x, u_rotation, u_modulation = grads
    variants = ((u_x, rotation, modulation), (x, u_rotation, modulation), (x, rotation, u_modulation))
    of_grad = sum(_apply(GatherRotate, edges, *variant) for variant in variants)
    one, two, three = (_apply(GatherRotateBack, edges, *variant, grad) for variant in variants)
    return two[0] + three[0], one[1] + three[1], one[2] + two[2], cast(Tensor, of_grad)


class RotateBack(torch.autograd.Function):
    """Rows of edges rotated out of the edge frame and summed at their targets: (rows, coefficients, channels)."""

    @staticmethod
    def forward(ctx: Any, edges: EdgeList, values: Tensor, rotation: Tensor) -> Tensor:
        """From values (edges, rows * channels) and rotation (edges, rows, coefficients), the envelope in it."""
        ctx.edges = edges
        values, rotation = _contiguous(values, rotation)
        ctx.save_for_backward(values, rotation)
        channels = values.shape[1] // rotation.shape[1]
        total = values.new_zeros(edges.rows, rotation.shape[2], channels)
        ones, zeros = values.new_ones(len(values)), values.new_zeros(values.shape[1])
        edges.kernel.rotate_back(*edges.sizes, channels, len(values), edges.place, rotation, ones, values, zeros, total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Of values and rotation."""
        return None, *_apply(RotateBackBack, ctx.edges, *ctx.saved_tensors, grads[0])


class RotateBackBack(torch.autograd.Function):
    """The gradients of RotateBack."""

    @staticmethod
    def forward(ctx: Any, edges: EdgeList, values: Tensor, rotation: Tensor, grad: Tensor) -> Any:
        """Of values and rotation, from that of the sum."""
        ctx.edges = edges
        values, rotation, grad = _contiguous(values, rotation, grad)
        ctx.save_for_backward(values, rotation, grad)
        of_values, of_rotation = torch.empty_like(values), torch.zeros_like(rotation)
        n, channels = len(values), grad.shape[2]
        ones, zeros, unused = values.new_ones(n), values.new_zeros(values.shape[1]), values.new_empty(n)
        shared = (edges.place, rotation, ones, values, zeros, grad, of_rotation, unused, of_values)
        edges.kernel.rotate_back_backward(*edges.sizes, channels, n, *shared)
        return of_values, of_rotation

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Of values, rotation and the gradient: the form is linear in all three."""
        edges, (values, rotation, grad), (u_values, u_rotation) = ctx.edges, ctx.saved_tensors, grads
        of_values, of_rotation = _apply(RotateBackBack, edges, u_values, u_rotation, grad)
        of_grad = _apply(RotateBack, edges, u_values, rotation) + _apply(RotateBack, edges, values, u_rotation)
        return None, of_values, of_rotation, of_grad


class Gate(torch.autograd.Function):
    """SiLU on l = 0, every other row times the sigmoid of the gate of its degree: (edges, rows * channels)."""

    @staticmethod
    def forward(ctx: Any, edges: EdgeList, hidden: Tensor, channels: int) -> Tensor:
        """From hidden (edges, lmax * channels of gates, then rows * channels)."""
        extra = edges.lmax * channels
        ctx.edges, ctx.channels = edges, channels
        sigmoids, out = hidden.new_empty(len(hidden), extra), hidden.new_empty(len(hidden), hidden.shape[1] - extra)
        shared = (extra, hidden, hidden.new_zeros(hidden.shape[1]), sigmoids, out)
        edges.kernel.gate(*edges.sizes, channels, len(hidden), *shared)
        ctx.save_for_backward(hidden, sigmoids)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Of hidden."""
        hidden, sigmoids = ctx.saved_tensors
        return None, _apply(GateBack, ctx.edges, hidden, grads[0], sigmoids, ctx.channels), None


class GateBack(torch.autograd.Function):
    """The gradient of Gate."""

    @staticmethod
    def forward(ctx: Any, edges: EdgeList, hidden: Tensor, grad: Tensor, sigmoids: Tensor, channels: int) -> Tensor:
        """Of hidden, from that of the result."""
        ctx.edges, ctx.channels = edges, channels
        grad = grad.contiguous()
        ctx.save_for_backward(hidden, grad, sigmoids)
        out = torch.empty_like(hidden)
        shared = (sigmoids.shape[1], hidden, hidden.new_zeros(hidden.shape[1]), sigmoids, grad, out)
        edges.kernel.gate_backward(*edges.sizes, channels, len(hidden), *shared)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Of hidden and the gradient."""
        edges, channels, (hidden, grad, sigmoids) = ctx.edges, ctx.channels, ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *_gate_thrice(edges, hidden, grad, grads[0], channels), None, None
        of_hidden, of_grad = torch.empty_like(hidden), torch.empty_like(grad)
        shared = (sigmoids.shape[1], hidden, sigmoids, grad, grads[0].contiguous(), of_hidden, of_grad)
        edges.kernel.gate_twice(*edges.sizes, channels, len(hidden), *shared)
        return None, of_hidden, of_grad, None, None


def _gate_thrice(edges: EdgeList, hidden: Tensor, grad: Tensor, u: Tensor, channels: int) -> tuple[Tensor, ...]:
    """The same from torch's own operations, for still higher derivatives."""
    views = [value.view_as(value) for value in (hidden, grad)]
    wanted = [value for value in views if value.requires_grad]
    (first,) = torch.autograd.grad(plain_gate(edges, views[0], channels), views[0], views[1], create_graph=True)
    found = iter(torch.autograd.grad(first, wanted, u, create_graph=True))
    return tuple(next(found) if value.requires_grad else torch.zeros_like(value) for value in views)


def plain_gate(edges: EdgeList, hidden: Tensor, channels: int) -> Tensor:
    """What Gate computes, by torch's own operations."""
    gates, rows = hidden.split([edges.lmax * channels, hidden.shape[1] - edges.lmax * channels], dim=1)
    degrees = [degree for degree, _ in reduced_order(edges.lmax, edges.mmax)]
    sigmoids = torch.sigmoid(torch.cat((rows[:, :channels], gates), dim=1)).view(len(hidden), -1, channels)
    return rows * sigmoids[:, degrees].flatten(1)


class Products(torch.autograd.Function):
    """values (edges, in) -> (edges, out), plus a bias on the columns of the first product."""

    @staticmethod
    def forward(ctx: Any, columns: Columns, values: Tensor, bias: Tensor | None, *weights: Tensor) -> Tensor:
        """Weights are (out, in) of each product."""
        ctx.columns = columns
        ctx.save_for_backward(values, *weights)
        out = values.new_empty(len(values), columns.width_out)
        for read, write, which in columns:
            torch.mm(values[:, read], weights[which].T, out=out[:, write])
        if bias is not None:
            out[:, columns.writes[0]] += bias
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Of values, bias and weights."""
        columns, (values, *weights), (grad,) = ctx.columns, ctx.saved_tensors, grads
        _, for_values, for_bias, *for_weights = ctx.needs_input_grad
        of_values = _apply(ProductsBack, columns, grad, *weights) if for_values else None
        if _WITHOUT_PARAMETERS.get():
            return None, of_values, None, *(None for _ in weights)
        of_bias = grad[:, columns.writes[0]].sum(dim=0) if for_bias else None
        return None, of_values, of_bias, *_of_weights(columns, values, grad, for_weights)


class ProductsBack(torch.autograd.Function):
    """The gradient of the values of Products."""

    @staticmethod
    def forward(ctx: Any, columns: Columns, grad: Tensor, *weights: Tensor) -> Tensor:
        """From that of the result."""
        ctx.columns = columns
        ctx.save_for_backward(grad, *weights)
        out = grad.new_empty(len(grad), columns.width_in)
        for read, write, which in columns:
            torch.mm(grad[:, write], weights[which], out=out[:, read])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Of the gradient and the weights."""
        columns, (grad, *weights), (u,) = ctx.columns, ctx.saved_tensors, grads
        _, for_grad, *for_weights = ctx.needs_input_grad
        of_grad = _apply(Products, columns, u, None, *weights) if for_grad else None
        if _WITHOUT_PARAMETERS.get():
            return None, of_grad, *(None for _ in weights)
        return None, of_grad, *_of_weights(columns, u, grad, for_weights)


def _of_weights(columns: Columns, values: Tensor, grad: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
    """Gradients (out, in) of the weights of products of these values; torch's own operations, hence of any order."""
    found: list[Tensor | None] = [None] * len(wanted)
    for read, write, which in columns:
        if wanted[which]:
            one, known = grad[:, write].T @ values[:, read], found[which]
            found[which] = one if known is None else known + one
    return found


def _contiguous(*values: Tensor) -> tuple[Tensor, ...]:
    return tuple(value.contiguous() for value in values)


def _apply(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    return function.apply(*inputs)


def sum_by_kernels(block: "EdgeBlock", x: Tensor, geometry: EdgeGeometry, first: int, rows: int) -> Tensor | None:
    """Messages of features (atoms, coefficients, channels), summed in `rows` atoms from `first` on.

    None where the kernels do not apply: they are for gate activations on CPUs, float32 and float64, edges sorted by
    target, and neither for autocast nor for compiled graphs.
    """
    one, two = block.so2_conv_1, block.so2_conv_2
    kernel = _kernels(block, x, geometry)
    if kernel is None or geometry.by_source is None:
        return None
    ends = (geometry.source, geometry.target)
    edges = EdgeList(kernel, one.lmax, one.mmax, *ends, geometry.by_source, first, rows)
    modulation = one.rad_func(geometry.basis, geometry.species, ends)
    rotated = _apply(GatherRotate, edges, x, geometry.rotation, modulation)
    hidden = _apply(Products, Columns.of(one), rotated, one.fc_m0.bias, *one.matrices())
    gated = _apply(Gate, edges, hidden, one.out_channels)
    values = _apply(Products, Columns.of(two), gated, two.fc_m0.bias, *two.matrices())
    back = geometry.rotation * geometry.envelope.view(-1, 1, 1)
    return cast(Tensor, _apply(RotateBack, edges, values, back))


def _kernels(block: "EdgeBlock", x: Tensor, geometry: EdgeGeometry) -> Kernels | None:
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return None
    if block.so2_conv_1.lmax > MAX_LMAX or not isinstance(block.activation, GateActivation):
        return None
    return kernels(x.dtype) if x.dtype == geometry.rotation.dtype else None

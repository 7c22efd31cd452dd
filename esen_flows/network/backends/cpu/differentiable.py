"""The compiled CPU kernels as functions that can be differentiated to any order.

Forces are a gradient, and a loss of forces needs the gradient of that gradient. So each function here is a pair of
autograd functions, the operation and its backward pass, and the backward pass of the second (the double backward) is
made of the two again or is a kernel of its own. In a double backward, `u_a` is the gradient that arrives at the
gradient of `a`.

All arrays hold one row per edge (layouts: `edge_kernels.cpp`). The matrix products between these operations read and
write columns of the same rows (`column_products`), so that nothing is copied.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from esen_flows.native import Functions
from esen_flows.network.esen.harmonics import reduced_order


@dataclass(frozen=True)
class EdgeList:
    """Edges as the kernels take them.

    Attributes
    ----------
    kernel
        Kernels for the dtype of the features.
    lmax
        Largest degree of the features.
    mmax
        Largest order in the edge frame.
    source
        (edges,) source atoms.
    target
        (edges,) target atoms, ascending.
    by_source
        (edges,) order in which the sources ascend.
    first_atom
        First atom of the sums of messages.
    n_atoms
        Number of atoms in the sums of messages.
    """

    kernel: Functions
    lmax: int
    mmax: int
    source: Tensor
    target: Tensor
    by_source: Tensor
    first_atom: int
    n_atoms: int

    @property
    def sizes(self) -> tuple[int, int]:
        """The lmax and mmax with which the arguments of all kernels begin."""
        return self.lmax, self.mmax

    @property
    def target_rows(self) -> Tensor:
        """(edges,) rows of the targets in the sums of messages."""
        return self.target - self.first_atom if self.first_atom else self.target


def gather_rotate(edges: EdgeList, x: Tensor, rotation: Tensor, modulation: Tensor) -> Tensor:
    """Features of source and target in the edge frame, times the modulation.

    Parameters
    ----------
    edges
        The edges.
    x
        (atoms, coefficients, channels) node features.
    rotation
        (edges, n_reduced, coefficients) rotation into the edge frame.
    modulation
        (edges, values) output of the radial network: for each (|m|, l), m-major, 2 * channels values.

    Returns
    -------
    Tensor
        (edges, n_reduced * 2 * channels), in each row the channels of the source first.
    """
    return cast(Tensor, _GatherRotate.apply(edges, x, rotation, modulation))


def rotate_back(edges: EdgeList, values: Tensor, rotation: Tensor) -> Tensor:
    """Rows of the edge frame rotated back and summed at their targets.

    Parameters
    ----------
    edges
        The edges.
    values
        (edges, n_reduced * channels) messages in the edge frame.
    rotation
        (edges, n_reduced, coefficients) rotation into the edge frame, times the envelope.

    Returns
    -------
    Tensor
        (n_atoms, coefficients, channels).
    """
    return cast(Tensor, _RotateBack.apply(edges, values, rotation))


def gate(edges: EdgeList, hidden: Tensor, channels: int) -> Tensor:
    """SiLU on l = 0; every other row times the sigmoid of the gate of its degree.

    Parameters
    ----------
    edges
        The edges.
    hidden
        (edges, lmax * channels + n_reduced * channels), the gates first.
    channels
        Channels of a row.

    Returns
    -------
    Tensor
        (edges, n_reduced * channels).
    """
    return cast(Tensor, _Gate.apply(edges, hidden, channels))


def plain_gate(edges: EdgeList, hidden: Tensor, channels: int) -> Tensor:
    """The same values as `gate`, by torch's own operations.

    Parameters
    ----------
    edges
        The edges.
    hidden
        (edges, lmax * channels + n_reduced * channels), the gates first.
    channels
        Channels of a row.

    Returns
    -------
    Tensor
        (edges, n_reduced * channels).
    """
    gates, rows = hidden.split([edges.lmax * channels, hidden.shape[1] - edges.lmax * channels], dim=1)
    degrees = [degree for degree, _ in reduced_order(edges.lmax, edges.mmax)]
    # SiLU(x) = x sigmoid(x), so that the row of l = 0 is a gate of itself.
    sigmoids = torch.sigmoid(torch.cat((rows[:, :channels], gates), dim=1)).view(len(hidden), -1, channels)
    return rows * sigmoids[:, degrees].flatten(1)


class _GatherRotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edges: EdgeList, x: Tensor, rotation: Tensor, modulation: Tensor) -> Tensor:
        ctx.edges = edges
        inputs = _contiguous(x, rotation, modulation)
        ctx.save_for_backward(*inputs)
        out = x.new_empty(len(edges.source), rotation.shape[1] * 2 * x.shape[2])
        edges.kernel.gather_rotate(*edges.sizes, x.shape[2], len(out), edges.source, edges.target, *inputs, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return None, *_GatherRotateBackward.apply(ctx.edges, *ctx.saved_tensors, grads[0])


class _GatherRotateBackward(torch.autograd.Function):
    """Gradients of x, rotation and modulation."""

    @staticmethod
    def forward(ctx: Any, edges: EdgeList, x: Tensor, rotation: Tensor, modulation: Tensor, grad: Tensor) -> Any:
        ctx.edges = edges
        grad = grad.contiguous()
        ctx.save_for_backward(x, rotation, modulation, grad)
        # The kernel adds to the gradient of the rotation and writes the others.
        grad_rows, grad_rotation = torch.empty_like(grad), torch.zeros_like(rotation)
        grad_modulation = torch.empty_like(modulation)
        shared = (x, rotation, modulation, grad, grad_rows, grad_rotation, grad_modulation)
        edges.kernel.gather_rotate_backward(*edges.sizes, x.shape[2], len(grad), edges.source, edges.target, *shared)
        return _scattered(edges, x, (rotation, grad_rows)), grad_rotation, grad_modulation

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Gradients of x, rotation, modulation and grad."""
        edges, saved = ctx.edges, ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *_gather_rotate_higher(edges, saved, grads)
        (x, rotation, modulation, grad), (u_x, u_rotation, u_modulation) = saved, _contiguous(*grads)
        grad_rows, u_rows, grad_grad = (torch.empty_like(grad) for _ in range(3))
        grad_rotation, grad_modulation = torch.zeros_like(rotation), torch.empty_like(modulation)
        inputs = (x, u_x, rotation, u_rotation, modulation, u_modulation, grad)
        results = (grad_rows, u_rows, grad_rotation, grad_modulation, grad_grad)
        ends = (edges.source, edges.target)
        edges.kernel.gather_rotate_double_backward(*edges.sizes, x.shape[2], len(grad), *ends, *inputs, *results)
        grad_x = _scattered(edges, x, (u_rotation, grad_rows), (rotation, u_rows))
        return None, grad_x, grad_rotation, grad_modulation, grad_grad


def _scattered(edges: EdgeList, x: Tensor, *parts: tuple[Tensor, Tensor]) -> Tensor:
    """Rows of both ends rotated back and summed at their atoms, for each pair of rotation and rows."""
    total = torch.zeros_like(x)
    for rotation, rows in parts:
        for half, (nodes, order) in enumerate(((edges.source, edges.by_source), (edges.target, None))):
            shared = (nodes, order, rotation, rows, total)
            edges.kernel.scatter_rotated(*edges.sizes, x.shape[2], len(rows), half, *shared)
    return total


def _gather_rotate_higher(edges: EdgeList, saved: Sequence[Tensor], grads: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The double backward from the two functions themselves, because the operation is linear in each argument."""
    x, rotation, modulation, grad = saved
    u_x, u_rotation, u_modulation = grads
    variants = ((u_x, rotation, modulation), (x, u_rotation, modulation), (x, rotation, u_modulation))
    grad_grad = sum(_GatherRotate.apply(edges, *variant) for variant in variants)
    one, two, three = (_GatherRotateBackward.apply(edges, *variant, grad) for variant in variants)
    return two[0] + three[0], one[1] + three[1], one[2] + two[2], cast(Tensor, grad_grad)


class _RotateBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edges: EdgeList, values: Tensor, rotation: Tensor) -> Tensor:
        ctx.edges = edges
        values, rotation = _contiguous(values, rotation)
        ctx.save_for_backward(values, rotation)
        channels = values.shape[1] // rotation.shape[1]
        total = values.new_zeros(edges.n_atoms, rotation.shape[2], channels)
        # Envelope and bias are arguments of the kernel for frozen networks: here they are in rotation and values.
        ones, zeros = values.new_ones(len(values)), values.new_zeros(values.shape[1])
        shared = (edges.target_rows, rotation, ones, values, zeros, total)
        edges.kernel.rotate_back(*edges.sizes, channels, len(values), *shared)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return None, *_RotateBackBackward.apply(ctx.edges, *ctx.saved_tensors, grads[0])


class _RotateBackBackward(torch.autograd.Function):
    """Gradients of values and rotation."""

    @staticmethod
    def forward(ctx: Any, edges: EdgeList, values: Tensor, rotation: Tensor, grad: Tensor) -> Any:
        ctx.edges = edges
        values, rotation, grad = _contiguous(values, rotation, grad)
        ctx.save_for_backward(values, rotation, grad)
        grad_values, grad_rotation = torch.empty_like(values), torch.zeros_like(rotation)
        n, channels = len(values), grad.shape[2]
        ones, zeros, unused = values.new_ones(n), values.new_zeros(values.shape[1]), values.new_empty(n)
        shared = (edges.target_rows, rotation, ones, values, zeros, grad, grad_rotation, unused, grad_values)
        edges.kernel.rotate_back_backward(*edges.sizes, channels, n, *shared)
        return grad_values, grad_rotation

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Gradients of values, rotation and grad: the form is linear in all three."""
        edges, (values, rotation, grad), (u_values, u_rotation) = ctx.edges, ctx.saved_tensors, grads
        grad_values, grad_rotation = _RotateBackBackward.apply(edges, u_values, u_rotation, grad)
        grad_grad = _RotateBack.apply(edges, u_values, rotation) + _RotateBack.apply(edges, values, u_rotation)
        return None, grad_values, grad_rotation, grad_grad


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edges: EdgeList, hidden: Tensor, channels: int) -> Tensor:
        extra = edges.lmax * channels
        ctx.edges, ctx.channels = edges, channels
        sigmoids, out = hidden.new_empty(len(hidden), extra), hidden.new_empty(len(hidden), hidden.shape[1] - extra)
        shared = (extra, hidden, hidden.new_zeros(hidden.shape[1]), sigmoids, out)
        edges.kernel.gate(*edges.sizes, channels, len(hidden), *shared)
        ctx.save_for_backward(hidden, sigmoids)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        hidden, sigmoids = ctx.saved_tensors
        return None, _GateBackward.apply(ctx.edges, hidden, grads[0], sigmoids, ctx.channels), None


class _GateBackward(torch.autograd.Function):
    """Gradient of hidden."""

    @staticmethod
    def forward(ctx: Any, edges: EdgeList, hidden: Tensor, grad: Tensor, sigmoids: Tensor, channels: int) -> Tensor:
        ctx.edges, ctx.channels = edges, channels
        grad = grad.contiguous()
        ctx.save_for_backward(hidden, grad, sigmoids)
        out = torch.empty_like(hidden)
        shared = (sigmoids.shape[1], hidden, hidden.new_zeros(hidden.shape[1]), sigmoids, grad, out)
        edges.kernel.gate_backward(*edges.sizes, channels, len(hidden), *shared)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Gradients of hidden and grad."""
        edges, channels, (hidden, grad, sigmoids) = ctx.edges, ctx.channels, ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *_gate_higher(edges, hidden, grad, grads[0], channels), None, None
        grad_hidden, grad_grad = torch.empty_like(hidden), torch.empty_like(grad)
        shared = (sigmoids.shape[1], hidden, sigmoids, grad, grads[0].contiguous(), grad_hidden, grad_grad)
        edges.kernel.gate_double_backward(*edges.sizes, channels, len(hidden), *shared)
        return None, grad_hidden, grad_grad, None, None


def _gate_higher(edges: EdgeList, hidden: Tensor, grad: Tensor, u: Tensor, channels: int) -> tuple[Tensor, ...]:
    """The double backward by torch's own operations, for derivatives beyond the second."""
    views = [value.view_as(value) for value in (hidden, grad)]
    needed = [value for value in views if value.requires_grad]
    (first,) = torch.autograd.grad(plain_gate(edges, views[0], channels), views[0], views[1], create_graph=True)
    found = iter(torch.autograd.grad(first, needed, u, create_graph=True))
    return tuple(next(found) if value.requires_grad else torch.zeros_like(value) for value in views)


def _contiguous(*values: Tensor) -> tuple[Tensor, ...]:
    return tuple(value.contiguous() for value in values)

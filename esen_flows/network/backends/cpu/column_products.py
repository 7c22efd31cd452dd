"""The matrix products of an SO(2) convolution on columns of one array per edge, differentiable to any order."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from esen_flows.network.esen.so2 import Columns
from esen_flows.network.gradients import leaves_out_parameters


def multiply_columns(columns: Columns, values: Tensor, bias: Tensor | None, weights: Sequence[Tensor]) -> Tensor:
    """The matrix products of an SO(2) convolution.

    Parameters
    ----------
    columns
        Columns that each product reads and writes.
    values
        (edges, width_in).
    bias
        Added to the columns of the first product (m = 0); None: nothing is added.
    weights
        (out, in) matrix of each m.

    Returns
    -------
    Tensor
        (edges, width_out).
    """
    return cast(Tensor, _Products.apply(columns, values, bias, *weights))


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, columns: Columns, values: Tensor, bias: Tensor | None, *weights: Tensor) -> Tensor:
        ctx.columns = columns
        ctx.save_for_backward(values, *weights)
        out = values.new_empty(len(values), columns.width_out)
        columns.multiply(values, [weight.T for weight in weights], out)
        if bias is not None:
            out[:, columns.scalars_out] += bias
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        columns, (values, *weights), (grad,) = ctx.columns, ctx.saved_tensors, grads
        _, for_values, for_bias, *for_weights = ctx.needs_input_grad
        grad_values = _ProductsBackward.apply(columns, grad, *weights) if for_values else None
        if leaves_out_parameters():
            return None, grad_values, None, *(None for _ in weights)
        grad_bias = grad[:, columns.scalars_out].sum(dim=0) if for_bias else None
        return None, grad_values, grad_bias, *_weight_gradients(columns, values, grad, for_weights)


class _ProductsBackward(torch.autograd.Function):
    """Gradient of the values."""

    @staticmethod
    def forward(ctx: Any, columns: Columns, grad: Tensor, *weights: Tensor) -> Tensor:
        ctx.columns = columns
        ctx.save_for_backward(grad, *weights)
        out = grad.new_empty(len(grad), columns.width_in)
        columns.multiply_back(grad, weights, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Gradients of grad and the weights."""
        columns, (grad, *weights), (u,) = ctx.columns, ctx.saved_tensors, grads
        _, for_grad, *for_weights = ctx.needs_input_grad
        grad_grad = _Products.apply(columns, u, None, *weights) if for_grad else None
        if leaves_out_parameters():
            return None, grad_grad, *(None for _ in weights)
        return None, grad_grad, *_weight_gradients(columns, u, grad, for_weights)


def _weight_gradients(columns: Columns, values: Tensor, grad: Tensor, needed: Sequence[bool]) -> list[Tensor | None]:
    """Gradients (out, in) of the weights; by torch's own operations, hence differentiable to any order."""
    found: list[Tensor | None] = [None] * len(needed)
    for read, write, which in columns.products:
        if needed[which]:
            one, sum_so_far = grad[:, write].T @ values[:, read], found[which]
            found[which] = one if sum_so_far is None else sum_so_far + one
    return found

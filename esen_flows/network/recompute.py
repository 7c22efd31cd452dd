"""Parts of a network of which only the inputs are kept, for first and for second derivatives.

`torch.utils.checkpoint` computes again what a gradient needs; but a gradient that is itself to be differentiated
(`create_graph`: Hessians, training on forces) then keeps all of it after all. Here that too is computed again.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Part = Callable[..., Tensor]


def recomputed(function: Part, inputs: Sequence[Tensor], parameters: Sequence[Tensor] = ()) -> Tensor:
    """`function(*inputs)`, twice differentiable; nothing but its inputs is kept between the passes.

    A first derivative costs one more evaluation, a second derivative one more evaluation and gradient.

    Parameters
    ----------
    function
        of tensors, to one tensor. All that it depends on is among `inputs` and `parameters`.
    inputs
        its arguments.
    parameters
        leaves that it reads by itself, such as the parameters of a module.
    """
    value: Tensor = _Value.apply(function, len(inputs), *inputs, *parameters)
    return value


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Part, n: int, *tensors: Tensor) -> Tensor:
        ctx.function, ctx.n = function, n
        ctx.save_for_backward(*tensors)
        return function(*tensors[:n])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        wanted = ctx.needs_input_grad[2:]
        found = iter(_Gradient.apply(ctx.function, ctx.n, wanted, grads[0], *ctx.saved_tensors))
        return None, None, *(next(found) if each else None for each in wanted)


class _Gradient(torch.autograd.Function):
    """The gradients of a part with respect to the tensors that are wanted."""

    @staticmethod
    def forward(
        ctx: Any, function: Part, n: int, wanted: Sequence[bool], grad: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.function, ctx.n, ctx.wanted = function, n, wanted
        ctx.save_for_backward(grad, *tensors)
        _, found = _differentiated(ctx, grad, tensors, create_graph=False)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        grad, *tensors = ctx.saved_tensors
        grad = grad.detach().requires_grad_(True)
        leaves, found = _differentiated(ctx, grad, tensors, create_graph=True)
        # What is linear in the inputs has constant gradients.
        pairs = [pair for pair in zip(found, cotangents, strict=True) if pair[0].requires_grad]
        values, weights = zip(*pairs, strict=True) if pairs else ((), ())
        second = torch.autograd.grad(values, [grad, *leaves], weights, allow_unused=True, materialize_grads=True)
        others = iter(second[1:])
        return None, None, None, second[0], *(next(others) if each else None for each in ctx.wanted)


def _differentiated(
    ctx: Any, grad: Tensor, tensors: Sequence[Tensor], create_graph: bool
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """The wanted tensors as leaves, and the gradients of the part, computed again, with respect to them."""
    inputs = [tensor.detach().requires_grad_(each) for tensor, each in zip(tensors[: ctx.n], ctx.wanted, strict=False)]
    # Parameters are read by the function itself: they stay the very leaves that they are.
    everything = [*inputs, *tensors[ctx.n :]]
    leaves = [tensor for tensor, each in zip(everything, ctx.wanted, strict=True) if each]
    with torch.enable_grad():
        value = ctx.function(*inputs)
        found = torch.autograd.grad(
            value, leaves, grad, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
    return leaves, found

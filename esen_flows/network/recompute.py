"""Parts of a network of which only the inputs are kept, for first and for second derivatives.

`torch.utils.checkpoint` recomputes what a gradient needs. But a gradient that is itself to be differentiated
(`create_graph`: Hessians, training on forces) then keeps everything after all. Here that is recomputed too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Part = Callable[..., Tensor]


def recomputed(function: Part, inputs: Sequence[Tensor], parameters: Sequence[Tensor] = ()) -> Tensor:
    """`function(*inputs)`, twice differentiable, with nothing but its inputs kept between the passes.

    A first derivative costs one more evaluation, a second derivative one more evaluation and gradient.

    Parameters
    ----------
    function
        Function of tensors that gives one tensor and depends on nothing but `inputs` and `parameters`.
    inputs
        Its arguments.
    parameters
        Leaves that it reads by itself, such as the parameters of a module.

    Returns
    -------
    Tensor
        The value of the function.
    """
    value: Tensor = _Recomputed.apply(function, len(inputs), *inputs, *parameters)
    return value


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Part, n_inputs: int, *tensors: Tensor) -> Tensor:
        ctx.function, ctx.n_inputs = function, n_inputs
        ctx.save_for_backward(*tensors)
        return function(*tensors[:n_inputs])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        needed = ctx.needs_input_grad[2:]
        found = iter(_Gradient.apply(ctx.function, ctx.n_inputs, needed, grads[0], *ctx.saved_tensors))
        return None, None, *(next(found) if each else None for each in needed)


class _Gradient(torch.autograd.Function):
    """Gradients of the function with respect to the tensors that need one."""

    @staticmethod
    def forward(
        ctx: Any, function: Part, n_inputs: int, needed: Sequence[bool], grad: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.function, ctx.n_inputs, ctx.needed = function, n_inputs, needed
        ctx.save_for_backward(grad, *tensors)
        _, found = _differentiated(ctx, grad, tensors, create_graph=False)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        grad, *tensors = ctx.saved_tensors
        grad = grad.detach().requires_grad_(True)
        leaves, found = _differentiated(ctx, grad, tensors, create_graph=True)
        # Where the function is linear in an input, its gradient is a constant without a graph.
        pairs = [pair for pair in zip(found, cotangents, strict=True) if pair[0].requires_grad]
        values, weights = zip(*pairs, strict=True) if pairs else ((), ())
        second = torch.autograd.grad(values, [grad, *leaves], weights, allow_unused=True, materialize_grads=True)
        others = iter(second[1:])
        return None, None, None, second[0], *(next(others) if each else None for each in ctx.needed)


def _differentiated(
    ctx: Any, grad: Tensor, tensors: Sequence[Tensor], create_graph: bool
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """The tensors that need a gradient as leaves, and the recomputed function's gradients with respect to them."""
    n = ctx.n_inputs
    inputs = [tensor.detach().requires_grad_(each) for tensor, each in zip(tensors[:n], ctx.needed, strict=False)]
    # The function reads parameters by itself, so that they have to be the same leaves here.
    leaves = [tensor for tensor, each in zip([*inputs, *tensors[n:]], ctx.needed, strict=True) if each]
    with torch.enable_grad():
        found = torch.autograd.grad(
            ctx.function(*inputs), leaves, grad, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
    return leaves, found

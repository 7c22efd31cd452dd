"""Norms and node blocks of frozen networks on CPUs: a kernel or a few matrix products instead of many small operations.

In a cell of a few atoms, most of the time of a force call went into starting these operations.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from esen_flows.native import Functions
from esen_flows.network.esen.norms import BALANCE, RMSNormSH, degree_index
from esen_flows.network.esen.so3 import NodeBlock, SO3Linear


class _NodeKernels(Protocol):
    """A function of node features and its gradient."""

    @property
    def module(self) -> nn.Module:
        """The same function, differentiable to any order."""

    def value(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The function of x (atoms, coefficients, channels), and what its gradient needs besides x."""

    def gradient(self, x: Tensor, saved: Sequence[Tensor], grad: Tensor) -> Tensor:
        """Gradient of x."""


class _Norm:
    """Norm with one statistic per atom."""

    def __init__(self, kernel: Functions, module: RMSNormSH) -> None:
        self.kernel, self.module = kernel, module
        self.balance = module.get_buffer(BALANCE).detach().flatten()
        self.weight, self.bias = module.affine_weight.detach(), module.affine_bias.detach()
        self.lmax, self.channels = len(self.weight) - 1, self.weight.shape[1]

    def value(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        out = torch.empty_like(x)
        self.kernel.node_norm(self.lmax, self.channels, len(x), x, self.balance, self.weight, self.bias, out)
        return out, ()

    def gradient(self, x: Tensor, saved: Sequence[Tensor], grad: Tensor) -> Tensor:
        out = torch.empty_like(x)
        self.kernel.node_norm_backward(self.lmax, self.channels, len(x), x, self.balance, self.weight, grad, out)
        return out


class _Linear:
    """One matrix per degree on features with the coefficients first, (coefficients, atoms, channels).

    One product in batches, with the matrix of a degree once for each of its coefficients, starts faster than a product
    for each degree.
    """

    def __init__(self, module: SO3Linear) -> None:
        self.bias, weight = module.bias.detach(), module.weight.detach()
        self.weight = weight[torch.tensor(degree_index(len(weight) - 1))]
        self.transposed = self.weight.transpose(1, 2).contiguous()

    def value(self, x: Tensor) -> Tensor:
        out = torch.bmm(x, self.transposed)
        out[0] += self.bias
        return out

    def gradient(self, grad: Tensor) -> Tensor:
        return torch.bmm(grad, self.weight)


class _Block:
    """Linear map, gate, linear map."""

    def __init__(self, kernel: Functions, module: NodeBlock) -> None:
        self.kernel, self.module, self.lmax, self.hidden = kernel, module, module.lmax, module.hidden_channels
        self.one, self.two = _Linear(module.so3_linear_1), _Linear(module.so3_linear_2)
        gates = cast(nn.Linear, module.scalar_mlp[0])
        self.weight, self.bias = gates.weight.detach(), gates.bias.detach()

    def value(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = x.transpose(0, 1).contiguous()
        gates, hidden = torch.addmm(self.bias, x[0], self.weight.T), self.one.value(x)
        gated = torch.empty_like(hidden)
        self.kernel.node_gate(self.lmax, self.hidden, x.shape[1], gates, hidden, gated)
        return self.two.value(gated).transpose(0, 1).contiguous(), (gates, hidden)

    def gradient(self, x: Tensor, saved: Sequence[Tensor], grad: Tensor) -> Tensor:
        gates, hidden = saved
        grad_hidden, grad_gates = self.two.gradient(grad.transpose(0, 1).contiguous()), torch.empty_like(gates)
        self.kernel.node_gate_backward(self.lmax, self.hidden, len(x), gates, hidden, grad_hidden, grad_gates)
        grad_x = self.one.gradient(grad_hidden)
        grad_x[0].addmm_(grad_gates, self.weight)
        return grad_x.transpose(0, 1).contiguous()


class _OfNodes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: _NodeKernels, x: Tensor) -> Tensor:
        value, saved = kernels.value(x)
        ctx.kernels = kernels
        ctx.save_for_backward(x, *saved)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, *saved = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return None, ctx.kernels.gradient(x, saved, grads[0].contiguous())
        view = x.view_as(x)  # independent of what x depends on; that dependence is followed elsewhere
        return None, torch.autograd.grad(ctx.kernels.module(view), view, grads[0], create_graph=True)[0]


def on_nodes(kernel: Functions, module: nn.Module) -> Callable[[Tensor], Tensor]:
    """A module that acts on node features, with its present parameters as constants.

    Parameters
    ----------
    kernel
        Kernels for the dtype of the parameters.
    module
        Norm or node block.

    Returns
    -------
    Callable[[Tensor], Tensor]
        The same function, differentiable to any order; the module itself where there are no kernels for it.
    """
    if isinstance(module, RMSNormSH):
        return partial(_apply, _Norm(kernel, module))
    return partial(_apply, _Block(kernel, module)) if isinstance(module, NodeBlock) else module


def _apply(kernels: _NodeKernels, x: Tensor) -> Tensor:
    return cast(Tensor, _OfNodes.apply(kernels, x.contiguous()))

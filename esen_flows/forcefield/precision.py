"""How a network is run: compiled or not, and with which products on a GPU. Both are part of every result's key."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from esen_flows.errors import InputError
from esen_flows.network.esen import ESEN


def compiled(network: ESEN) -> ESEN:
    """The same network, its parameters shared, with the embedding of the atoms compiled by `torch.compile`.

    Shapes are dynamic: other structures make no new code. Only first derivatives of it exist; second ones are taken
    of the network as it was given. Sums over systems stay out, because PyTorch 2.13 cannot compile them for CPUs when
    there is one system (pytorch issue 160391).

    Raises
    ------
    InputError
        a network with grids, which the paper's ablation has and no model that is used.
    """
    if network.config.uses_grid:
        raise InputError("networks with grids (act_type s2, mlp_type grid) cannot be compiled; leave `compile` out")
    twin = copy.copy(network)
    twin.fused = None
    weight = twin.sphere_embedding.weight
    twin.edge_rotation.constants(weight.dtype, weight.device)  # made here, they are constants of the compiled code
    twin.embed = torch.compile(twin.embed, dynamic=True)  # type: ignore[method-assign]
    return twin


@contextmanager
def tensor_float_32(allowed: bool) -> Iterator[None]:
    """Whether float32 products on GPUs may be rounded to 10 bits inside; the host program's choice comes back after."""
    products = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(products, "fp32_precision") else "allow_tf32"  # before PyTorch 2.9
    value = {"fp32_precision": "tf32" if allowed else "ieee", "allow_tf32": allowed}[name]
    before = getattr(products, name)
    setattr(products, name, value)
    try:
        yield
    finally:
        setattr(products, name, before)

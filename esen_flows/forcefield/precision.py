"""Compilation of a network, and the precision of products on a GPU. Both settings are part of every result's key."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from esen_flows.errors import InputError
from esen_flows.network.esen import ESEN


def compiled(network: ESEN) -> ESEN:
    """Copy of a network with the embedding of the atoms compiled by `torch.compile`.

    Shapes are dynamic: other structures need no new code. Compiled code has first derivatives only; second derivatives
    have to be taken of the network that was given. Sums over systems are not compiled, because PyTorch 2.13 cannot
    compile them for CPUs where there is one system (pytorch issue 160391).

    Parameters
    ----------
    network
        Network to compile.

    Returns
    -------
    ESEN
        Network that shares its parameters with the one that was given.

    Raises
    ------
    InputError
        The network has grids. Only the paper's ablation uses these, and no model that is in use.
    """
    if network.config.uses_grid:
        raise InputError("networks with grids (act_type s2, mlp_type grid) cannot be compiled; leave `compile` out")
    result = copy.copy(network)
    result.fused = None
    weight = result.sphere_embedding.weight
    result.edge_rotation.constants(weight.dtype, weight.device)  # made here, they are constants of the compiled code
    result.embed = torch.compile(result.embed, dynamic=True)  # type: ignore[method-assign]
    return result


@contextmanager
def tensor_float_32(allowed: bool) -> Iterator[None]:
    """Context in which float32 products on GPUs may, or may not, be rounded to 10 bits.

    The setting of the program around it is restored at its end.

    Parameters
    ----------
    allowed
        Whether rounding is allowed.

    Yields
    ------
    None
        Nothing.
    """
    products = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(products, "fp32_precision") else "allow_tf32"  # before PyTorch 2.9
    value = {"fp32_precision": "tf32" if allowed else "ieee", "allow_tf32": allowed}[name]
    before = getattr(products, name)
    setattr(products, name, value)
    try:
        yield
    finally:
        setattr(products, name, before)

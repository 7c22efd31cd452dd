"""Memory that an eSEN needs for a force call."""

import torch

from esen_flows.network.esen.config import ESENConfig


def bytes_per_edge(config: ESENConfig, dtype: torch.dtype, *, frozen: bool) -> float:
    """Peak memory of a call for energy, forces and stress, in bytes per edge, where nothing is computed twice.

    The estimate counts the numbers that are kept for the gradient: rows of features in the edge frame and their
    factors. Its coefficients come from the allocations that PyTorch's profiler recorded. It meets these within 4 % for
    both published sizes (benchmarks/memory_per_edge.py); kB of living tensors per edge in float32:

    | configuration | modules | compiled kernels |
    |---|---|---|
    | esen_3.2m | 100 | 38 |
    | esen_30m_mp | 712 | 286 |

    In float64 it is twice that. Grids (`act_type` s2, `mlp_type` grid) need more, and direct forces less.

    Parameters
    ----------
    config
        Configuration of the network.
    dtype
        Precision of the arithmetic.
    frozen
        Whether the compiled kernels of frozen networks on a CPU are used, which keep less.

    Returns
    -------
    float
        Bytes per edge.
    """
    c = config
    coefficients = (c.lmax + 1) ** 2
    moduli = sum(c.lmax + 1 - m for m in range(c.mmax + 1))
    rows = 2 * moduli - c.lmax - 1
    if frozen:
        hidden = (c.lmax + rows) * c.hidden_channels
        layer = (2 * moduli + rows) * c.sphere_channels + hidden + 2 * c.edge_channels
        numbers = c.num_layers * (layer + coefficients * c.sphere_channels / 8) + 7 * rows * coefficients
    else:
        channels = max(c.sphere_channels, c.hidden_channels)
        numbers = rows * channels * (9.5 * c.num_layers + 2.5) + 6 * rows * coefficients
    return numbers * torch.finfo(dtype).bits / 8

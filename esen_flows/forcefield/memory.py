"""Memory that an evaluation needs, by which the sizes of batches are chosen."""

import torch

from esen_flows.forcefield.batching import MINIMUM_EDGES
from esen_flows.network.config import ESENConfig

CPU_BYTES = 1.5e9
GPU_SHARE = 0.9  # of the free memory; the rest is for workspaces of the libraries
# Memory of a process over that of its living tensors: 1.0 to 1.44 (benchmarks/memory_per_edge.py).
ALLOCATOR = 1.3


def bytes_per_edge(config: ESENConfig, dtype: torch.dtype, *, compiled: bool) -> float:
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
    compiled
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
    if compiled:
        hidden = (c.lmax + rows) * c.hidden_channels
        layer = (2 * moduli + rows) * c.sphere_channels + hidden + 2 * c.edge_channels
        numbers = c.num_layers * (layer + coefficients * c.sphere_channels / 8) + 7 * rows * coefficients
    else:
        channels = max(c.sphere_channels, c.hidden_channels)
        numbers = rows * channels * (9.5 * c.num_layers + 2.5) + 6 * rows * coefficients
    return numbers * torch.finfo(dtype).bits / 8


def edges_that_fit(config: ESENConfig, dtype: torch.dtype, memory_bytes: float, *, compiled: bool) -> int:
    """Number of edges of a batch that is expected to need a given memory.

    Parameters
    ----------
    config
        Configuration of the network.
    dtype
        Precision of the arithmetic.
    memory_bytes
        Memory of the process for a batch.
    compiled
        Whether the compiled kernels of frozen networks on a CPU are used.

    Returns
    -------
    int
        Number of edges, at least that of the smallest chunk.
    """
    needed = ALLOCATOR * bytes_per_edge(config, dtype, compiled=compiled)
    return max(MINIMUM_EDGES, int(memory_bytes / needed))


def available_bytes(device: torch.device) -> float:
    """Memory that an evaluation may use by default.

    Parameters
    ----------
    device
        torch device.

    Returns
    -------
    float
        Bytes: nine tenths of the free memory of a GPU, or 1.5 GB on a CPU.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return GPU_SHARE * free
    return CPU_BYTES

"""How much memory an evaluation needs: what batches are filled by."""

import torch

from esen_flows.forcefield.batching import MINIMUM_EDGES
from esen_flows.network.config import ESENConfig

CPU_BYTES = 1.5e9
GPU_SHARE = 0.9  # of what is free: the libraries want workspaces of their own
# A process holds more than the tensors that live in it: 1.0 to 1.44 times (benchmarks/memory_per_edge.py).
ALLOCATOR = 1.3


def bytes_per_edge(config: ESENConfig, dtype: torch.dtype, *, compiled: bool) -> float:
    """Most memory at any time of energy, forces and stress, per edge, where nothing is computed twice.

    Counted are the numbers that are kept for the gradient: rows of features in the edge frame, and what they are
    multiplied with. Coefficients are those of the allocations that PyTorch's profiler recorded, which this meets within
    4 % for both published sizes (benchmarks/memory_per_edge.py): float32, kB per edge, in terms of living tensors

    | configuration | modules | compiled kernels |
    |---|---|---|
    | esen_3.2m | 100 | 38 |
    | esen_30m_mp | 712 | 286 |

    and twice that in float64. Grids (`act_type` s2, `mlp_type` grid) need more and direct forces less.

    Parameters
    ----------
    compiled
        with the compiled kernels of frozen networks on a CPU, which keep less.
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
    """Edges of a batch that is expected to need `memory_bytes` of the process; at least the smallest chunk."""
    needed = ALLOCATOR * bytes_per_edge(config, dtype, compiled=compiled)
    return max(MINIMUM_EDGES, int(memory_bytes / needed))


def available_bytes(device: torch.device) -> float:
    """What an evaluation may use when nothing else is said."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return GPU_SHARE * free
    return CPU_BYTES

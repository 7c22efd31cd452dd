"""How much memory an evaluation needs: what batches are filled by."""

import torch

from esen_flows.forcefield.batching import MINIMUM_EDGES
from esen_flows.network.config import ESENConfig

CPU_BYTES = 1.5e9
GPU_SHARE = 0.8  # of what is free: fragmentation, and the libraries' own workspaces
COPIES_PER_EDGE = 20


def bytes_per_edge(config: ESENConfig, dtype: torch.dtype) -> float:
    row = (config.lmax + 1) ** 2 * config.sphere_channels * torch.finfo(dtype).bits // 8
    return COPIES_PER_EDGE * config.num_layers * row


def edges_that_fit(config: ESENConfig, dtype: torch.dtype, memory_bytes: float) -> int:
    """Edges of a batch that is expected to need `memory_bytes`; at least the smallest chunk."""
    return max(MINIMUM_EDGES, int(memory_bytes / bytes_per_edge(config, dtype)))


def available_bytes(device: torch.device) -> float:
    """What an evaluation may use when nothing else is said."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return GPU_SHARE * free
    return CPU_BYTES

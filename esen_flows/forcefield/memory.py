"""Memory that an evaluation needs, by which the sizes of batches are chosen."""

import gc

import torch

from esen_flows.forcefield.batching import MINIMUM_EDGES

CPU_BYTES = 1.5e9
GPU_SHARE = 0.9  # of the free memory; the rest is for workspaces of the libraries
# Memory of a process over that of its living tensors: 1.0 to 1.44 (benchmarks/memory_per_edge.py).
ALLOCATOR = 1.3


def edges_that_fit(bytes_per_edge: float, memory_bytes: float) -> int:
    """Number of edges of a batch that is expected to need a given memory.

    Parameters
    ----------
    bytes_per_edge
        Living tensors of a call per edge, from `Network.bytes_per_edge`.
    memory_bytes
        Memory of the process for a batch.

    Returns
    -------
    int
        Number of edges, at least that of the smallest chunk.
    """
    return max(MINIMUM_EDGES, int(memory_bytes / (ALLOCATOR * bytes_per_edge)))


def release_memory() -> None:
    """Give back the memory of objects that nothing refers to any more, also where they refer to each other."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
        # PyTorch keeps memory of tensors that are gone, and uses it again.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return GPU_SHARE * (free + kept)
    return CPU_BYTES

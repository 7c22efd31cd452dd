"""How a computing command uses its machine: the memory allocator and waiting threads."""

import ctypes
import os
import platform
from functools import cache

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


@cache
def tune_allocator() -> bool:
    """Tell glibc's allocator, once per process, to keep the memory that it got from the system.

    Page faults are the largest single cost of CPU force calls. Measured on 216 Si atoms with 3.2 M parameters, two
    cores: 1.71 s per call with the defaults, 1.07 s without mmap for large blocks and trimming. The price is that freed
    memory stays with the process, so only commands that compute do this.

    Returns
    -------
    bool
        Whether the allocator accepted it; False without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def yield_waiting_threads() -> None:
    """Let OpenMP threads sleep while they wait, unless the user has set OMP_WAIT_POLICY.

    This has an effect only before torch is imported.

    Spinning threads lose whole time slices at every parallel region if another process is busy. Measured with two
    threads on two cores, one of them taken by another process: 8 Si atoms take 1.30 s per call with spinning threads
    and 0.027 s with sleeping ones, 64 atoms 2.39 s and 0.17 s.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def grow_gpu_segments() -> None:
    """Let torch's memory on GPUs grow in place, unless the user has set PYTORCH_CUDA_ALLOC_CONF or PYTORCH_ALLOC_CONF.

    Batches of a campaign differ in size, and blocks of fixed size that fit none of them would count as used. This has
    an effect only before torch is imported.
    """
    if "PYTORCH_ALLOC_CONF" not in os.environ:
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

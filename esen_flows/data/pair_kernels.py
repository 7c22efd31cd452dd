"""The compiled functions of `pair_kernels.cpp`; torch operations give the same numbers more slowly."""

from functools import cache

import torch
from torch import Tensor

from esen_flows.data.ragged import on_host
from esen_flows.native import Functions, NativeSource, load

# See `Functions`. Tensors are contiguous, on the CPU, and float64, int64 or bool.
SIGNATURES = {
    "pair_vectors": "nn" + 13 * "p" + "t",
    "pair_summary": "nppppp" + "t",
    "pairs_within": "n" + 10 * "p",
    "search_needed": "n" + 7 * "p" + "t",
}
# Products are rounded before they are added, as torch does it: a pair at the cutoff is in both or in neither.
SOURCE = NativeSource.beside(
    __file__,
    "pair_kernels",
    "neighbour tables of batches on a CPU take three times as long",
    functions=tuple(SIGNATURES),
    flags=("-ffp-contract=off",),
)


@cache
def pair_kernels() -> Functions | None:
    """The functions, compiled if need be.

    Returns
    -------
    Functions | None
        None where they cannot be compiled; the reason is logged once.
    """
    library = load(SOURCE)
    return None if library is None else Functions(library, SIGNATURES, torch.get_num_threads)


def is_passable(tensor: Tensor, like: Tensor) -> bool:
    """Whether the functions can read a tensor that a caller gave; they check neither its type nor its size.

    Parameters
    ----------
    tensor
        The tensor.
    like
        One that they can read.

    Returns
    -------
    bool
        True for float64 numbers on the CPU, as many as those of the other, that are not differentiated.
    """
    return on_host(tensor) and tensor.dtype == like.dtype == torch.float64 and tensor.shape == like.shape

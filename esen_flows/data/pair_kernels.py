"""The compiled functions of `pair_kernels.cpp`; torch operations give the same numbers more slowly."""

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor

from esen_flows.data.ragged import on_host
from esen_flows.native import NativeSource, load

# n: a number, p: an array, t: the number of threads.
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


class PairKernels:
    """The functions of the source by their names.

    Tensors are passed by their addresses: contiguous, on the CPU, float64, int64 or bool.

    Parameters
    ----------
    library
        The shared library.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, signature in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes = [ctypes.c_void_p if letter == "p" else ctypes.c_int64 for letter in signature]
            function.restype = None
            setattr(self, name, _caller(function, with_threads=signature.endswith("t")))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no function {name!r}; there are {', '.join(SIGNATURES)}")


def _caller(function: Any, *, with_threads: bool) -> Any:
    def call(*arguments: int | Tensor | None) -> None:
        values = [one.data_ptr() if isinstance(one, Tensor) else one for one in arguments]
        function(*values, *((torch.get_num_threads(),) if with_threads else ()))

    return call


@cache
def pair_kernels() -> PairKernels | None:
    """The functions, compiled if need be.

    Returns
    -------
    PairKernels | None
        None where they cannot be compiled; the reason is logged once.
    """
    library = load(SOURCE)
    return None if library is None else PairKernels(library)


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

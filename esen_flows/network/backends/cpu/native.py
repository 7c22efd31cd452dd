"""The compiled functions of `edge_kernels.cpp`; plain torch operations give the same numbers more slowly."""

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor

from esen_flows.native import NativeSource, load

MAX_LMAX = 6  # largest degree for which `with_width` of the source has a case
SUFFIX = {torch.float32: "f32", torch.float64: "f64"}

# i: int, n: number of edges, p: an array. Every function ends with the number of threads.
SIGNATURES = {
    "gather_rotate": "iiinpppppp",
    "gather_rotate_backward": "iiinppppppppp",
    "gather_rotate_double_backward": "iiinpppppppppppppp",
    "scatter_rotated": "iiinippppp",
    "rotate_back": "iiinpppppp",
    "rotate_back_backward": "iiinppppppppp",
    "gate": "iiinipppp",
    "gate_backward": "iiinippppp",
    "gate_double_backward": "iiinipppppp",
    "add_node_rows": "inppppp",
    "norm_silu": "inpppp",
    "norm_silu_backward": "inppppp",
    "spread_scalars": "iinpppp",
    "spread_scalars_backward": "iinpppppp",
    "node_norm": "iinppppp",
    "node_norm_backward": "iinppppp",
    "node_gate": "iinppp",
    "node_gate_backward": "iinpppp",
}
SOURCE = NativeSource.beside(
    __file__,
    "edge_kernels",
    "force calls on CPUs take about 1.4 times longer",
    functions=tuple(f"{name}_{suffix}" for name in SIGNATURES for suffix in SUFFIX.values()),
)
_TYPES = {"i": ctypes.c_int, "n": ctypes.c_int64, "p": ctypes.c_void_p}


class Kernels:
    """The compiled functions by name, for one dtype.

    Tensors are passed by address, None as a null pointer. The functions assume contiguous arrays of this dtype, and
    int64 indices.

    Parameters
    ----------
    library
        The shared library.
    dtype
        Type of the arrays, float32 or float64.
    """

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        for name, signature in SIGNATURES.items():
            function = getattr(library, f"{name}_{SUFFIX[dtype]}")
            function.argtypes = [_TYPES[letter] for letter in signature] + [ctypes.c_int]
            function.restype = None
            setattr(self, name, _caller(function))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no kernel {name!r}; there are {', '.join(SIGNATURES)}")


def _caller(function: Any) -> Any:
    def call(*arguments: int | Tensor | None) -> None:
        values = [value.data_ptr() if isinstance(value, Tensor) else value for value in arguments]
        function(*values, torch.get_num_threads())

    return call


@cache
def kernels(dtype: torch.dtype) -> Kernels | None:
    """The kernels for a dtype, compiled if need be.

    Parameters
    ----------
    dtype
        Type of the arrays.

    Returns
    -------
    Kernels | None
        None for other types than float32 and float64, or where they cannot be compiled; the reason is logged once.
    """
    library = load(SOURCE)
    return Kernels(library, dtype) if library is not None and dtype in SUFFIX else None

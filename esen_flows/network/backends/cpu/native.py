"""The compiled functions of `edge_kernels.cpp`; plain torch operations give the same numbers more slowly."""

from functools import cache

import torch

from esen_flows.native import Functions, NativeSource, load

MAX_LMAX = 6  # largest degree for which `with_width` of the source has a case
SUFFIX = {torch.float32: "f32", torch.float64: "f64"}

# See `Functions`; n is the number of edges or atoms. Arrays of floating-point numbers have the dtype of the suffix.
SIGNATURES = {
    "gather_rotate": "iiinppppppt",
    "gather_rotate_backward": "iiinpppppppppt",
    "gather_rotate_double_backward": "iiinppppppppppppppt",
    "scatter_rotated": "iiinipppppt",
    "rotate_back": "iiinppppppt",
    "rotate_back_backward": "iiinpppppppppt",
    "gate": "iiinippppt",
    "gate_backward": "iiinipppppt",
    "gate_double_backward": "iiinippppppt",
    "add_node_rows": "inpppppt",
    "norm_silu": "inppppt",
    "norm_silu_backward": "inpppppt",
    "spread_scalars": "iinppppt",
    "spread_scalars_backward": "iinppppppt",
    "node_norm": "iinpppppt",
    "node_norm_backward": "iinpppppt",
    "node_gate": "iinpppt",
    "node_gate_backward": "iinppppt",
}
SOURCE = NativeSource.beside(
    __file__,
    "edge_kernels",
    "force calls on CPUs take about 1.4 times longer",
    functions=tuple(f"{name}_{suffix}" for name in SIGNATURES for suffix in SUFFIX.values()),
)


@cache
def kernels(dtype: torch.dtype) -> Functions | None:
    """The kernels for a dtype, compiled if need be.

    Parameters
    ----------
    dtype
        Type of the arrays.

    Returns
    -------
    Functions | None
        None for other types than float32 and float64, or where they cannot be compiled; the reason is logged once.
    """
    library = load(SOURCE)
    if library is None or dtype not in SUFFIX:
        return None
    return Functions(library, SIGNATURES, torch.get_num_threads, f"_{SUFFIX[dtype]}")

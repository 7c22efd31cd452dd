"""Loading of `edge_kernels.cpp`, which is compiled once per machine with its C++ compiler, and optional.

Without a compiler, plain torch operations give the same numbers more slowly. `ESEN_FLOWS_NATIVE=off` switches the
kernels off.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from esen_flows.files import written_whole

# Read with this module, whose signatures belong to it: upgrading the package under a running job replaces the file.
SOURCE = Path(__file__).with_name("edge_kernels.cpp").read_bytes()
# Neither errno nor floating-point traps are used; without them, loops with sqrt and comparisons are vectorised.
FLAGS = ("-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
MAX_LMAX = 6  # largest degree for which `with_width` of the source has a case
COMPILE_SECONDS = 300
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
}
_TYPES = {"i": ctypes.c_int, "n": ctypes.c_int64, "p": ctypes.c_void_p}

logger = logging.getLogger(__name__)


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
    library = _library()
    return Kernels(library, dtype) if library is not None and dtype in SUFFIX else None


@cache
def _library() -> ctypes.CDLL | None:
    if _is_off():
        return None
    try:
        return ctypes.CDLL(str(compiled()))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        logger.warning(
            "esen_flows runs without its compiled kernels, about 1.4 times slower on this CPU: %s "
            "(ESEN_FLOWS_NATIVE=off hides this)",
            detail.strip().splitlines()[0] if detail.strip() else type(error).__name__,
        )
        return None


def status() -> str:
    """What an evaluation on a CPU would use, found without compiling anything.

    Returns
    -------
    str
        Path of the compiled library, or why there is none.
    """
    if _is_off():
        return "off (ESEN_FLOWS_NATIVE)"
    compiler = _compiler()
    if compiler is None:
        return "no C++ compiler ($CXX, g++, clang++): force calls on CPUs take about 1.4 times longer"
    library = _library_path(compiler)
    return str(library) if library.exists() else f"compiled by {compiler} at the first evaluation"


def compiled() -> Path:
    """The shared library for this source, compiler and processor, compiled unless it exists.

    Returns
    -------
    Path
        File of the library, in the user's cache folder.

    Raises
    ------
    OSError
        There is no compiler ($CXX, g++, clang++), or the cache folder cannot be written or belongs to another user.
    subprocess.SubprocessError
        The compiler failed.
    """
    compiler = _compiler()
    if compiler is None:
        raise FileNotFoundError("no C++ compiler: install g++, or name one in CXX")
    library = _library_path(compiler)
    library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if library.parent.stat().st_uid != os.getuid():
        raise PermissionError(f"{library.parent} belongs to another user, so that no library is loaded from it")
    if not library.exists():
        with written_whole(library) as made:  # processes that compile at the same time make the same file
            command = [*compiler.split(), *FLAGS, "-x", "c++", "-", "-o", str(made)]
            source = SOURCE.decode()
            subprocess.run(command, input=source, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    return library


def _is_off() -> bool:
    return os.environ.get("ESEN_FLOWS_NATIVE", "").lower() == "off"


def _compiler() -> str | None:
    return os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++")), None)


def _library_path(compiler: str) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "esen_flows"
    parts = (SOURCE, " ".join((compiler, *FLAGS)).encode(), _processor().encode())
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
    return folder / f"edge_kernels-{digest[:16]}.so"


def _processor() -> str:
    """The processor properties on which -march=native depends: nodes of several kinds share home folders."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))

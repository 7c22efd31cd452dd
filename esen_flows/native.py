"""C++ files of this package, compiled once per machine with its compiler, and optional.

Without a compiler the rooms that use one compute the same numbers more slowly. `ESEN_FLOWS_NATIVE=off` switches
compiled code off. The standard library alone, so that every room may use it.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from esen_flows.files import written_whole

# Neither errno nor floating-point traps are used; without them, loops with sqrt and comparisons are vectorised.
FLAGS = ("-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
COMPILE_SECONDS = 300

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NativeSource:
    """A C++ file and what is lost without it.

    Attributes
    ----------
    name
        Name of the file, without its suffix.
    text
        Its content, read when the module that knows its signatures is: upgrading the package under a running job
        replaces the file.
    without
        What happens where it cannot be compiled, as the end of a sentence.
    """

    name: str
    text: bytes
    without: str

    @classmethod
    def beside(cls, module_file: str, name: str, without: str) -> "NativeSource":
        """The source in the folder of a module.

        Parameters
        ----------
        module_file
            `__file__` of the module.
        name
            Name of the source, without its suffix.
        without
            What happens where it cannot be compiled.

        Returns
        -------
        NativeSource
            The source, read.
        """
        return cls(name, Path(module_file).with_name(f"{name}.cpp").read_bytes(), without)


@cache
def load(source: NativeSource) -> ctypes.CDLL | None:
    """The compiled functions of a source.

    Parameters
    ----------
    source
        The source.

    Returns
    -------
    ctypes.CDLL | None
        None where it cannot be compiled; the reason is logged once.
    """
    if _is_off():
        return None
    try:
        return ctypes.CDLL(str(compiled(source)))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        logger.warning(
            "esen_flows runs without its compiled %s, so that %s: %s (ESEN_FLOWS_NATIVE=off hides this)",
            source.name,
            source.without,
            detail.strip().splitlines()[0] if detail.strip() else type(error).__name__,
        )
        return None


def status(source: NativeSource) -> str:
    """What a computation would use, found without compiling anything.

    Parameters
    ----------
    source
        The source.

    Returns
    -------
    str
        Path of the compiled library, or why there is none.
    """
    if _is_off():
        return "off (ESEN_FLOWS_NATIVE)"
    compiler = _compiler()
    if compiler is None:
        return f"no C++ compiler ($CXX, g++, clang++), so that {source.without}"
    library = _library_path(compiler, source)
    return str(library) if library.exists() else f"compiled by {compiler} at the first use"


def compiled(source: NativeSource) -> Path:
    """The shared library for a source, compiler and processor, compiled unless it exists.

    Parameters
    ----------
    source
        The source.

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
    library = _library_path(compiler, source)
    library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if library.parent.stat().st_uid != os.getuid():
        raise PermissionError(f"{library.parent} belongs to another user, so that no library is loaded from it")
    if not library.exists():
        with written_whole(library) as made:  # processes that compile at the same time make the same file
            command = [*compiler.split(), *FLAGS, "-x", "c++", "-", "-o", str(made)]
            text = source.text.decode()
            subprocess.run(command, input=text, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    return library


def _is_off() -> bool:
    return os.environ.get("ESEN_FLOWS_NATIVE", "").lower() == "off"


def _compiler() -> str | None:
    return os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++")), None)


def _library_path(compiler: str, source: NativeSource) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "esen_flows"
    parts = (source.text, " ".join((compiler, *FLAGS)).encode(), _processor().encode())
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
    return folder / f"{source.name}-{digest[:16]}.so"


def _processor() -> str:
    """The processor properties on which -march=native depends: nodes of several kinds share home folders."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))

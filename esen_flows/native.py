"""C++ files of this package, compiled once per machine with its compiler, and optional.

Without a compiler the rooms that use one compute the same numbers more slowly. `ESEN_FLOWS_NATIVE=off` switches
compiled code off. A library runs with all rights of its user, so that none is loaded that another user could have
written. The standard library alone, so that every room may use it.
"""

import _ctypes
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from esen_flows.files import written_whole

# Neither errno nor floating-point traps are used; without them, loops with sqrt and comparisons are vectorised.
FLAGS = ("-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
COMPILE_SECONDS = 300
_TYPES = {"i": ctypes.c_int, "n": ctypes.c_int64, "p": ctypes.c_void_p, "t": ctypes.c_int}

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
    functions
        Names of functions that the library has to have; one that lacks any is compiled again.
    flags
        Options of the compiler beside `FLAGS`.
    """

    name: str
    text: bytes
    without: str
    functions: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @classmethod
    def beside(
        cls, module_file: str, name: str, without: str, functions: tuple[str, ...] = (), flags: tuple[str, ...] = ()
    ) -> "NativeSource":
        """The source in the folder of a module.

        Parameters
        ----------
        module_file
            `__file__` of the module.
        name
            Name of the source, without its suffix.
        without
            What happens where it cannot be compiled.
        functions
            Names of functions that the library has to have.
        flags
            Options of the compiler beside `FLAGS`.

        Returns
        -------
        NativeSource
            The source, read.
        """
        return cls(name, Path(module_file).with_name(f"{name}.cpp").read_bytes(), without, functions, flags)


class Functions:
    """Compiled functions by their names.

    Tensors are passed by address, None as a null pointer. The functions assume contiguous arrays of the types that
    their source names.

    Parameters
    ----------
    library
        The shared library.
    signatures
        Kinds of the arguments of each function: i for an int, n for an int64_t, p for an array, and at the end t for
        the number of threads, which is not passed by the caller.
    threads
        How many threads to use.
    suffix
        What follows the names in the library.
    """

    def __init__(
        self, library: ctypes.CDLL, signatures: Mapping[str, str], threads: Callable[[], int], suffix: str = ""
    ) -> None:
        for name, signature in signatures.items():
            function = getattr(library, name + suffix)
            function.argtypes = [_TYPES[letter] for letter in signature]
            function.restype = None
            setattr(self, name, _caller(function, threads if signature.endswith("t") else None))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no compiled function {name!r}; there are {', '.join(vars(self))}")


def _caller(function: Any, threads: Callable[[], int] | None) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        values = [one.data_ptr() if hasattr(one, "data_ptr") else one for one in arguments]
        function(*values, *(() if threads is None else (threads(),)))

    return call


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
        return _complete(source) or _complete(source, again=True)
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


def compiled(source: NativeSource, *, again: bool = False) -> Path:
    """The shared library for a source, compiler and processor, compiled unless it exists.

    Parameters
    ----------
    source
        The source.
    again
        Whether to compile it though it exists.

    Returns
    -------
    Path
        File of the library, in the user's cache folder.

    Raises
    ------
    OSError
        There is no compiler ($CXX, g++, clang++), or the cache folder cannot be written, belongs to another user, or
        may be written by others.
    subprocess.SubprocessError
        The compiler failed.
    """
    compiler = _compiler()
    if compiler is None:
        raise FileNotFoundError("no C++ compiler: install g++, or name one in CXX")
    library = _library_path(compiler, source)
    library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if fault := _distrust(library.parent):
        raise PermissionError(f"no library is loaded from {library.parent}: {fault}")
    if again or not library.exists() or _distrust(library):
        with written_whole(library) as made:  # processes that compile at the same time make the same file
            command = [*compiler.split(), *FLAGS, *source.flags, "-x", "c++", "-", "-o", str(made)]
            text = source.text.decode()
            subprocess.run(command, input=text, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS)
            made.chmod(0o700)  # whatever the umask is
    return library


def _complete(source: NativeSource, *, again: bool = False) -> ctypes.CDLL | None:
    """The library of a source; None if it is damaged or lacks a function, unless it was compiled just now."""
    path = compiled(source, again=again)
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        if again:
            raise
        return None
    missing = [name for name in source.functions if not hasattr(library, name)]
    if not missing:
        return library
    _ctypes.dlclose(library._handle)  # the same name is opened again, which the loader would otherwise answer with this
    if again:
        raise OSError(f"the compiled {path} lacks the function {missing[0]}")
    return None


def _distrust(path: Path) -> str | None:
    """Why code at a path may be that of another user; None if only this one can have written it."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return "it is a link"
    if found.st_uid != os.getuid():
        return f"it belongs to another user ({found.st_uid})"
    if found.st_mode & 0o022:
        return f"others may write it (mode {stat.S_IMODE(found.st_mode):04o}); run: chmod go-w {path}"
    return None


def _is_off() -> bool:
    return os.environ.get("ESEN_FLOWS_NATIVE", "").lower() == "off"


def _compiler() -> str | None:
    return os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++")), None)


def _library_path(compiler: str, source: NativeSource) -> Path:
    # A folder of its own: the one above may have been made with a umask that lets others write.
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "esen_flows" / "kernels"
    parts = (source.text, " ".join((compiler, *FLAGS, *source.flags)).encode(), _processor().encode())
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
    return folder / f"{source.name}-{digest[:16]}.so"


def _processor() -> str:
    """The processor properties on which -march=native depends: nodes of several kinds share home folders."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))

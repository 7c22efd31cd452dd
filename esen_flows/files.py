"""Files that are written whole or not at all, reading within a limit, the sha256 of a file, and free space.

The standard library alone, so that every room may use it.
"""

import bz2
import errno
import fcntl
import gzip
import hashlib
import lzma
import os
import platform
import shutil
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from esen_flows.errors import FolderInUseError, InputError

_PIECE_BYTES = 2**20
_XZ_MEMORY_BYTES = 256 * 2**20  # a file chooses how much its decompression needs; xz -9 chooses 65 MB


@contextmanager
def written_whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends without an error.

    A reader of `path` sees the former content or the new one, never a part, and after an error or an interruption the
    former content is still there. The temporary file is removed if the block fails.

    Parameters
    ----------
    path
        File to write; its folder has to exist.
    durable
        Whether the content is on the disk before the file takes its name, and the name before the block is left, so
        that the file survives a power failure.

    Yields
    ------
    Path
        Where to write. It has the suffix of `path`, because some libraries choose a format by it, and a name that no
        other process on any machine that shares the folder uses.

    Raises
    ------
    OSError
        The folder is missing or cannot be written to, or the disk is full.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with written_whole(Path(folder, "notes.txt")) as temporary:
    ...         _ = temporary.write_text("finished")
    ...     Path(folder, "notes.txt").read_text()
    'finished'
    """
    temporary = path.with_name(f".{path.stem}.{platform.node()}-{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: without that a power failure may undo a new name.

    Parameters
    ----------
    folder
        Folder in which a file or folder was made, renamed or removed.

    Raises
    ------
    OSError
        The folder is missing or cannot be read.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def only_process_in(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Keep other processes that ask for the same out of a folder; the kernel ends this when the process dies.

    Machines that share the folder are kept out as well. A file system without locks keeps nobody out, with a warning.

    Parameters
    ----------
    folder
        An existing folder.
    name
        File of the lock in the folder, which stays. Locks of different names do not keep each other out.

    Yields
    ------
    None
        The folder is this process's own inside the `with` block.

    Raises
    ------
    FolderInUseError
        Another process is in such a block with this folder and name.
    """
    with (folder / name).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUseError(
                f"another process writes into {folder} ({name} is locked); wait until it has ended, or write elsewhere"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                raise
            warnings.warn(f"the file system of {folder} has no locks; start no second process there", stacklevel=3)
        yield


def sha256_of_file(path: Path) -> str:
    """Hexadecimal sha256 of the content of a file.

    Parameters
    ----------
    path
        File to read.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    return digest_of_file(path, "sha256")


def digest_of_file(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of the content of a file.

    Parameters
    ----------
    path
        File to read.
    algorithm
        Name of the algorithm, as `hashlib` has it: "sha256" or "md5".

    Returns
    -------
    str
        Hexadecimal digits.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def read_at_most(path: Path, most_bytes: int) -> bytes:
    """The content of a file that may be compressed by gzip, bzip2 or xz, found by its first bytes.

    Parameters
    ----------
    path
        File to read.
    most_bytes
        Largest size in bytes, after decompression.

    Returns
    -------
    bytes
        The content, decompressed.

    Raises
    ------
    InputError
        The file cannot be read, its compression is damaged, or it is larger.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        with path.open("rb") as raw, decompressing(raw) as stream:
            while piece := stream.read(_PIECE_BYTES):
                pieces.append(piece)
                size += len(piece)
                if size > most_bytes:
                    raise InputError(
                        f"{path} holds more than {most_bytes / 1e6:g} MB, more than is read; give a smaller one"
                    )
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged or cut off: {error}; fetch or write it again") from None
    return b"".join(pieces)


def decompressing(raw: IO[bytes]) -> IO[bytes]:
    """A file that may be compressed by gzip, bzip2 or xz, found by its first bytes, as a stream of its content.

    Parameters
    ----------
    raw
        The open file, at its begin.

    Returns
    -------
    IO[bytes]
        A stream with `read` and `read1`, or the file itself if it is not compressed. A stream for xz refuses files
        whose decompression needs an unusual amount of memory.
    """
    begin = raw.read(6)
    raw.seek(0)
    if begin.startswith(b"\x1f\x8b"):
        return gzip.open(raw)  # type: ignore[return-value]
    if begin.startswith(b"BZh"):
        return bz2.open(raw)
    if begin.startswith(b"\xfd7zXZ\0"):
        return _XzFile(raw)  # type: ignore[return-value]
    return raw


class _XzFile:
    """Reads xz with a bound on memory, which `lzma.open` does not take."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)

    def __enter__(self) -> "_XzFile":
        return self

    def __exit__(self, *details: object) -> None:
        pass

    def close(self) -> None:
        pass

    def read(self, size: int) -> bytes:
        while not self._decompressor.eof:
            more = self._raw.read(size) if self._decompressor.needs_input else b""
            if self._decompressor.needs_input and not more:
                raise EOFError("it ends before its end mark")
            if piece := self._decompressor.decompress(more, size):
                return piece
        return b""

    read1 = read


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error says that a disk, or the share of it that this user may fill, is full.

    Parameters
    ----------
    error
        Any error, or None.

    Returns
    -------
    bool
        Whether it is such an error.
    """
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def free_bytes(path: Path) -> int | None:
    """Space that this user may still fill on the file system of a path.

    Parameters
    ----------
    path
        File or folder, which need not exist yet.

    Returns
    -------
    int | None
        Bytes; None where it cannot be found.
    """
    for place in (path.absolute(), *path.absolute().parents):
        try:
            usage = shutil.disk_usage(place)
            return usage.free if usage.total else None  # /proc and the like have no size
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
    return None

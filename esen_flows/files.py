"""Files that are written whole or not at all, and the sha256 of a file.

The standard library alone, so that every room may use it.
"""

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""Files of labels that may be compressed: opened without letting a few bytes become more than memory holds."""

import io
import lzma
import zlib
from collections.abc import Iterator
from gzip import BadGzipFile
from pathlib import Path
from typing import IO

from esen_flows.errors import InputError
from esen_flows.files import decompressing

LONGEST_LINE = 1 << 26  # characters; the second line of a frame holds all that is said of the whole structure
# Text of numbers is compressed to a third of its size. gzip reaches 1,000 for a file of zeros, and others far more.
MOST_EXPANSION = 200
ALWAYS_ALLOWED = 1 << 28  # bytes that any file may become
BROKEN_STREAM = (EOFError, zlib.error, BadGzipFile, lzma.LZMAError, UnicodeDecodeError)
_PIECE = 1 << 22


class TruncatedFileError(InputError):
    """A file of labels ends in the middle; what is whole in it was read."""


class _Bounded(io.RawIOBase):
    """A decompressed stream that refuses to become much larger than its file."""

    def __init__(self, path: Path, raw: IO[bytes], stream: IO[bytes]) -> None:
        self._path, self._raw, self._stream = path, raw, stream
        self._left = largest_size(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        # Not `read`, which would lose what comes before a broken place.
        data = self._stream.read1(len(buffer))  # type: ignore[attr-defined]
        self._left -= len(data)
        if self._left < 0:
            raise InputError(
                f"{self._path} becomes more than {MOST_EXPANSION} times its size when it is decompressed, which labels "
                "do not; decompress it yourself if you trust it"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        self._raw.close()
        super().close()


def largest_size(path: Path) -> int:
    """Largest number of bytes that a compressed file of labels may become.

    Parameters
    ----------
    path
        The compressed file.

    Returns
    -------
    int
        Number of bytes.
    """
    return max(ALWAYS_ALLOWED, MOST_EXPANSION * path.stat().st_size)


def open_binary(path: Path) -> IO[bytes]:
    """Open a file, which is decompressed if it is compressed by gzip, bzip2 or xz.

    Parameters
    ----------
    path
        File to read.

    Returns
    -------
    IO[bytes]
        The open file. Reading raises InputError where a compressed file becomes more than 200 times its size, and one
        of the errors of BROKEN_STREAM where it ends in the middle.
    """
    raw = path.open("rb")
    stream = decompressing(raw)
    return raw if stream is raw else io.BufferedReader(_Bounded(path, raw, stream), _PIECE)


def read_bytes(path: Path) -> tuple[bytes, bool]:
    """The content of a file, decompressed as by `open_binary`, as far as it can be read.

    Parameters
    ----------
    path
        File to read.

    Returns
    -------
    tuple[bytes, bool]
        The content, and whether it is whole: a compressed file may end in the middle.

    Raises
    ------
    InputError
        A compressed file becomes more than 200 times its size.
    """
    pieces = []
    with open_binary(path) as stream:
        try:
            while piece := stream.read1(_PIECE):  # type: ignore[attr-defined]
                pieces.append(piece)
        except BROKEN_STREAM:
            return b"".join(pieces), False
    return b"".join(pieces), True


def open_text(path: Path, errors: str = "strict") -> IO[str]:
    """Open a text file as `open_binary` does.

    Parameters
    ----------
    path
        File to read.
    errors
        As for `open`: "replace" reads what is not UTF-8 as well.

    Returns
    -------
    IO[str]
        The open file.
    """
    return io.TextIOWrapper(open_binary(path), encoding="utf-8", errors=errors)


def lines_of(stream: IO[str], path: Path) -> Iterator[str]:
    """Lines of a text file, none of which is longer than 64 million characters.

    Parameters
    ----------
    stream
        The open file.
    path
        Its name for error messages.

    Yields
    ------
    str
        One line.

    Raises
    ------
    InputError
        A line is longer.
    """
    number = 0
    while line := stream.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise InputError(f"{path}, line {number} has more than {LONGEST_LINE} characters; is it a text file?")
        yield line

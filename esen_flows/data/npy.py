"""Rows of .npy files: read in ranges by position, and written one after the other.

`numpy.load(..., mmap_mode="r")` reads the files too. They are read by position here rather than through a mapping:
every page of a mapping that was ever touched counts as memory of this process, and after an epoch in random order that
would be the whole dataset.
"""

import math
import os
import weakref
from pathlib import Path
from tokenize import TokenError

import numpy as np

from esen_flows.errors import InputError

# Errors by which numpy refuses the header of a file, which is a Python literal.
BROKEN_HEADER = (ValueError, TypeError, KeyError, SyntaxError, TokenError, RecursionError, MemoryError)


class FileRows:
    """Rows of a .npy file, read when they are sliced.

    Parameters
    ----------
    path
        The file.
    dtype
        Data type of the elements.
    row
        Shape of one row.
    count
        Number of rows.

    Raises
    ------
    InputError
        The file is missing, is not a .npy file with this dtype and this many rows, or is cut off.
    """

    def __init__(self, path: Path, dtype: np.dtype, row: tuple[int, ...], count: int) -> None:
        self.path = path
        self._dtype, self._row, self._count = dtype, row, count
        try:
            with path.open("rb") as stream:
                version = np.lib.format.read_magic(stream)
                if version != (1, 0):
                    raise ValueError(f"version {version} of the .npy format, expected (1, 0)")
                shape, _, found = np.lib.format.read_array_header_1_0(stream)
                self._start = stream.tell()
                size = os.fstat(stream.fileno()).st_size
                self._descriptor = os.dup(stream.fileno())
        except (OSError, *BROKEN_HEADER) as error:
            raise InputError(f"{path} is not a readable .npy file: {error}; import the dataset again") from error
        weakref.finalize(self, os.close, self._descriptor)
        self._bytes = dtype.itemsize * math.prod(row)
        expected = self._start + count * self._bytes
        if shape != (count, *row) or found != dtype or size != expected:
            raise InputError(
                f"{path} holds {shape} of {found} in {size} bytes; expected {(count, *row)} of {dtype} in {expected}; "
                "copy or import the dataset again"
            )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self._count)
        count = max(0, last - first)
        data = self._read(self._start + first * self._bytes, count * self._bytes)
        return np.frombuffer(data, self._dtype).reshape(count, *self._row)

    def _read(self, start: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, start)
        while len(data) < size:  # one call reads at most 2 GB
            more = os.pread(self._descriptor, size - len(data), start + len(data))
            if not more:
                raise InputError(f"{self.path} has become shorter since it was opened; copy the dataset again")
            data += more
        return data


class FileColumn:
    """A .npy file that grows row by row.

    Its header is written again at the end, with the final number of rows; numpy leaves room for the digits.

    Parameters
    ----------
    path
        File to write.
    dtype
        Data type of the elements.
    row
        Shape of one row.
    """

    def __init__(self, path: Path, dtype: np.dtype, row: tuple[int, ...]) -> None:
        self._dtype, self._row, self._count = dtype, row, 0
        self._stream = path.open("wb", buffering=1 << 20)
        self._write_header()

    def _write_header(self) -> None:
        description = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": description, "fortran_order": False, "shape": (self._count, *self._row)}
        np.lib.format.write_array_header_1_0(self._stream, header)

    def append(self, rows: np.ndarray) -> None:
        """Write rows at the end.

        Parameters
        ----------
        rows
            (n, *row) values.
        """
        self._stream.write(rows.tobytes())
        self._count += len(rows)

    def close(self) -> None:
        """Complete the header, and close the file with its content on the disk."""
        self._stream.seek(0)
        self._write_header()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        self._stream.close()

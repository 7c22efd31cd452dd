"""ASE databases: SQLite or JSON through ase.db, and LMDB files as OMat24, sAlex and OMol ship them.

An LMDB file of this kind is a single file without a subdirectory. Its keys are the numbers of the rows as text, beside
`nextid`, `deleted_ids` and `metadata`. Its values are JSON compressed by zlib, with the fields of an ASE row.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from esen_flows.data.screening import BadRecord, ReadRecord
from esen_flows.data.sources.ase_files import record_of
from esen_flows.data.sources.conventions import Convention
from esen_flows.data.sources.options import SourceOptions
from esen_flows.errors import InputError

MOST_BYTES_OF_ROW = 1 << 28
UNREADABLE_ROW = (
    zlib.error,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    OverflowError,
    MemoryError,
)
_FIELDS = ("numbers", "positions", "cell", "pbc", "energy", "free_energy", "forces", "stress")


def read_ase_db(path: Path, options: SourceOptions, convention: Convention) -> Iterator[ReadRecord]:
    """Rows of a database that ASE itself opens.

    Parameters
    ----------
    path
        The database.
    options
        Names and units that the database does not give itself.
    convention
        Units and signs of the labels.

    Yields
    ------
    LabelledStructure | BadRecord
        One entry for each row.

    Raises
    ------
    InputError
        ASE cannot read the file as a database.
    """
    import ase.db

    try:
        for row in ase.db.connect(path).select():
            fields = {name: row.get(name) for name in _FIELDS}
            yield _record(f"row {row.id} of {path.name}", fields, row.data, row.key_value_pairs, options, convention)
    except Exception as error:  # errors of sqlite, of JSON and of ASE
        raise InputError(f"{path} is not a readable ASE database: {type(error).__name__}: {error}") from error


def read_ase_lmdb(path: Path, options: SourceOptions, convention: Convention) -> Iterator[ReadRecord]:
    """Rows of an LMDB file, by number.

    Parameters
    ----------
    path
        The file.
    options
        Names and units that the file does not give itself.
    convention
        Units and signs of the labels.

    Yields
    ------
    LabelledStructure | BadRecord
        One entry for each row that was not deleted.

    Raises
    ------
    InputError
        The file is not an LMDB file with ASE's rows, or the library `lmdb` is missing.
    """
    try:
        import lmdb
    except ImportError as error:
        raise InputError(f"{path.name} needs the library lmdb; pip install 'esen_flows[datasets]'") from error
    try:
        environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False, meminit=False)
        with environment, environment.begin() as transaction:
            _check_length(environment, path)
            for key in _row_keys(transaction, path):
                row = _row(transaction.get(key))
                where = f"row {key.decode()} of {path.name}"
                if isinstance(row, str):
                    yield BadRecord(where, "unreadable", row)
                else:
                    yield _record(where, row, row.get("data"), row.get("key_value_pairs"), options, convention)
    except lmdb.Error as error:
        raise InputError(f"{path} is not a readable LMDB file: {error}") from error


def _check_length(environment: Any, path: Path) -> None:
    """Refuse a file that was cut: it is mapped into memory, and a page behind its end would end the process."""
    expected, size = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"], path.stat().st_size
    if size < expected:
        raise InputError(f"{path} has {size} bytes of {expected}; it was cut off, copy it again")


def _row(value: bytes | None) -> dict[str, Any] | str:
    """A row, or what is wrong with it."""
    if value is None:
        return "the row is missing"
    try:
        row = _decoded(value)
    except UNREADABLE_ROW as error:
        return str(error)
    return row if isinstance(row, dict) else f"it is a {type(row).__name__}, and not a mapping"


def _decoded(value: bytes) -> Any:
    decompressor = zlib.decompressobj()
    text = decompressor.decompress(value, MOST_BYTES_OF_ROW)
    if decompressor.unconsumed_tail:
        raise ValueError(f"it becomes more than {MOST_BYTES_OF_ROW} bytes when it is decompressed")
    if not decompressor.eof:
        raise ValueError("its compressed data end in the middle")
    return json.loads(text, object_hook=_array)


def _array(value: dict[str, Any]) -> Any:
    """The array of a dictionary by which ASE writes one; other dictionaries stay as they are."""
    if "__ndarray__" not in value:
        return value
    shape, dtype, numbers = value["__ndarray__"]
    array = np.array(numbers, dtype=dtype)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"an array of type {dtype!r:.40}")
    return array.reshape(shape)


def _row_keys(transaction: Any, path: Path) -> Iterator[bytes]:
    """Keys of the rows that were not deleted, in the order of their numbers."""
    following = transaction.get(b"nextid")
    if following is None:
        raise InputError(f"{path} is an LMDB file, but no ASE database: it has no entry 'nextid'")
    deleted = transaction.get(b"deleted_ids")
    try:
        gone = set(_decoded(deleted)) if deleted is not None else set()
        count = int(_decoded(following))
    except UNREADABLE_ROW as error:
        raise InputError(f"{path} is no ASE database: its entry 'nextid' or 'deleted_ids' is {error}") from error
    stored = transaction.stat()["entries"]
    if count > 10 * (stored + len(gone)) + 1000:
        raise InputError(f"{path} says {count} rows, and has {stored} entries; copy it again")
    return (str(number).encode() for number in range(1, count) if number not in gone)


def _record(
    where: str, row: Mapping[str, Any], data: Any, key_value_pairs: Any, options: SourceOptions, convention: Convention
) -> ReadRecord:
    results = {name: value for name, value in row.items() if value is not None}
    try:
        info = {**(data or {}), **(key_value_pairs or {})}
        return record_of(where, row, results, info, options, convention)
    except UNREADABLE_ROW as error:
        return BadRecord(where, "unreadable", str(error))

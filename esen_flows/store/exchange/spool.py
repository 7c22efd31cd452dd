"""The spool: results on disk while there is no server, merged later by `esen-flows db ingest FOLDER`.

Every writer has a folder of its own: `records.jsonl` with one record and its checksum in a line, and `blobs/` with one
file for each large array under its content key. An array is on the disk before the record that names it, and a record
before `keep` returns. A record that cannot be written completely is removed.
"""

import contextlib
import hashlib
import logging
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from bson import ObjectId, json_util
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from esen_flows.errors import InputError, StoreError
from esen_flows.files import is_full_disk, sync_folder, written_whole
from esen_flows.schemas.keys import array_key
from esen_flows.store.blobs import BlobReference
from esen_flows.store.database import Row
from esen_flows.store.exchange.extended_json import DocumentError, parsed
from esen_flows.store.rows import Identity

RECORDS, BLOBS = "records.jsonl", "blobs"
MOST_LINE_BYTES = 100_000_000  # a document has at most 12 MB, and half as much again as text
logger = logging.getLogger(__name__)
_LINE = re.compile(rb'\{"sha256":"([0-9a-f]{64})","record":(.*)\}\n', re.DOTALL)
_BEGIN = b'{"sha256":"'
_SHA = re.compile(r"[0-9a-f]{64}")


_Key = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    """Fields of a record that are read without the whole document; merging reads the others."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True, extra="ignore")


class _Failure(_Part):
    final: bool


class _Row(_Part):
    id: ObjectId = Field(alias="_id")
    key: _Key
    failure: _Failure | None


class _Result(_Part):
    type: Literal["result"]
    row: _Row
    forced: bool


class _Structure(_Part):
    type: Literal["structure"]
    key: _Key
    structure: dict[str, Any]
    info: dict[Literal["charge", "spin"], float]
    identity: Identity


_CONTENT: TypeAdapter[Any] = TypeAdapter(Annotated[_Result | _Structure, Field(discriminator="type")])


@dataclass(frozen=True)
class SpoolRecord:
    """One line of a spool.

    Attributes
    ----------
    file
        File of records.
    offset
        Position of the line in the file, in bytes.
    content
        `type` ("result" or "structure") and the fields of this type; None for a line that is not a record.
    truncated
        Whether the line has no end: its writer was killed before `keep` or `append` returned.
    fault
        Why the line is not a record; empty for a record.
    """

    file: Path
    offset: int
    content: Row | None
    truncated: bool = False
    fault: str = ""

    @property
    def place(self) -> str:
        """File and offset, for messages."""
        return f"{self.file} at byte {self.offset}"


class SpoolWriter:
    """Appends records to a spool of its own; makes no file before the first record.

    Parameters
    ----------
    folder
        Folder of spools.
    patience_seconds
        How long a store with a server waits for a lost server before it writes here.
    elsewhere
        Folders of spools on other disks, for records that do not fit on that of `folder`.
    """

    def __init__(self, folder: Path, patience_seconds: float = 0.0, elsewhere: Sequence[Path] = ()) -> None:
        self.patience_seconds = patience_seconds
        self._elsewhere = list(elsewhere)
        self._descriptor = -1
        self.folder = self._new(folder)

    def keep(self, row: Row, large: dict[str, np.ndarray], forced: bool) -> SpoolRecord:
        """Write a packed result and its arrays.

        Parameters
        ----------
        row
            Packed result.
        large
            Its large arrays by content key.
        forced
            Whether the result is a further attempt whatever is stored.

        Returns
        -------
        SpoolRecord
            The record and its place.

        Raises
        ------
        StoreError
            The disk is full or cannot be written to; no part of the result was kept.
        """
        return self._written({"type": "result", "row": row, "forced": forced}, large, f"result {row['key']}")

    def append(self, content: Mapping[str, Any], what: str) -> SpoolRecord:
        """Write one record.

        Parameters
        ----------
        content
            `type` and the fields of this type.
        what
            Name of the record in messages.

        Returns
        -------
        SpoolRecord
            The record and its place.

        Raises
        ------
        StoreError
            The disk is full or cannot be written to; no part of the record was kept.
        """
        return self._written(content, {}, what)

    def _written(self, content: Mapping[str, Any], large: dict[str, np.ndarray], what: str) -> SpoolRecord:
        text = json_util.dumps(content, json_options=json_util.CANONICAL_JSON_OPTIONS).encode()
        line = b'{"sha256":"%s","record":%s}\n' % (hashlib.sha256(text).hexdigest().encode(), text)
        while True:
            try:
                self._open()
                for sha, array in large.items():
                    self._write_blob(sha, array)
                return SpoolRecord(self.folder / RECORDS, self._append(line), dict(content))
            except OSError as error:
                if is_full_disk(error) and self._elsewhere:
                    self._move(self._elsewhere.pop(0))
                    continue
                raise StoreError(
                    f"cannot write {what} into the spool {self.folder} ({error.strerror}); no part of it was kept. "
                    "Free space there or set ESEN_FLOWS_SPOOL_DIR to another folder, and run it again"
                ) from error

    def _move(self, folder: Path) -> None:
        """Go on in another folder, and leave no empty files in the former one."""
        full = self.folder
        self.close()
        with contextlib.suppress(OSError):
            if (full / RECORDS).stat().st_size == 0:
                shutil.rmtree(full)
        self.folder = self._new(folder)
        logger.warning("the disk of %s is full; results go into %s from now on", full, self.folder)

    @staticmethod
    def _new(folder: Path) -> Path:
        return folder / f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def close(self) -> None:
        """Close the file of records."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        if self._descriptor < 0:
            (self.folder / BLOBS).mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self.folder / RECORDS, flags, 0o600)
            sync_folder(self.folder)
            sync_folder(self.folder.parent)

    def _append(self, line: bytes) -> int:
        """Write a line and wait until it is on the disk; its offset."""
        offset = os.fstat(self._descriptor).st_size
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, offset)
                os.fsync(self._descriptor)
            raise
        return offset

    def _write_blob(self, sha: str, array: np.ndarray) -> None:
        """Write an array unless this spool has it already."""
        target = self.folder / BLOBS / sha
        if not target.exists():
            with written_whole(target, durable=True) as temporary:
                temporary.touch(mode=0o600)  # as the records: readable by this user alone
                temporary.write_bytes(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="C"))


def spool_files(folder: Path) -> list[Path]:
    """The files of records of a spool, or of all spools in a folder.

    Parameters
    ----------
    folder
        Spool or folder of spools.

    Returns
    -------
    list of Path
        Files in alphabetical order; empty if there is no spool.
    """
    return sorted([*folder.glob(RECORDS), *folder.glob(f"*/{RECORDS}")])


def read_records(file: Path) -> Iterator[SpoolRecord]:
    """The records of one file in order, each compared with its checksum.

    Parameters
    ----------
    file
        File of records.

    Yields
    ------
    SpoolRecord
        A record.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        with file.open("rb") as lines:
            offset = 0
            while line := lines.readline(MOST_LINE_BYTES):
                try:
                    yield SpoolRecord(file, offset, _content(line))
                except _RecordError as error:
                    cut = line.startswith(_BEGIN[: len(line)]) and not line.endswith(b"\n")
                    yield SpoolRecord(file, offset, None, truncated=cut, fault=str(error))
                offset += len(line)
    except OSError as error:
        raise InputError(f"cannot read the spool {file}: {error.strerror}") from error


def read_record(file: Path, offset: int) -> Row:
    """The content of one record.

    Parameters
    ----------
    file
        File of records.
    offset
        Position of the record in the file, in bytes.

    Returns
    -------
    Row
        `type` and the fields of this type.

    Raises
    ------
    StoreError
        The record is damaged.
    """
    with file.open("rb") as lines:
        lines.seek(offset)
        try:
            return _content(lines.readline(MOST_LINE_BYTES))
        except _RecordError as error:
            raise StoreError(f"the record in {file} at byte {offset}: {error}; the spool is damaged") from None


def load_blob(folder: Path, reference: BlobReference) -> np.ndarray:
    """A large array of a spool, compared with its key.

    Parameters
    ----------
    folder
        Spool of the record that names the array.
    reference
        Key, type and shape of the array.

    Returns
    -------
    ndarray
        The array, writable.

    Raises
    ------
    StoreError
        The array is missing, truncated or damaged.
    """
    name = reference.sha if _SHA.fullmatch(reference.sha) else "?"  # a damaged record must not choose the path
    file = folder / BLOBS / name
    kind = np.dtype(reference.dtype)  # `unpack` has checked type and shape
    expected = kind.itemsize * int(np.prod(reference.shape, dtype=np.int64))
    try:
        data = file.read_bytes()
    except OSError as error:
        raise StoreError(f"the array {file} cannot be read ({error.strerror})") from error
    if len(data) != expected:
        raise StoreError(f"the array {file} has {len(data)} of {expected} bytes")
    array = np.frombuffer(data, dtype=kind).reshape(reference.shape).copy()
    if array_key(array) != reference.sha:
        raise StoreError(f"the array {file} does not match its checksum")
    return array


class _RecordError(Exception):
    """A line of a spool is not a record."""


def _content(line: bytes) -> Row:
    match = _LINE.fullmatch(line)
    if match is None or hashlib.sha256(match[2]).hexdigest().encode() != match[1]:
        raise _RecordError("it does not match its checksum")
    try:
        content = parsed(match[2])
        _CONTENT.validate_python(content)
    except DocumentError as error:
        raise _RecordError(str(error)) from None
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"][1:]) or "type"
        raise _RecordError(f"it is no record of this package ({where}: {fault['msg'][:200]})") from None
    return content

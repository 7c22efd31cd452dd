"""The spool: results on disk while there is no server, merged later by `esen-flows db ingest FOLDER`.

Every writer has a folder of its own: `records.jsonl`, one record a line with the checksum of its text, and `blobs/`,
one file per large array under its content key. A blob is on the disk before the record that names it, a record before
`keep` returns; what cannot be written whole is taken back.
"""

import contextlib
import hashlib
import os
import platform
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bson import json_util

from esen_flows.errors import InputError, StoreError
from esen_flows.schemas.keys import array_key
from esen_flows.store.blobs import BlobReference
from esen_flows.store.database import Row

RECORDS, BLOBS = "records.jsonl", "blobs"
_LINE = re.compile(rb'\{"sha256":"([0-9a-f]{64})","record":(.*)\}\n', re.DOTALL)
_SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SpoolRecord:
    """One line of a spool.

    Attributes
    ----------
    file, offset
        where it is.
    content
        `type` ("result" or "structure") and what belongs to it; None for a line that is not whole.
    torn
        the last line, cut off: its writer was killed before anybody was told that it was written.
    """

    file: Path
    offset: int
    content: Row | None
    torn: bool = False

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.file} at byte {self.offset}"


class SpoolWriter:
    """Appends to a spool of its own below `folder`; nothing is made before the first record."""

    def __init__(self, folder: Path, patience_seconds: float = 0.0) -> None:
        self.patience_seconds = patience_seconds
        self.folder = folder / f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._descriptor = -1

    def keep(self, row: Row, large: dict[str, np.ndarray], forced: bool) -> SpoolRecord:
        """Write a packed result and its arrays; where it is now.

        Raises
        ------
        StoreError
            the disk is full or cannot be written to; nothing is half-written.
        """
        what = f"result {row['key']}"
        for sha, array in large.items():
            self._guarded(what, lambda sha=sha, array=array: self._write_blob(sha, array))  # type: ignore[misc]
        return self.append({"type": "result", "row": row, "forced": forced}, what)

    def append(self, content: Mapping[str, Any], what: str) -> SpoolRecord:
        """Write one record; where it is now.

        Raises
        ------
        StoreError
            the disk is full or cannot be written to; nothing is half-written.
        """
        text = json_util.dumps(content, json_options=json_util.CANONICAL_JSON_OPTIONS).encode()
        digest = hashlib.sha256(text).hexdigest().encode()
        offset = self._guarded(what, lambda: self._append(b'{"sha256":"%s","record":%s}\n' % (digest, text)))
        return SpoolRecord(self.folder / RECORDS, offset, dict(content))

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _guarded(self, what: str, write: Callable[[], int]) -> int:
        try:
            return write()
        except OSError as error:
            raise StoreError(
                f"cannot write {what} into the spool {self.folder} ({error.strerror}); nothing of it was kept. Free "
                "space there or set ESEN_FLOWS_SPOOL_DIR to another folder, and ask again"
            ) from error

    def _append(self, line: bytes) -> int:
        if self._descriptor < 0:
            (self.folder / BLOBS).mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self.folder / RECORDS, flags, 0o600)
            _sync_folder(self.folder)
            _sync_folder(self.folder.parent)
        offset = os.fstat(self._descriptor).st_size
        try:
            _write_all(self._descriptor, line)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, offset)
                os.fsync(self._descriptor)
            raise
        return offset

    def _write_blob(self, sha: str, array: np.ndarray) -> int:
        """Under its final name only when it is whole; the same array again costs nothing."""
        target = self.folder / BLOBS / sha
        if target.exists():
            return 0
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = target.with_suffix(f".{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="C"))
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        _sync_folder(target.parent)
        return 0


def spool_files(folder: Path) -> list[Path]:
    """The record files of a spool, or of all spools in a folder."""
    return sorted([*folder.glob(RECORDS), *folder.glob(f"*/{RECORDS}")])


def read_records(file: Path) -> Iterator[SpoolRecord]:
    """The records of one file in order, each checked against its checksum.

    Raises
    ------
    InputError
        the file cannot be read.
    """
    try:
        with file.open("rb") as lines:
            offset = 0
            for line in lines:
                yield SpoolRecord(file, offset, _content(line), torn=not line.endswith(b"\n"))
                offset += len(line)
    except OSError as error:
        raise InputError(f"cannot read the spool {file}: {error.strerror}") from error


def read_record(file: Path, offset: int) -> Row:
    """The content of the record at an offset.

    Raises
    ------
    StoreError
        it has been damaged.
    """
    with file.open("rb") as lines:
        lines.seek(offset)
        content = _content(lines.readline())
    if content is None:
        raise StoreError(f"the record in {file} at byte {offset} does not match its checksum; the spool is damaged")
    return content


def load_blob(folder: Path, reference: BlobReference) -> np.ndarray:
    """An array of a spool, checked against its key.

    Parameters
    ----------
    folder
        of the record that names it.

    Raises
    ------
    StoreError
        it is missing, truncated or damaged.
    """
    name = reference.sha if _SHA.fullmatch(reference.sha) else "?"  # a path comes from us alone
    file = folder / BLOBS / name
    kind = np.dtype(reference.dtype)
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


def _content(line: bytes) -> Row | None:
    match = _LINE.fullmatch(line)
    if match is None or hashlib.sha256(match[2]).hexdigest().encode() != match[1]:
        return None
    content: Row = json_util.loads(match[2], json_options=json_util.JSONOptions(tz_aware=True))
    return content


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

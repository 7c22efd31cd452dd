"""Arrays in MongoDB: small ones inside their document, large ones once each, under the hash of their content.

A large array is a header in `blobs` and chunks in `blob_chunks`. Chunks are written before the header, the header
before the document that names it, so that a reader never meets a reference to something half-written. Every writer
writes chunks of its own (`write`), so that removing the leftovers of a dead one cannot hurt a living one.
"""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from bson import Binary
from pymongo.errors import DuplicateKeyError

from esen_flows.errors import StoreError
from esen_flows.schemas.keys import array_key
from esen_flows.store.database import Database

INLINE_LIMIT_BYTES = 256_000
CHUNK_BYTES = 8 * 2**20  # a BSON document holds 16 MB
NAMING = ("results", "datasets")  # the collections whose documents list in `blobs` the arrays that they refer to
_DTYPE_KINDS = "biufcUS"
_INLINE, _BLOB = "__array__", "__blob__"
# Most values of a document are stored as they are; the short way for them halves the time of an import.
_PLAIN = frozenset((bool, float, str, bytes, datetime, type(None)))


@dataclass(frozen=True)
class BlobReference:
    """A large array that was not loaded."""

    sha: str
    dtype: str
    shape: tuple[int, ...]


def pack(
    value: Any, large: dict[str, np.ndarray] | None = None, path: str = "output", inline_bytes: int | None = None
) -> Any:
    """The value with arrays and numpy scalars turned into what BSON holds; lists for tuples.

    Parameters
    ----------
    value
        nested dictionaries (string keys), lists and tuples of arrays, numbers, strings, bytes, dates and None.
    large
        receives arrays over 256 kB by their content key; None: everything stays inline.
    path
        of the value, for messages.
    inline_bytes
        instead of 256 kB.

    Raises
    ------
    StoreError
        something that cannot be stored, and where it is.
    """
    if isinstance(value, dict):
        return {
            _checked_name(name, path): item
            if type(item) in _PLAIN
            else pack(item, large, f"{path}.{name}", inline_bytes)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            item if type(item) in _PLAIN else pack(item, large, f"{path}[{index}]", inline_bytes)
            for index, item in enumerate(value)
        ]
    if isinstance(value, np.generic) and value.dtype.kind in "biufUS":
        value = value.item()
    if isinstance(value, np.ndarray | np.generic):
        limit = INLINE_LIMIT_BYTES if inline_bytes is None else inline_bytes
        return _pack_array(np.asarray(value), large, path, limit)
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        raise StoreError(f"{path} is {value}, which does not fit into 64 bits")
    if value is None or isinstance(value, bool | int | float | str | bytes | datetime):
        return value
    raise StoreError(f"{path} is a {type(value).__name__}, which cannot be stored; give arrays, numbers and strings")


def unpack(value: Any, load: Callable[[BlobReference], Any] | None = None) -> Any:
    """What `pack` was given.

    Parameters
    ----------
    value
        from the database.
    load
        turns a reference to a large array into the array; None: the reference itself.
    """
    if isinstance(value, list):
        return [unpack(item, load) for item in value]
    if not isinstance(value, dict):
        return value
    if _INLINE in value:
        return _from_bytes(value["data"], value["dtype"], value["shape"])
    if _BLOB in value:
        reference = BlobReference(value[_BLOB], value["dtype"], tuple(value["shape"]))
        return reference if load is None else load(reference)
    return {name: unpack(item, load) for name, item in value.items()}


class BlobStore:
    """Large arrays by content."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, sha: str, array: np.ndarray, write: str) -> None:
        """Store an array unless it is there.

        Parameters
        ----------
        sha
            its `array_key`; already written down in the claim, so that a crash here leaves nothing unaccounted for.
        array
            any shape.
        write
            token of the writer.
        """
        db = self._database
        data = _bytes(array)
        pieces = range(0, max(len(data), 1), CHUNK_BYTES)
        header = {
            "_id": sha,
            "dtype": _little_endian(array).dtype.str,
            "shape": list(array.shape),
            "bytes": len(data),
            "chunks": len(pieces),
            "write": write,
            "created_at": datetime.now(UTC),
        }
        written = False
        while True:
            # Finding it also rescues it from a removal that has only just been thought of.
            found = db.call(lambda: db["blobs"].find_one_and_update({"_id": sha}, {"$unset": {"doomed": 1}}))
            if found is not None:
                if written and found["write"] != write:
                    db.call(lambda: db["blob_chunks"].delete_many({"sha": sha, "write": write}))
                return
            for number, start in enumerate(pieces):
                chunk = {"sha": sha, "write": write, "n": number, "data": Binary(data[start : start + CHUNK_BYTES])}
                self._put_chunk(f"{sha}:{write}:{number}", chunk)
            written = True
            try:
                db.call(lambda: db["blobs"].insert_one(header))
                return
            except DuplicateKeyError:
                continue  # somebody stored the same array meanwhile, or our own insertion was repeated

    def repair(self, sha: str, array: np.ndarray) -> None:
        """Store an array that a document already names, replacing what somebody may have removed half of."""
        db = self._database
        reference = BlobReference(sha, _little_endian(array).dtype.str, array.shape)
        try:
            self.get(reference)
        except StoreError:
            db.call(lambda: db["blobs"].delete_one({"_id": sha}))
            self.put(sha, array, uuid.uuid4().hex)

    def get(self, reference: BlobReference) -> np.ndarray:
        """The array, checked against its key.

        Raises
        ------
        StoreError
            it is missing or damaged.
        """
        db = self._database
        header = db.call(lambda: db["blobs"].find_one({"_id": reference.sha}))
        if header is None:
            raise StoreError(f"array {reference.sha} is named by a document but missing; ask for the result again")
        query = {"sha": reference.sha, "write": header["write"]}
        chunks = db.call(lambda: list(db["blob_chunks"].find(query).sort("n", 1)))
        data = b"".join(chunk["data"] for chunk in chunks)
        if len(data) != header["bytes"]:
            raise StoreError(f"array {reference.sha} has {len(data)} of {header['bytes']} bytes; the store is damaged")
        array = _from_bytes(data, reference.dtype, reference.shape)
        if array_key(array) != reference.sha:
            raise StoreError(f"array {reference.sha} does not match its checksum; the store is damaged")
        return array

    def remove_orphans(self, shas: Iterable[str], by_token: str = "") -> list[str]:
        """Remove those of these arrays that no result, dataset or claim names; which they were.

        Parameters
        ----------
        shas
            candidates.
        by_token
            of the claim that lists them because it is cleaning up.
        """
        return [sha for sha in dict.fromkeys(shas) if self._remove_orphan(sha, by_token)]

    def _put_chunk(self, chunk_id: str, chunk: dict[str, Any]) -> None:
        db = self._database
        db.call(lambda: db["blob_chunks"].replace_one({"_id": chunk_id}, chunk, upsert=True))

    def _remove_orphan(self, sha: str, by_token: str) -> bool:
        """Doom, look again, then remove what is still doomed; a writer that needs it in between lifts the doom."""
        db = self._database
        db.call(lambda: db["blobs"].update_one({"_id": sha}, {"$set": {"doomed": True}}))
        if self._is_named(sha, by_token):
            db.call(lambda: db["blobs"].update_one({"_id": sha}, {"$unset": {"doomed": 1}}))
            return False
        gone = db.call(lambda: db["blobs"].find_one_and_delete({"_id": sha, "doomed": True}))
        # Order matters: a token seen among the chunks whose claim is gone has either its header by now or no owner.
        tokens = db.call(lambda: db["blob_chunks"].distinct("write", {"sha": sha}))
        claims = {"tokens": {"$in": tokens}, "token": {"$ne": by_token}}
        live = db.call(lambda: db["claims"].distinct("tokens", claims))
        header = db.call(lambda: db["blobs"].find_one({"_id": sha}, {"write": 1}))
        dead = set(tokens) - set(live) - ({header["write"]} if header else set())
        if dead:
            db.call(lambda: db["blob_chunks"].delete_many({"sha": sha, "write": {"$in": sorted(dead)}}))
        return gone is not None

    def _is_named(self, sha: str, by_token: str) -> bool:
        db = self._database
        # The claims first: a writer that finishes between the two looks is found by the second one.
        query = {"blobs": sha, "token": {"$ne": by_token}}
        if db.call(lambda: db["claims"].find_one(query, {"_id": 1})) is not None:
            return True
        return is_named_by_document(db, sha)


def is_named_by_document(database: Database, sha: str) -> bool:
    """Whether a result or a dataset refers to an array."""
    named = (database.call(lambda name=name: database[name].find_one({"blobs": sha}, {"_id": 1})) for name in NAMING)  # type: ignore[misc]
    return any(row is not None for row in named)


def _checked_name(name: Any, path: str) -> str:
    if not isinstance(name, str):
        raise StoreError(f"{path} has the key {name!r}, a {type(name).__name__}; keys of stored values are strings")
    if name in (_INLINE, _BLOB) or name.startswith("$") or "\0" in name:
        raise StoreError(f"{path} has the key {name!r}, which is reserved; rename it")
    return name


def _pack_array(array: np.ndarray, large: dict[str, np.ndarray] | None, path: str, limit: int) -> dict[str, Any]:
    if array.dtype.kind not in _DTYPE_KINDS:
        raise StoreError(f"{path} is an array of {array.dtype}; arrays of numbers, booleans or text can be stored")
    described = {"dtype": _little_endian(array).dtype.str, "shape": list(array.shape)}
    if large is None or array.nbytes < limit:
        return {_INLINE: 1, **described, "data": Binary(_bytes(array))}
    sha = array_key(array)
    large[sha] = array
    return {_BLOB: sha, **described}


def _little_endian(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _bytes(array: np.ndarray) -> bytes:
    return _little_endian(array).tobytes(order="C")


def _from_bytes(data: bytes, dtype: str, shape: Iterable[int]) -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.kind not in _DTYPE_KINDS:
        raise StoreError(f"a stored array claims the type {dtype!r}; the store is damaged")
    return np.frombuffer(data, dtype=kind).reshape(tuple(shape)).copy()  # a copy can be written to

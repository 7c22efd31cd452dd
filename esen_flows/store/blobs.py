"""Arrays in MongoDB: a small one is inside its document, a large one is stored once under the hash of its content.

A large array is a header in `blobs` and chunks in `blob_chunks`. The chunks are written first, then the header, then
the document that names the array, so that a reader never finds a reference to a half-written array. Every writer writes
chunks of its own (field `write`), so that removing what a dead writer left cannot damage the array of a living one.
"""

import math
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from bson import Binary
from pymongo.errors import DuplicateKeyError

from esen_flows.errors import StoreError
from esen_flows.schemas.keys import array_key
from esen_flows.store.claims import Claim, Claims
from esen_flows.store.database import Database
from esen_flows.store.reading import find_all, find_one

INLINE_LIMIT_BYTES = 256_000
CHUNK_BYTES = 8 * 2**20  # MongoDB accepts documents of up to 16 MB
NAMING = ("results", "datasets")  # collections whose documents list in `blobs` the arrays that they refer to
PENDING_DELETE = "doomed"  # field of a header that is about to be removed; stores of earlier versions have this name
_DTYPE_KINDS = "biufcUS"
_SHA = re.compile("[0-9a-f]{64}")
_MOST_DIMENSIONS = 32
_INLINE, _BLOB = "__array__", "__blob__"
# Most values of a document are stored as they are. Testing for these types first halves the time of an import.
_PLAIN = frozenset((bool, float, str, bytes, datetime, type(None)))


@dataclass(frozen=True)
class BlobReference:
    """A large array that was not loaded.

    Attributes
    ----------
    sha
        Content key of the array, from `array_key`.
    dtype
        Little-endian numpy type, such as "<f8".
    shape
        Shape of the array.
    """

    sha: str
    dtype: str
    shape: tuple[int, ...]


def pack(
    value: Any, large: dict[str, np.ndarray] | None = None, path: str = "output", inline_bytes: int | None = None
) -> Any:
    """A value in the form that BSON can hold: arrays and numpy scalars are converted, tuples become lists.

    Parameters
    ----------
    value
        Nested dictionaries (string keys), lists and tuples of arrays, numbers, strings, bytes, dates and None.
    large
        Receives the arrays over 256 kB by their content keys; None: all arrays stay inline.
    path
        Name of the value in error messages.
    inline_bytes
        Size in bytes from which an array is not inline, instead of 256 kB.

    Returns
    -------
    Any
        The converted value.

    Raises
    ------
    StoreError
        A part of the value cannot be stored; the message says which.
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
    """The value that `pack` has converted.

    Parameters
    ----------
    value
        Value from the database.
    load
        Returns the array of a reference; None leaves the references.

    Returns
    -------
    Any
        The value, with arrays that can be written to.

    Raises
    ------
    StoreError
        An array has a type that `pack` does not store.
    """
    if isinstance(value, list):
        return [unpack(item, load) for item in value]
    if not isinstance(value, dict):
        return value
    if _INLINE in value:
        return _from_bytes(value.get("data"), *_described(value))
    if _BLOB in value:
        sha = value[_BLOB]
        if not isinstance(sha, str) or not _SHA.fullmatch(sha):
            raise StoreError(f"a document names the array {str(sha)[:80]!r}, which is no key; the store is damaged")
        reference = BlobReference(sha, *_described(value))
        return reference if load is None else load(reference)
    return {name: unpack(item, load) for name, item in value.items()}


class BlobStore:
    """Large arrays by the hash of their content.

    Parameters
    ----------
    database
        Open database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, sha: str, array: np.ndarray, write: str) -> None:
        """Store an array unless it is stored already.

        Parameters
        ----------
        sha
            Content key of the array. The claim of the writer lists it already, so that the chunks are found and
            removed if this process is killed.
        array
            Array of any shape.
        write
            Token of the writer's claim.
        """
        db = self._database
        data = _bytes(array)
        pieces = range(0, max(len(data), 1), CHUNK_BYTES)
        header = {
            "_id": sha, "dtype": _little_endian(array).dtype.str, "shape": list(array.shape), "bytes": len(data),
            "chunks": len(pieces), "write": write, "created_at": datetime.now(UTC),
        }  # fmt: skip
        written = False
        while True:
            # One operation finds the array and cancels a removal that has only been announced.
            found = db.call(lambda: db["blobs"].find_one_and_update({"_id": sha}, {"$unset": {PENDING_DELETE: 1}}))
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
                continue  # another writer stored the same array meanwhile, or this insertion was repeated

    def repair(self, sha: str, array: np.ndarray) -> None:
        """Store an array that a document already names, and of which another process may have removed a part.

        Parameters
        ----------
        sha
            Content key of the array.
        array
            Array of any shape.
        """
        db = self._database
        reference = BlobReference(sha, _little_endian(array).dtype.str, array.shape)
        try:
            self.get(reference)
        except StoreError:
            db.call(lambda: db["blobs"].delete_one({"_id": sha}))
            self.put(sha, array, uuid.uuid4().hex)

    def get(self, reference: BlobReference) -> np.ndarray:
        """The array of a reference, checked against its content key.

        Parameters
        ----------
        reference
            Reference from a document.

        Returns
        -------
        np.ndarray
            The array, which can be written to.

        Raises
        ------
        StoreError
            The array is missing or damaged.
        """
        db = self._database
        header = find_one(db, "blobs", {"_id": reference.sha})
        if header is None:
            raise StoreError(f"array {reference.sha} is named by a document but missing; ask for the result again")
        query = {"sha": reference.sha, "write": header["write"]}
        chunks = find_all(db, "blob_chunks", query, sort=[("n", 1)])
        data = b"".join(chunk["data"] for chunk in chunks)
        if len(data) != header["bytes"]:
            raise StoreError(f"array {reference.sha} has {len(data)} of {header['bytes']} bytes; the store is damaged")
        array = _from_bytes(data, reference.dtype, reference.shape)
        if array_key(array) != reference.sha:
            raise StoreError(f"array {reference.sha} does not match its checksum; the store is damaged")
        return array

    def remove_orphans(self, shas: Iterable[str], by_token: str = "") -> list[str]:
        """Remove arrays that no result, dataset or claim names.

        Parameters
        ----------
        shas
            Content keys of arrays that may be unused.
        by_token
            Token of a claim that does not count, because its holder is removing the arrays that it lists.

        Returns
        -------
        list of str
            Content keys of the arrays that were removed.
        """
        return [sha for sha in dict.fromkeys(shas) if self._remove_orphan(sha, by_token)]

    def _put_chunk(self, chunk_id: str, chunk: dict[str, Any]) -> None:
        db = self._database
        db.call(lambda: db["blob_chunks"].replace_one({"_id": chunk_id}, chunk, upsert=True))

    def _remove_orphan(self, sha: str, by_token: str) -> bool:
        """Mark the array, look for its name again, and remove it if it is still marked.

        A writer that needs the array in between removes the mark (see `put`).
        """
        db = self._database
        db.call(lambda: db["blobs"].update_one({"_id": sha}, {"$set": {PENDING_DELETE: True}}))
        # The claims first: a writer that finishes between the two queries is found by the second one.
        listed = {"blobs": sha, "token": {"$ne": by_token}}
        if find_one(db, "claims", listed, {"_id": 1}) or is_named_by_document(db, sha):
            db.call(lambda: db["blobs"].update_one({"_id": sha}, {"$unset": {PENDING_DELETE: 1}}))
            return False
        removed = db.call(lambda: db["blobs"].find_one_and_delete({"_id": sha, PENDING_DELETE: True}))
        # The order matters. The chunks are read first, then the claims, then the header: a writer that has no claim any
        # more has either finished, so that its header is found, or died.
        tokens = db.call(lambda: db["blob_chunks"].distinct("write", {"sha": sha}))
        claims = {"tokens": {"$in": tokens}, "token": {"$ne": by_token}}
        live = db.call(lambda: db["claims"].distinct("tokens", claims))
        header = find_one(db, "blobs", {"_id": sha}, {"write": 1})
        dead = set(tokens) - set(live) - ({header["write"]} if header else set())
        if dead:
            db.call(lambda: db["blob_chunks"].delete_many({"sha": sha, "write": {"$in": sorted(dead)}}))
        return removed is not None


@contextmanager
def announced_arrays(
    database: Database, claims: Claims, shas: Sequence[str], array: Callable[[str], np.ndarray]
) -> Iterator[Claim]:
    """Store arrays, protected by a claim that lists them while the block writes the documents that name them.

    Parameters
    ----------
    database
        Open database.
    claims
        Claims of this process.
    shas
        Content keys of the arrays.
    array
        Returns the array of a content key.

    Yields
    ------
    Claim
        The claim. After an error in the block, arrays that no document names are removed.
    """
    blobs = BlobStore(database)
    claim = claims.try_claim(f"arrays {uuid.uuid4().hex}")
    assert claim is not None  # the random name is claimed by nobody else
    try:
        claims.announce_blobs(claim, shas)
        for sha in shas:
            blobs.put(sha, array(sha), claim.token)
        yield claim
    except BaseException:
        blobs.remove_orphans(shas, by_token=claim.token)
        claims.forget(claim)
        raise
    if not claims.forget(claim):
        # Another process considered this one dead and may have removed the arrays before documents named them.
        for sha in shas:
            if is_named_by_document(database, sha):
                blobs.repair(sha, array(sha))


def is_named_by_document(database: Database, sha: str) -> bool:
    """Whether a result or a dataset refers to an array.

    Parameters
    ----------
    database
        Open database.
    sha
        Content key of the array.

    Returns
    -------
    bool
        True if a document lists the array.
    """
    return any(find_one(database, name, {"blobs": sha}, {"_id": 1}) for name in NAMING)


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


def _described(value: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    """Type and shape of a stored array, checked before anything of this size is made."""
    dtype, shape = value.get("dtype"), value.get("shape")
    try:
        known = isinstance(dtype, str) and np.dtype(dtype).kind in _DTYPE_KINDS and "," not in dtype
    except (TypeError, ValueError, SyntaxError):
        known = False
    if not known:
        raise StoreError(f"a stored array claims the type {str(dtype)[:80]!r}; the store is damaged")
    sizes = all(isinstance(size, int) and size >= 0 for size in shape) if isinstance(shape, list | tuple) else False
    if not sizes or len(shape) > _MOST_DIMENSIONS:  # type: ignore[arg-type]
        raise StoreError(f"a stored array claims the shape {str(shape)[:80]}; the store is damaged")
    return str(dtype), tuple(shape)  # type: ignore[arg-type]


def _from_bytes(data: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    kind = np.dtype(dtype)
    if not isinstance(data, bytes) or len(data) != kind.itemsize * math.prod(shape):
        raise StoreError(
            f"a stored array of {shape} {dtype} does not have the bytes of its shape; the store is damaged"
        )
    if kind.itemsize == 0:  # of empty texts
        return np.zeros(shape, dtype=kind)
    return np.frombuffer(data, dtype=kind).reshape(shape).copy()  # a copy can be written to

"""How large the store is, and what of it nobody needs any more."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from esen_flows.store.blobs import NAMING, BlobStore, is_named_by_document
from esen_flows.store.bulk import batches
from esen_flows.store.database import Database, Row
from esen_flows.store.results import Store

T = TypeVar("T")
_BATCH = 500


@dataclass(frozen=True)
class CollectionSize:
    """One collection.

    Attributes
    ----------
    name
        of the collection.
    documents
        how many.
    data_bytes
        what the documents are long, uncompressed.
    disk_bytes
        what they take on disk, compressed.
    index_bytes
        what the indexes take on disk.
    """

    name: str
    documents: int
    data_bytes: int
    disk_bytes: int
    index_bytes: int


@dataclass(frozen=True)
class Garbage:
    """What nobody needs any more.

    Attributes
    ----------
    attempts
        superseded attempts of results that have a current one.
    blobs
        large arrays that no result, dataset or claim names, or that only those attempts name.
    blob_bytes
        of these arrays.
    chunks
        pieces of arrays that dead writers left.
    """

    attempts: int
    blobs: int
    blob_bytes: int
    chunks: int


def size(database: Database) -> list[CollectionSize]:
    """The size of every collection, the largest on disk first."""
    stages: list[Row] = [{"$collStats": {"storageStats": {}}}]
    sizes = []
    for name in database.call(lambda: database.collection_names()):
        rows = database.call(lambda name=name: list(database[name].aggregate(stages)))  # type: ignore[misc]
        stats = rows[0]["storageStats"]
        sizes.append(CollectionSize(name, stats["count"], stats["size"], stats["storageSize"], stats["totalIndexSize"]))
    return sorted(sizes, key=lambda one: (-one.disk_bytes, one.name))


def collect_garbage(store: Store, *, apply: bool) -> Garbage:
    """Find, and remove if asked to, superseded attempts and what dead writers left; safe beside live writers.

    Parameters
    ----------
    store
        an open store.
    apply
        False only counts.

    Returns
    -------
    Garbage
        What was found (with `apply`, removed).
    """
    database, blobs = store.database, BlobStore(store.database)
    if apply:
        store.sweep()  # claims of the dead hold on to what they had announced
    attempts = 0
    superseded: set[object] = set()
    for ids in _superseded(database):
        if apply:
            attempts += _remove_attempts(database, ids)
        else:
            attempts += len(ids)
            superseded.update(ids)
    orphans = orphan_bytes = 0
    for batch in _orphans(database, superseded):
        gone = set(blobs.remove_orphans(batch)) if apply else set(batch)
        orphans += len(gone)
        orphan_bytes += sum(batch[sha] for sha in gone)
    chunks = sum(_leftovers(database, sha, writes, apply) for sha, writes in _unfinished(database))
    return Garbage(attempts, orphans, orphan_bytes, chunks)


def ids_after(
    database: Database, collection: str, fields: Row, query: Row | None = None, length: int = _BATCH
) -> Iterator[list[Row]]:
    """All documents in batches, in the order of their ids; outlives a killed server, unlike a cursor.

    Parameters
    ----------
    fields
        projection.
    query
        which documents; all of them if not given.
    length
        of a batch.
    """
    last: list[Row] = []
    while True:
        after: Row = {**(query or {}), **({"_id": {"$gt": last[-1]["_id"]}} if last else {})}
        last = database.call(
            lambda after=after: list(database[collection].find(after, fields).sort("_id", 1).limit(length))  # type: ignore[misc]
        )
        if not last:
            return
        yield last


def _superseded(database: Database) -> Iterator[list[object]]:
    """Ids of attempts that are not current, of keys that have a current one and that nobody has claimed.

    Without a current one, or with a claim, a writer may be between inserting an attempt and making it the current one.
    """
    for rows in ids_after(database, "results", {"key": 1}, {"current": False}):
        keys = {"$in": sorted({row["key"] for row in rows})}
        # The claims first: an attempt whose claim is gone by now is as current as it will ever be.
        claimed = set(database.call(lambda keys=keys: database["claims"].distinct("_id", {"_id": keys})))  # type: ignore[misc]
        query = {"key": keys, "current": True}
        settled = set(database.call(lambda query=query: database["results"].distinct("key", query)))  # type: ignore[misc]
        yield [row["_id"] for row in rows if row["key"] in settled - claimed]


def _remove_attempts(database: Database, ids: list[object]) -> int:
    # One that was made current again meanwhile is no longer found by this.
    query = {"_id": {"$in": ids}, "current": False}
    return database.call(lambda: database["results"].delete_many(query)).deleted_count


def _orphans(database: Database, superseded: set[object]) -> Iterator[dict[str, int]]:
    """Batches of {sha: bytes} of arrays that nobody names, apart from superseded attempts."""
    for rows in ids_after(database, "blobs", {"bytes": 1}):
        shas = {"$in": [row["_id"] for row in rows]}
        # First the claims, then the documents: a writer that has finished in between is found among the latter.
        named = set(database.call(lambda shas=shas: database["claims"].distinct("blobs", {"blobs": shas})))  # type: ignore[misc]
        for name in NAMING:
            for row in database.call(
                lambda shas=shas, name=name: list(database[name].find({"blobs": shas}, {"blobs": 1}))  # type: ignore[misc]
            ):
                if row["_id"] not in superseded:
                    named.update(row["blobs"])
        yield {row["_id"]: row["bytes"] for row in rows if row["_id"] not in named}


def _unfinished(database: Database) -> Iterator[tuple[str, set[str]]]:
    """Arrays with pieces by others than who finished them: the key, and the writers of all pieces."""
    for group in batches(_writes(database), _BATCH):
        shas = {"$in": [sha for sha, _ in group]}
        rows = database.call(lambda shas=shas: list(database["blobs"].find({"_id": shas}, {"write": 1})))  # type: ignore[misc]
        finished = {row["_id"]: {row["write"]} for row in rows}
        yield from ((sha, writes) for sha, writes in group if writes != finished.get(sha))


def _writes(database: Database) -> Iterator[tuple[str, set[str]]]:
    # The id of a piece is sha:write:number, so that no piece needs to be read.
    names = (row["_id"].split(":") for rows in ids_after(database, "blob_chunks", {"_id": 1}) for row in rows)
    for sha, pieces in groupby(names, key=lambda name: name[0]):
        yield sha, {piece[1] for piece in pieces}


def _leftovers(database: Database, sha: str, writes: set[str], apply: bool) -> int:
    """How many pieces of an array belong to a writer that is dead and was not the one that finished it."""
    # The order matters: the header of a writer whose claim is gone is there by now, or never will be.
    live = set(database.call(lambda: database["claims"].distinct("tokens", {"tokens": {"$in": sorted(writes)}})))
    header = database.call(lambda: database["blobs"].find_one({"_id": sha}, {"write": 1}))
    if header is None and is_named_by_document(database, sha):
        return 0  # somebody may be repairing it
    dead = sorted(writes - live - ({header["write"]} if header else set()))
    query = {"sha": sha, "write": {"$in": dead}}
    if apply:
        return database.call(lambda: database["blob_chunks"].delete_many(query)).deleted_count
    return database.call(lambda: database["blob_chunks"].count_documents(query))

"""How large the store is, and what of it is no longer needed."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from esen_flows.store.blobs import NAMING, BlobStore, is_named_by_document
from esen_flows.store.bulk import batches
from esen_flows.store.database import Database, Row
from esen_flows.store.reading import distinct, find_all, in_batches
from esen_flows.store.results import Store

_BATCH = 500


@dataclass(frozen=True)
class CollectionSize:
    """Size of one collection.

    Attributes
    ----------
    name
        Name of the collection.
    documents
        Number of documents.
    data_bytes
        Length of the documents, uncompressed.
    disk_bytes
        Space that the documents take on disk, compressed.
    index_bytes
        Space that the indexes take on disk.
    """

    name: str
    documents: int
    data_bytes: int
    disk_bytes: int
    index_bytes: int


@dataclass(frozen=True)
class Garbage:
    """Number and size of what is no longer needed.

    Attributes
    ----------
    attempts
        Superseded attempts of results that have a current attempt.
    blobs
        Large arrays that no result, dataset or claim names, or that only superseded attempts name.
    blob_bytes
        Size of these arrays.
    chunks
        Chunks of arrays left by writers that were killed.
    """

    attempts: int
    blobs: int
    blob_bytes: int
    chunks: int


def size(database: Database) -> list[CollectionSize]:
    """The size of every collection.

    Parameters
    ----------
    database
        Open database.

    Returns
    -------
    list of CollectionSize
        Sizes, the largest on disk first.
    """
    stages: list[Row] = [{"$collStats": {"storageStats": {}}}]
    sizes = []
    for name in database.collection_names():
        rows = database.call(lambda name=name: list(database[name].aggregate(stages)))  # type: ignore[misc]
        stats = rows[0]["storageStats"]
        sizes.append(CollectionSize(name, stats["count"], stats["size"], stats["storageSize"], stats["totalIndexSize"]))
    return sorted(sizes, key=lambda one: (-one.disk_bytes, one.name))


def collect_garbage(store: Store, *, apply: bool) -> Garbage:
    """Count superseded attempts and leftovers of killed writers, and remove them on request; safe beside live writers.

    Parameters
    ----------
    store
        Open store.
    apply
        Whether to remove what is found; False only counts.

    Returns
    -------
    Garbage
        What was found; with `apply`, what was removed.
    """
    database, blobs = store.database, BlobStore(store.database)
    if apply:
        store.sweep()  # as long as the claim of a dead writer exists, it protects the arrays announced in it
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
        removed = set(blobs.remove_orphans(batch)) if apply else set(batch)
        orphans += len(removed)
        orphan_bytes += sum(batch[sha] for sha in removed)
    chunks = sum(_leftovers(database, sha, writes, apply) for sha, writes in _unfinished(database))
    return Garbage(attempts, orphans, orphan_bytes, chunks)


def _superseded(database: Database) -> Iterator[list[object]]:
    """Ids of attempts that are not current, of keys that have a current attempt and no claim.

    Without a current attempt, or with a claim, a writer may be between inserting an attempt and making it current.
    """
    for rows in in_batches(database, "results", {"key": 1}, {"current": False}):
        keys = {"$in": sorted({row["key"] for row in rows})}
        # The claims first: an attempt whose claim has ended by now does not become current any more.
        claimed = distinct(database, "claims", "_id", {"_id": keys})
        settled = distinct(database, "results", "key", {"key": keys, "current": True})
        yield [row["_id"] for row in rows if row["key"] in settled - claimed]


def _remove_attempts(database: Database, ids: list[object]) -> int:
    # An attempt that has become current again in the meantime does not match this query.
    query = {"_id": {"$in": ids}, "current": False}
    return database.call(lambda: database["results"].delete_many(query)).deleted_count


def _orphans(database: Database, superseded: set[object]) -> Iterator[dict[str, int]]:
    """Batches of {sha: bytes} of arrays that only superseded attempts name, or nothing at all."""
    for rows in in_batches(database, "blobs", {"bytes": 1}):
        shas = {"$in": [row["_id"] for row in rows]}
        # The claims first, then the documents: the document of a writer that finishes in between is found.
        named = distinct(database, "claims", "blobs", {"blobs": shas})
        for name in NAMING:
            for row in find_all(database, name, {"blobs": shas}, {"blobs": 1}):
                if row["_id"] not in superseded:
                    named.update(row["blobs"])
        yield {row["_id"]: row["bytes"] for row in rows if row["_id"] not in named}


def _unfinished(database: Database) -> Iterator[tuple[str, set[str]]]:
    """Keys of arrays that have chunks of writers other than the one that finished them, and all their writers."""
    for group in batches(_writes(database), _BATCH):
        headers = find_all(database, "blobs", {"_id": {"$in": [sha for sha, _ in group]}}, {"write": 1})
        finished = {row["_id"]: {row["write"]} for row in headers}
        yield from ((sha, writes) for sha, writes in group if writes != finished.get(sha))


def _writes(database: Database) -> Iterator[tuple[str, set[str]]]:
    # The id of a chunk is sha:write:number, so that no chunk needs to be read.
    ids = (row["_id"].split(":") for rows in in_batches(database, "blob_chunks", {"_id": 1}) for row in rows)
    for sha, chunks in groupby(ids, key=lambda parts: parts[0]):
        yield sha, {parts[1] for parts in chunks}


def _leftovers(database: Database, sha: str, writes: set[str], apply: bool) -> int:
    """Number of chunks of an array whose writer is dead and has not finished the array."""
    # The order matters: a writer whose claim has ended has written its header by now, or never will.
    live = distinct(database, "claims", "tokens", {"tokens": {"$in": sorted(writes)}})
    header = database.call(lambda: database["blobs"].find_one({"_id": sha}, {"write": 1}))
    if header is None and is_named_by_document(database, sha):
        return 0  # a writer may be repairing the array
    dead = sorted(writes - live - ({header["write"]} if header else set()))
    query = {"sha": sha, "write": {"$in": dead}}
    if apply:
        return database.call(lambda: database["blob_chunks"].delete_many(query)).deleted_count
    return database.call(lambda: database["blob_chunks"].count_documents(query))

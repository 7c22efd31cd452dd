"""Results from one store into another by an archive: export and import."""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError

from esen_flows.errors import InputError
from esen_flows.store.blobs import BlobReference, BlobStore, unpack
from esen_flows.store.bulk import batches
from esen_flows.store.claims import Claims
from esen_flows.store.database import Database, Row, without_duplicates
from esen_flows.store.datasets import dataset_problems, insert_dataset, keys_of_datasets
from esen_flows.store.exchange.archive import Archive, ArchiveWriter
from esen_flows.store.models import add_models, model_problems
from esen_flows.store.results import Store
from esen_flows.store.upkeep.maintenance import ids_after
from esen_flows.store.upkeep.verify import references, result_problems, structure_problems

_BATCH = 100  # whole documents, which may have megabytes of inline arrays
_LABELS = ("material_ids", "tags")


@dataclass(frozen=True)
class Transferred:
    """How many documents and arrays were written."""

    results: int
    structures: int
    arrays: int
    datasets: int = 0


def export_archive(store: Store, path: Path, keys: Iterable[str] | None = None) -> Transferred:
    """Write results with all that they refer to into an archive; runs beside live writers.

    Parameters
    ----------
    store
        an open store.
    path
        of the archive, which must not exist.
    keys
        of results, which are exported in their current form together with the results that they start from; None:
        every result with all its attempts, every structure and every dataset. Of a large dataset that is what is known
        of it; its records stay in their folder.

    Raises
    ------
    InputError
        `path` exists.
    StoreError
        an array is missing or damaged.
    """
    database, blobs = store.database, BlobStore(store.database)
    arrays: set[str] = set()
    structures: set[str] = set()
    models: set[str] = set()
    datasets: set[str] = set()

    def noted(rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            arrays.update(row["blobs"])
            structures.add(row["structure_key"])
            models.add(row["model_key"])
            datasets.update(keys_of_datasets(row))
            yield row

    def with_arrays(rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            arrays.update(row["blobs"])
            yield row

    with ArchiveWriter(path) as archive:
        if keys is None:
            n_results = archive.add_rows("results", noted(_all(database, "results")))
            n_structures = archive.add_rows("structures", _all(database, "structures"))
        else:
            n_results = archive.add_rows("results", noted(_with_ancestors(database, keys)))
            n_structures = archive.add_rows("structures", _found(database, "structures", "_id", sorted(structures)))
        chosen = _all(database, "datasets") if keys is None else _found(database, "datasets", "_id", sorted(datasets))
        n_datasets = archive.add_rows("datasets", with_arrays(chosen))
        archive.add_rows("models", _found(database, "models", "_id", sorted(models)))
        for sha in sorted(arrays):
            header = database.call(lambda sha=sha: database["blobs"].find_one({"_id": sha}))  # type: ignore[misc]
            dtype, shape = (header["dtype"], tuple(header["shape"])) if header else ("<f8", ())
            archive.add_array(sha, blobs.get(BlobReference(sha, dtype, shape)))
    return Transferred(n_results, n_structures, len(arrays), n_datasets)


def import_archive(store: Store, path: Path) -> Transferred:
    """Add what an archive holds and the store does not have; what was added.

    The whole archive is checked before anything is written. A result that is there stays, unless it is a failure that
    may be tried again and the archive has an answer. An interrupted import is completed by repeating it.

    Raises
    ------
    InputError
        the archive is not whole, damaged, or of a newer version of this package; nothing was written.
    """
    database = store.database
    with Archive(path) as archive:
        _check(store, archive)
        n_structures = sum(_add_structures(database, batch) for batch in batches(archive.rows("structures"), _BATCH))
        add_models(database, archive.rows("models"))
        claims = Claims(database)
        results = 0
        try:
            n_datasets, arrays = _add_datasets(database, claims, archive)
            for batch in batches(archive.rows("results"), _BATCH):
                store.note_models((row["model_key"], row["model_label"]) for row in batch)
                added = _add_results(database, claims, archive, batch)
                results, arrays = results + added[0], arrays + added[1]
        finally:
            claims.close()
    return Transferred(results, n_structures, arrays, n_datasets)


def _all(database: Database, collection: str) -> Iterator[Row]:
    for rows in ids_after(database, collection, {}, length=_BATCH):
        yield from rows


def _found(database: Database, collection: str, field: str, values: Iterable[str], **query: bool) -> Iterator[Row]:
    for batch in batches(values, _BATCH):
        wanted: Row = {field: {"$in": batch}, **query}
        yield from database.call(lambda wanted=wanted: list(database[collection].find(wanted)))  # type: ignore[misc]


def _with_ancestors(database: Database, keys: Iterable[str]) -> Iterator[Row]:
    """The current results of these keys and of their parents, once each."""
    seen: set[str] = set()
    wanted = list(dict.fromkeys(keys))
    while wanted:
        seen.update(wanted)
        parents: set[str] = set()
        for row in _found(database, "results", "key", wanted, current=True):
            parents.add(row["parent_key"])
            yield row
        wanted = sorted(parents - seen)  # the key of a structure finds no result


def _check(store: Store, archive: Archive) -> None:
    """Refuse an archive of which anything could not be imported."""
    arrays = {}
    for sha in archive.arrays:
        array = archive.array(sha)
        arrays[sha] = (array.dtype.str, array.shape)
    for row in archive.rows("models"):
        for problem in model_problems(row):
            raise InputError(f"{archive.path} cannot be imported: {problem}")
    for row in archive.rows("structures"):
        problems = list(structure_problems(row))
        if problems or not all(name.isidentifier() for name in row):
            raise InputError(f"{archive.path} cannot be imported: {(problems or ['odd names of fields'])[0]}")
    for row in archive.rows("datasets"):
        lost = [sha for sha in row.get("blobs", ()) if sha not in arrays]
        problems = [*dataset_problems(row), *(f"array {sha} of dataset {row.get('_id')} is missing" for sha in lost)]
        if problems or not all(name.isidentifier() for name in row):
            raise InputError(f"{archive.path} cannot be imported: {(problems or ['odd names of fields'])[0]}")
    for row in archive.rows("results"):
        problems = list(result_problems(store, row))
        typed = isinstance(row.get("_id"), ObjectId) and type(row.get("attempt")) is int
        if problems or not typed or type(row.get("current")) is not bool:
            what = problems or [f"result {row.get('key')} is not as this package writes it"]
            raise InputError(f"{archive.path} cannot be imported: {what[0]}")
        for reference in references(unpack(row["output"])):
            if arrays.get(reference.sha) != (reference.dtype, reference.shape):
                raise InputError(f"{archive.path} cannot be imported: an array of result {row['key']} is missing")


def _add_structures(database: Database, rows: list[Row]) -> int:
    """Structures that were absent; the labels of others are added to theirs."""
    updates = []
    for row in rows:
        fields = {name: value for name, value in row.items() if name not in ("_id", *_LABELS)}
        labels = {name: {"$each": list(row.get(name, ()))} for name in _LABELS}
        updates.append(UpdateOne({"_id": row["_id"]}, {"$setOnInsert": fields, "$addToSet": labels}, upsert=True))
    known = {"_id": {"$in": [row["_id"] for row in rows]}}
    before = database.call(lambda: database["structures"].count_documents(known))
    while not database.call(lambda: without_duplicates(lambda: database["structures"].bulk_write(updates))):
        continue  # two upserts of one key at once: now it is there
    return len(rows) - before


def _add_datasets(database: Database, claims: Claims, archive: Archive) -> tuple[int, int]:
    """How many datasets, and arrays of theirs, were absent and are there now; names are added to the others'."""
    datasets = arrays = 0
    for row in archive.rows("datasets"):
        known = set(database.call(lambda row=row: database["blobs"].distinct("_id", {"_id": {"$in": row["blobs"]}})))  # type: ignore[misc]
        if insert_dataset(database, claims, row, archive.array):
            datasets, arrays = datasets + 1, arrays + len(set(row["blobs"]) - known)
    return datasets, arrays


def _add_results(database: Database, claims: Claims, archive: Archive, rows: list[Row]) -> tuple[int, int]:
    """How many of these results, and of their arrays, were absent and are there now."""
    ids = {"$in": [row["_id"] for row in rows]}
    there = set(database.call(lambda: database["results"].distinct("_id", {"_id": ids})))
    rows = [row for row in rows if row["_id"] not in there]
    shas = sorted({sha for row in rows for sha in row["blobs"]})
    if not shas:
        return _insert(database, rows), 0
    blobs = BlobStore(database)
    # As every writer does: announced in a claim, then the arrays, then the documents that name them.
    claim = claims.try_claim(f"import {uuid.uuid4().hex}")
    assert claim is not None  # nobody else draws this name
    added = inserted = 0
    try:
        claims.announce_blobs(claim, shas)
        known = set(database.call(lambda: database["blobs"].distinct("_id", {"_id": {"$in": shas}})))
        for sha in shas:
            blobs.put(sha, archive.array(sha), claim.token)
        inserted = _insert(database, rows)
        unneeded = blobs.remove_orphans(shas, by_token=claim.token) if inserted < len(rows) else []
        added = len(set(shas) - known - set(unneeded))
    except BaseException:
        blobs.remove_orphans(shas, by_token=claim.token)
        claims.forget(claim)
        raise
    if not claims.forget(claim):  # taken for dead, and cleared away after
        for sha in database.call(lambda: database["results"].distinct("blobs", {"blobs": {"$in": shas}})):
            if sha in shas:
                blobs.repair(sha, archive.array(sha))
    return inserted, added


def _insert(database: Database, rows: list[Row]) -> int:
    """Insert results unless their keys have an answer; how many were inserted."""
    keys = {"$in": sorted({row["key"] for row in rows})}
    known = set(database.call(lambda: database["results"].distinct("key", {"key": keys})))
    fresh = [row for row in rows if row["key"] not in known]
    if fresh:
        database.call(lambda: without_duplicates(lambda: database["results"].insert_many(fresh, ordered=False)))
    ids = {"$in": [row["_id"] for row in fresh]}
    there = set(database.call(lambda: database["results"].distinct("_id", {"_id": ids})))
    return len(there) + sum(_insert_alone(database, row) for row in rows if row["_id"] not in there)


def _insert_alone(database: Database, row: Row) -> bool:
    """Insert a result whose key has attempts already, unless one of them is as good."""
    inserted = False
    fields = {"attempt": 1, "current": 1, "failure": 1}
    while True:
        rows = database.call(lambda: list(database["results"].find({"key": row["key"]}, fields)))
        if any(other["_id"] == row["_id"] for other in rows):
            return inserted
        attempts = {other["attempt"] for other in rows}
        current = next((other for other in rows if other["current"]), None)
        new = row if row["attempt"] not in attempts else row | {"attempt": max(attempts) + 1}
        if not row["current"]:
            if new is not row:
                return False  # it is the history of another store
        elif current is not None:
            if _is_settled(current) or not _is_settled(row):
                return False
            old = {"_id": current["_id"]}
            database.call(lambda: database["results"].update_one(old, {"$set": {"current": False}}))  # noqa: B023
        with suppress(DuplicateKeyError):  # somebody was faster, or our insertion was repeated: look again
            database.call(lambda: database["results"].insert_one(new))  # noqa: B023
        inserted = True


def _is_settled(row: Row) -> bool:
    return row["failure"] is None or bool(row["failure"]["final"])

"""Results from one store into another through an archive: export and import."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from esen_flows.errors import InputError
from esen_flows.store.attempts import is_settled
from esen_flows.store.blobs import BlobReference, BlobStore, announced_arrays, unpack
from esen_flows.store.bulk import batches
from esen_flows.store.claims import Claims
from esen_flows.store.database import Database, Row
from esen_flows.store.datasets import dataset_problems, insert_dataset, keys_of_datasets
from esen_flows.store.exchange.archive import Archive, ArchiveWriter
from esen_flows.store.models import add_models, model_problems
from esen_flows.store.reading import distinct, find_all, in_batches
from esen_flows.store.results import Store
from esen_flows.store.rows import parents_of
from esen_flows.store.upkeep.verify import references, result_problems, structure_problems
from esen_flows.store.writing import duplicates_of, upsert

_BATCH = 100  # whole documents, which may have megabytes of inline arrays
_LABELS = ("material_ids", "tags")


@dataclass(frozen=True)
class Transferred:
    """Numbers of documents and arrays that were written.

    Attributes
    ----------
    results
        Number of results.
    structures
        Number of structures.
    arrays
        Number of large arrays.
    datasets
        Number of datasets.
    """

    results: int
    structures: int
    arrays: int
    datasets: int = 0


def export_archive(store: Store, path: Path, keys: Iterable[str] | None = None) -> Transferred:
    """Write results and everything that they refer to into an archive; live writers may go on.

    Parameters
    ----------
    store
        Open store.
    path
        Archive to write; it must not exist.
    keys
        Keys of results. Exported are their current attempts and the results that they start from. None: every result
        with all its attempts, every structure and every dataset. The records of a large dataset stay in their folder.

    Returns
    -------
    Transferred
        What was written.

    Raises
    ------
    InputError
        `path` exists.
    StoreError
        An array is missing or damaged.
    """
    database, blobs = store.database, BlobStore(store.database)
    arrays: set[str] = set()
    structures: set[str] = set()
    models: set[str] = set()
    datasets: set[str] = set()

    def noting(rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            arrays.update(row["blobs"])
            if "structure_key" in row:  # a result, not a dataset
                structures.add(row["structure_key"])
                models.add(row["model_key"])
                datasets.update(keys_of_datasets(row))
            yield row

    def referred(collection: str, ids: set[str]) -> Iterator[Row]:
        return _all(database, collection) if keys is None else _found(database, collection, "_id", sorted(ids))

    with ArchiveWriter(path) as archive:
        results = _all(database, "results") if keys is None else _with_ancestors(database, keys)
        n_results = archive.add_rows("results", noting(results))
        n_structures = archive.add_rows("structures", referred("structures", structures))
        n_datasets = archive.add_rows("datasets", noting(referred("datasets", datasets)))
        archive.add_rows("models", _found(database, "models", "_id", sorted(models)))
        for sha in sorted(arrays):
            header = database.call(lambda sha=sha: database["blobs"].find_one({"_id": sha}))  # type: ignore[misc]
            dtype, shape = (header["dtype"], tuple(header["shape"])) if header else ("<f8", ())
            archive.add_array(sha, blobs.get(BlobReference(sha, dtype, shape)))
    return Transferred(n_results, n_structures, len(arrays), n_datasets)


def import_archive(store: Store, path: Path) -> Transferred:
    """Add the documents and arrays of an archive that the store does not have.

    The whole archive is checked before anything is written. A stored result is kept, unless it is a failure that may be
    tried again and the archive has a finished result or a final failure. Repeating an interrupted import completes it.

    Parameters
    ----------
    store
        Open store.
    path
        Archive to read.

    Returns
    -------
    Transferred
        What was added.

    Raises
    ------
    InputError
        The archive is incomplete, damaged, or of a newer version of this package; nothing was written.
    """
    database = store.database
    with Archive(path) as archive:
        for problem in _problems(store, archive):
            raise InputError(f"{path} cannot be imported: {problem}")
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
    for rows in in_batches(database, collection, {}, length=_BATCH):
        yield from rows


def _found(database: Database, collection: str, field: str, values: Iterable[str], **query: bool) -> Iterator[Row]:
    for batch in batches(values, _BATCH):
        yield from find_all(database, collection, {field: {"$in": batch}, **query})


def _with_ancestors(database: Database, keys: Iterable[str]) -> Iterator[Row]:
    """The current results of these keys and of all results that they start from, each once."""
    seen: set[str] = set()
    wanted = list(dict.fromkeys(keys))
    while wanted:
        seen.update(wanted)
        parents: set[str] = set()
        for row in _found(database, "results", "key", wanted, current=True):
            parents.update(parents_of(row))
            yield row
        wanted = sorted(parents - seen)  # a structure may be a parent too, but its key finds no result


def _problems(store: Store, archive: Archive) -> Iterator[str]:
    """Reasons why an archive cannot be imported whole."""
    arrays = {}
    for sha in archive.arrays:
        array = archive.array(sha)
        arrays[sha] = (array.dtype.str, array.shape)
    for row in archive.rows("models"):
        yield from model_problems(row)
    for row in archive.rows("structures"):
        yield from structure_problems(row)
        yield from _unknown_names(row)
    for row in archive.rows("datasets"):
        yield from dataset_problems(row)
        missing = [sha for sha in row.get("blobs", ()) if sha not in arrays]
        yield from (f"array {sha} of dataset {row.get('_id')} is missing" for sha in missing)
        yield from _unknown_names(row)
    for row in archive.rows("results"):
        yield from result_problems(store, row)
        types: dict[str, type] = {"_id": ObjectId, "attempt": int, "current": bool}
        if any(type(row.get(name)) is not expected for name, expected in types.items()):
            yield f"result {row.get('key')} is not as this package writes it"
        for reference in references(unpack(row["output"])):
            if arrays.get(reference.sha) != (reference.dtype, reference.shape):
                yield f"an array of result {row['key']} is missing"


def _unknown_names(row: Row) -> Iterator[str]:
    # The names of fields become part of an update: none may be an operator or a path.
    yield from (f"{row.get('_id')} has a field of the name {name!r}" for name in row if not name.isidentifier())


def _add_structures(database: Database, rows: list[Row]) -> int:
    """Add structures, and labels to structures that are stored already; the number of structures that were added."""
    updates = []
    for row in rows:
        fields = {name: value for name, value in row.items() if name not in ("_id", *_LABELS)}
        labels = {name: {"$each": list(row.get(name, ()))} for name in _LABELS}
        updates.append((row["_id"], {"$setOnInsert": fields, "$addToSet": labels}))
    known = {"_id": {"$in": [row["_id"] for row in rows]}}
    before = database.call(lambda: database["structures"].count_documents(known))
    upsert(database, "structures", updates)
    return len(rows) - before


def _add_datasets(database: Database, claims: Claims, archive: Archive) -> tuple[int, int]:
    """Add datasets, and names to datasets that are stored already; the numbers of datasets and arrays added."""
    datasets = arrays = 0
    for row in archive.rows("datasets"):
        known = distinct(database, "blobs", "_id", {"_id": {"$in": row["blobs"]}})
        if insert_dataset(database, claims, row, archive.array):
            datasets, arrays = datasets + 1, arrays + len(set(row["blobs"]) - known)
    return datasets, arrays


def _add_results(database: Database, claims: Claims, archive: Archive, rows: list[Row]) -> tuple[int, int]:
    """Add results and their arrays; the numbers of results and arrays added."""
    stored = distinct(database, "results", "_id", {"_id": {"$in": [row["_id"] for row in rows]}})
    rows = [row for row in rows if row["_id"] not in stored]
    shas = sorted({sha for row in rows for sha in row["blobs"]})
    if not shas:
        return _insert(database, rows), 0
    known = distinct(database, "blobs", "_id", {"_id": {"$in": shas}})
    with announced_arrays(database, claims, shas, archive.array) as claim:
        inserted = _insert(database, rows)
        unneeded: list[str] = []
        if inserted < len(rows):
            unneeded = BlobStore(database).remove_orphans(shas, by_token=claim.token)
    return inserted, len(set(shas) - known - set(unneeded))


def _insert(database: Database, rows: list[Row]) -> int:
    """Insert results unless their keys are settled; the number inserted."""
    known = distinct(database, "results", "key", {"key": {"$in": sorted({row["key"] for row in rows})}})
    fresh = [row for row in rows if row["key"] not in known]
    if fresh:
        database.call(lambda: duplicates_of(database["results"].insert_many, fresh))
    stored = distinct(database, "results", "_id", {"_id": {"$in": [row["_id"] for row in fresh]}})
    return len(stored) + sum(_insert_further(database, row) for row in rows if row["_id"] not in stored)


def _insert_further(database: Database, row: Row) -> bool:
    """Insert a result whose key has attempts already, unless one of these settles the key; whether it was inserted."""
    inserted = False
    while True:
        others = find_all(database, "results", {"key": row["key"]}, {"attempt": 1, "current": 1, "failure": 1})
        if any(other["_id"] == row["_id"] for other in others):
            return inserted
        attempts = {other["attempt"] for other in others}
        current = next((other for other in others if other["current"]), None)
        new: dict[str, Any] = row
        if row["attempt"] in attempts:
            if not row["current"]:
                return False  # a superseded attempt of another store, beside this store's own history
            new = row | {"attempt": max(attempts) + 1}
        if row["current"] and current is not None:
            if is_settled(current) or not is_settled(row):
                return False
            old = {"_id": current["_id"]}
            database.call(lambda: database["results"].update_one(old, {"$set": {"current": False}}))  # noqa: B023
        with suppress(DuplicateKeyError):  # another writer was faster, or our insertion was repeated: look again
            database.call(lambda: database["results"].insert_one(new))  # noqa: B023
        inserted = True

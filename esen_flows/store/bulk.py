"""Many results and structures at once: insert-if-absent as everywhere, a thousand to a round trip.

Imports claim nothing, because nothing is computed: a result that is there already stays, one whose computation somebody
has claimed is there when they look again, and a failure that may be tried again is superseded.
"""

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from ase import Atoms
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from esen_flows.errors import ServerUnavailableError
from esen_flows.schemas.documents import ResultDocument
from esen_flows.store.claims import Claim
from esen_flows.store.database import Row
from esen_flows.store.results import Store
from esen_flows.store.rows import packed, row_of_document, structure_update

BATCH = 1000
_DUPLICATE = 11000
_WRITERS = 2
T = TypeVar("T")
R = TypeVar("R")


def insert_results(store: Store, documents: Iterable[ResultDocument]) -> int:
    """Store results whose keys have none yet; how many these were.

    Parameters
    ----------
    documents
        finished or failed; `attempt` and `current` are set by the store. Those with arrays over 256 kB are
        stored one by one.

    Raises
    ------
    StoreError
        the server refuses, or a document holds something that cannot be stored; batches before it are kept.
    """
    return sum(_overlapped(lambda batch: _insert_batch(store, batch), batches(documents)))


def commit_many(store: Store, results: Sequence[tuple[Claim, ResultDocument]]) -> set[str]:
    """`Store.commit` of many results, in a few round trips where nothing stands in the way; keys that were spooled.

    Parameters
    ----------
    results
        claims, which end here, and what was computed.

    Raises
    ------
    StoreError
        as `Store.commit`.
    """
    # Large arrays and further attempts go the long way, one by one.
    packs = [(claim, document, *packed(claim, document)) for claim, document in results]
    plain = [(claim, document, row) for claim, document, row, large in packs if not large and not claim.forced]
    stored, spooled = _insert_claimed(store, plain)
    for claim, document, row, _ in packs:
        if claim.key not in stored | spooled:
            store.commit(claim, document, document_id=row["_id"])
    return spooled


def _insert_claimed(store: Store, results: Sequence[tuple[Claim, ResultDocument, Row]]) -> tuple[set[str], set[str]]:
    """Insert results that nothing stands in the way of, or spool all of them; keys that are stored and spooled."""
    db = store.database
    rows = [row | {"attempt": 0, "current": True} for _, _, row in results]
    while rows:
        try:
            store.note_models((document.model_key, document.model_label) for _, document, _ in results)
            met = db.call(lambda: duplicates_of(db["results"].insert_many, rows))
            stored = {row["key"] for index, row in enumerate(rows) if met.get(index, True)}
            store.end_claims([claim for claim, *_ in results if claim.key in stored])
            return stored, set()
        except ServerUnavailableError as error:
            if store.gives_up_waiting(error):
                store.keep_apart([(claim, row, {}) for claim, _, row in results])
                return set(), {claim.key for claim, *_ in results}
    return set(), set()


def put_structures(store: Store, structures: Iterable[tuple[Atoms, Mapping[str, Any]]]) -> list[str]:
    """Store structures under their keys, each once; the keys, in order.

    Parameters
    ----------
    structures
        each with what it is called, as `Store.put_structure` takes it (formula, ..., material_ids, tags).

    Raises
    ------
    InputError
        an unknown field.
    """
    return [key for keys in _overlapped(lambda batch: _put_batch(store, batch), batches(structures)) for key in keys]


def _put_batch(store: Store, structures: list[tuple[Atoms, Mapping[str, Any]]]) -> list[str]:
    db = store.database
    updates = [structure_update(atoms, identity) for atoms, identity in structures]
    writes = [UpdateOne({"_id": key}, update, upsert=True) for key, update in updates]
    # Two upserts of one key may collide; the same operations again then find what the other one has inserted.
    while db.call(lambda: duplicates_of(db["structures"].bulk_write, writes)):
        continue
    return [key for key, _ in updates]


def _insert_batch(store: Store, documents: list[ResultDocument]) -> int:
    db = store.database
    rows: list[Row] = []
    sources: list[ResultDocument] = []
    alone: list[ResultDocument] = []
    for document in documents:
        row, large = row_of_document(document)
        if large:
            alone.append(document)
            continue
        rows.append(row | {"attempt": 0, "current": True})
        sources.append(document)
    inserted = len(rows)
    store.note_models((document.model_key, document.model_label) for document in documents)
    if rows:
        for index, on_own_id in db.call(lambda: duplicates_of(db["results"].insert_many, rows)).items():
            if not on_own_id:  # else a repeated operation met its own first insertion
                inserted -= 1
                alone.append(sources[index])
    return inserted + sum(_commit_alone(store, document) for document in alone)


def _commit_alone(store: Store, document: ResultDocument) -> bool:
    """Store one result by the long way, as somebody who has lost the claim; whether it was needed."""
    found = store.get(document.key, load_arrays=False)
    if found is not None and (found.failure is None or found.failure.final):
        return False
    store.commit(Claim(document.key, uuid.uuid4().hex), document)
    return True


def duplicates_of(write: Any, operations: list[Any]) -> dict[int, bool]:
    """Indices of the operations that met a unique index, and whether that was the one of `_id`."""
    try:
        write(operations, ordered=False)
    except BulkWriteError as error:
        faults = error.details["writeErrors"]
        if error.details.get("writeConcernErrors") or any(fault["code"] != _DUPLICATE for fault in faults):
            raise
        return {fault["index"]: "_id" in fault["keyPattern"] for fault in faults}
    return {}


def _overlapped(write: Callable[[list[T]], R], batches: Iterable[list[T]]) -> Iterator[R]:
    """What `write` returns for each batch, in order; one is packed while the server takes another."""
    with ThreadPoolExecutor(_WRITERS) as pool:
        writing: deque[Future[R]] = deque()
        for batch in batches:
            writing.append(pool.submit(write, batch))
            if len(writing) > _WRITERS:  # no more in memory than that
                yield writing.popleft().result()
        while writing:
            yield writing.popleft().result()


def batches(items: Iterable[T], length: int = BATCH) -> Iterator[list[T]]:
    """The items in lists of at most `length`."""
    left = iter(items)
    while batch := list(islice(left, length)):
        yield batch

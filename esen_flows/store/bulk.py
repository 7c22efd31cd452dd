"""Many results or structures at once, a thousand in a round trip; one that is stored already is not stored again.

An import claims nothing, because it computes nothing. A result that is stored stays, a failure that is not final is
superseded, and a process that is computing one of the imported results finds it when it commits its own.
"""

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from ase import Atoms
from bson import ObjectId

from esen_flows.errors import ServerUnavailableError
from esen_flows.schemas.documents import ResultDocument
from esen_flows.store.claims import Claim
from esen_flows.store.database import Row
from esen_flows.store.results import Store
from esen_flows.store.rows import packed, row_of_document, structure_update
from esen_flows.store.writing import duplicates_of, upsert

BATCH = 1000
_WRITERS = 2
T = TypeVar("T")
R = TypeVar("R")


def insert_results(store: Store, documents: Iterable[ResultDocument]) -> int:
    """Store results whose keys are not settled.

    Parameters
    ----------
    store
        Open store.
    documents
        Finished or failed results; the store sets their `attempt` and `current`. Results with arrays over 256 kB are
        stored one by one.

    Returns
    -------
    int
        Number of results that were stored.

    Raises
    ------
    StoreError
        The server refuses, or a document holds something that cannot be stored. Earlier batches stay stored.
    """
    return sum(_overlapped(lambda batch: _insert_batch(store, batch), batches(documents)))


def commit_many(store: Store, results: Sequence[tuple[Claim, ResultDocument]]) -> set[str]:
    """Commit many results, as `Store.commit` does, in few round trips.

    Parameters
    ----------
    store
        Open store.
    results
        Claims, which end here, and the computed results.

    Returns
    -------
    set of str
        Keys of results that went into the spool, because the server was away.

    Raises
    ------
    StoreError
        As for `Store.commit`.
    ServerUnavailableError
        As for `Store.commit`.
    """
    packs = [(claim, document, *packed(claim, document)) for claim, document in results]
    # Results with large arrays and further attempts need several steps each, so they are committed one by one.
    simple = [(claim, document, row) for claim, document, row, large in packs if not large and not claim.forced]
    stored, spooled = _insert_claimed(store, simple) if simple else (set(), set())
    for claim, document, row, _ in packs:
        if claim.key not in stored | spooled:
            store.commit(claim, document, document_id=row["_id"])
    return spooled


def put_structures(store: Store, structures: Iterable[tuple[Atoms, Mapping[str, Any]]]) -> list[str]:
    """Store structures, each once under its key.

    Parameters
    ----------
    store
        Open store.
    structures
        Each structure with its identity as `Store.put_structure` takes it (formula, ..., material_ids, tags).

    Returns
    -------
    list of str
        Structure keys, in the given order.

    Raises
    ------
    InputError
        A field of an identity is unknown.
    """
    return [key for keys in _overlapped(lambda batch: _put_batch(store, batch), batches(structures)) for key in keys]


def batches(items: Iterable[T], length: int = BATCH) -> Iterator[list[T]]:
    """Items in lists of limited length.

    Parameters
    ----------
    items
        Any items.
    length
        Largest length of a list.

    Yields
    ------
    list of T
        The next items, in their order; never empty.
    """
    iterator = iter(items)
    while batch := list(islice(iterator, length)):
        yield batch


def _insert_claimed(store: Store, results: Sequence[tuple[Claim, ResultDocument, Row]]) -> tuple[set[str], set[str]]:
    """Insert results whose keys have no document yet, or spool all of them; the keys stored and the keys spooled."""
    while True:
        try:
            ids = _insert_first_attempts(store, [(document, row) for _, document, row in results])
            stored = [claim for claim, _, row in results if row["_id"] in ids]
            store.end_claims(stored)
            return {claim.key for claim in stored}, set()
        except ServerUnavailableError as error:
            if store.fallback.gives_up_waiting(error):
                store.spool([(claim, row, {}) for claim, _, row in results])
                return set(), {claim.key for claim, *_ in results}


def _insert_batch(store: Store, documents: list[ResultDocument]) -> int:
    packs = [(document, *row_of_document(document)) for document in documents]
    simple = [(document, row) for document, row, large in packs if not large]
    stored = _insert_first_attempts(store, simple) if simple else set()
    return len(stored) + sum(_commit_single(store, document) for document, row, _ in packs if row["_id"] not in stored)


def _insert_first_attempts(store: Store, results: Sequence[tuple[ResultDocument, Row]]) -> set[ObjectId]:
    """Insert results without large arrays whose keys have no document yet; the ids of those that are stored."""
    db = store.database
    store.note_models((document.model_key, document.model_label) for document, _ in results)
    new = [row | {"attempt": 0, "current": True} for _, row in results]
    duplicates = db.call(lambda: duplicates_of(db["results"].insert_many, new))
    # A duplicate by its own `_id` was stored by the same insertion before it was repeated.
    return {row["_id"] for index, row in enumerate(new) if duplicates.get(index, True)}


def _put_batch(store: Store, structures: list[tuple[Atoms, Mapping[str, Any]]]) -> list[str]:
    updates = [structure_update(atoms, identity) for atoms, identity in structures]
    upsert(store.database, "structures", updates)
    return [key for key, _ in updates]


def _commit_single(store: Store, document: ResultDocument) -> bool:
    """Store one result without a claim on its key; False if the key is settled."""
    found = store.get(document.key, load_arrays=False)
    if found is not None and (found.failure is None or found.failure.final):
        return False
    # This claim is not in the database: the result is committed as by a process whose claim was taken over.
    store.commit(Claim(document.key, uuid.uuid4().hex), document)
    return True


def _overlapped(write: Callable[[list[T]], R], batches: Iterable[list[T]]) -> Iterator[R]:
    """The value of `write` for each batch, in order; the next batch is packed while the server takes one."""
    with ThreadPoolExecutor(_WRITERS) as pool:
        writing: deque[Future[R]] = deque()
        for batch in batches:
            writing.append(pool.submit(write, batch))
            if len(writing) > _WRITERS:  # so that few batches are in memory
                yield writing.popleft().result()
        while writing:
            yield writing.popleft().result()

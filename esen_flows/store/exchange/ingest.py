"""Merging spools into the database: each record once, however often a spool is merged."""

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from esen_flows.errors import InputError, StoreError
from esen_flows.schemas.keys import atoms_key
from esen_flows.store.blobs import unpack
from esen_flows.store.claims import Claim
from esen_flows.store.database import Row
from esen_flows.store.exchange.spool import load_blob, read_records, spool_files
from esen_flows.store.exchange.spool_store import SpoolStore, atoms_of
from esen_flows.store.results import Store
from esen_flows.store.rows import check_identity, document_of, row_of_document
from esen_flows.store.upkeep.verify import result_problems


@dataclass(frozen=True)
class Ingested:
    """Outcome of merging a folder.

    Attributes
    ----------
    counts
        Numbers of "new" and "known" results, and of "structures".
    truncated
        Places of incomplete last lines, whose writers were killed while they wrote.
    damaged
        Place and fault of each record that cannot be merged.
    """

    counts: Counter[str]
    truncated: tuple[str, ...]
    damaged: tuple[str, ...]


def ingest(store: Store, folder: Path) -> Ingested:
    """Merge a spool, or all spools in a folder. The folder is not changed.

    Parameters
    ----------
    store
        Open store on a server.
    folder
        Spool or folder of spools.

    Returns
    -------
    Ingested
        Numbers of merged records, and the records that were not merged.

    Raises
    ------
    InputError
        There is no spool.
    StoreError
        The store is itself a spool, or cannot be written to.
    """
    if isinstance(store, SpoolStore):
        raise StoreError("ESEN_FLOWS_SPOOL is set, so there is no database to merge into; unset it")
    files = spool_files(folder)
    if not files:
        raise InputError(f"no spool in {folder}: neither it nor a folder in it holds a records.jsonl")
    counts: Counter[str] = Counter()
    truncated, damaged = [], []
    for file in files:
        for record in read_records(file):
            if record.content is None and record.truncated:
                truncated.append(record.place)
            elif record.content is None:
                damaged.append(f"{record.place}: {record.fault}")
            else:
                try:
                    counts[_merge(store, record.file.parent, record.content)] += 1
                except _DamagedError as error:
                    damaged.append(f"{record.place}: {error}")
    return Ingested(counts, tuple(truncated), tuple(damaged))


class _DamagedError(Exception):
    """A record cannot be merged; the others can."""


def _merge(store: Store, folder: Path, content: Row) -> str:
    """Merge a record of the spool in `folder`; the name under which it is counted."""
    if content["type"] == "structure":
        with _damage():
            atoms = atoms_of(content)
            identity = unpack(content["identity"])
            check_identity(identity)
        if atoms_key(atoms) != content["key"]:
            raise _DamagedError("it is not the structure of its key")
        store.put_structure(atoms, **identity)
        return "structures"
    row = content["row"]
    for problem in result_problems(store, row):
        raise _DamagedError(problem)
    if _is_known(store, content):
        return "known"
    with _damage():
        document = document_of(row, partial(load_blob, folder))
        row_of_document(document)  # what cannot be stored is not even tried
    claim = Claim(row["key"], uuid.uuid4().hex, forced=content["forced"])
    stored = store.commit(claim, document, document_id=row["_id"])
    return "new" if stored.created_at == document.created_at else "known"


@contextmanager
def _damage() -> Iterator[None]:
    """A context that reads a record: what is wrong with it ends the merging of this record alone."""
    try:
        yield
    except (StoreError, InputError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise _DamagedError(" ".join(str(error).split())[:300] or type(error).__name__) from error


def _is_known(store: Store, content: Row) -> bool:
    """Whether merging a result would change nothing: it was merged before, or its key has been settled meanwhile."""
    db, row = store.database, content["row"]
    if db.call(lambda: db["results"].find_one({"_id": row["_id"]}, {"_id": 1})) is not None:
        return True
    if content["forced"]:
        return False
    current = store.get(row["key"], load_arrays=False)
    return current is not None and (current.failure is None or current.failure.final)

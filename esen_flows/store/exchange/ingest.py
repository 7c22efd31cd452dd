"""Merging spools into the database: each record once, however often a spool is merged."""

import uuid
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from esen_flows.errors import InputError, StoreError
from esen_flows.store.blobs import unpack
from esen_flows.store.claims import Claim
from esen_flows.store.database import Row
from esen_flows.store.exchange.spool import load_blob, read_records, spool_files
from esen_flows.store.exchange.spool_store import SpoolStore, atoms_of
from esen_flows.store.results import Store
from esen_flows.store.rows import document_of


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
                damaged.append(f"{record.place}: it does not match its checksum")
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
        store.put_structure(atoms_of(content), **unpack(content["identity"]))
        return "structures"
    row = content["row"]
    if _is_known(store, content):
        return "known"
    try:
        document = document_of(row, partial(load_blob, folder))
    except StoreError as error:
        raise _DamagedError(str(error)) from error
    claim = Claim(row["key"], uuid.uuid4().hex, forced=content["forced"])
    stored = store.commit(claim, document, document_id=row["_id"])
    return "new" if stored.created_at == document.created_at else "known"


def _is_known(store: Store, content: Row) -> bool:
    """Whether merging a result would change nothing: it was merged before, or its key has been settled meanwhile."""
    db, row = store.database, content["row"]
    if db.call(lambda: db["results"].find_one({"_id": row["_id"]}, {"_id": 1})) is not None:
        return True
    if content["forced"]:
        return False
    current = store.get(row["key"], load_arrays=False)
    return current is not None and (current.failure is None or current.failure.final)

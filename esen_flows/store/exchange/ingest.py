"""Merging spools into the database: each record once, however often it is merged."""

import uuid
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from esen_flows.errors import InputError, StoreError
from esen_flows.schemas.documents import ResultDocument
from esen_flows.store.blobs import unpack
from esen_flows.store.claims import Claim
from esen_flows.store.database import Row
from esen_flows.store.exchange.spool import SpoolRecord, load_blob, read_records, spool_files
from esen_flows.store.exchange.spool_store import SpoolStore, atoms_of
from esen_flows.store.results import Store
from esen_flows.store.rows import document_of


@dataclass(frozen=True)
class Ingested:
    """What became of the records of a folder.

    Attributes
    ----------
    counts
        of new and known results, of structures.
    torn
        places of last lines that were cut off: their writers were killed before they were done.
    damaged
        records that cannot be merged, and why.
    """

    counts: Counter[str]
    torn: tuple[str, ...]
    damaged: tuple[str, ...]


def ingest(store: Store, folder: Path) -> Ingested:
    """Merge a spool, or all spools in a folder. Nothing of the folder is changed.

    Parameters
    ----------
    store
        an open store on a server.
    folder
        a spool or a folder of spools.

    Raises
    ------
    InputError
        no spool is there.
    StoreError
        the store is a spool itself, or cannot be written to.
    """
    if isinstance(store, SpoolStore):
        raise StoreError("ESEN_FLOWS_SPOOL is set, so there is no database to merge into; unset it")
    files = spool_files(folder)
    if not files:
        raise InputError(f"no spool in {folder}: neither it nor a folder in it holds a records.jsonl")
    counts: Counter[str] = Counter()
    torn, damaged = [], []
    for file in files:
        for record in read_records(file):
            if record.content is None and record.torn:
                torn.append(record.place)
            elif record.content is None:
                damaged.append(f"{record.place}: it does not match its checksum")
            else:
                try:
                    counts[_merge(store, record, record.content)] += 1
                except _DamagedError as error:
                    damaged.append(f"{record.place}: {error}")
    return Ingested(counts, tuple(torn), tuple(damaged))


class _DamagedError(Exception):
    """This record cannot be merged; others can."""


def _merge(store: Store, record: SpoolRecord, content: Row) -> str:
    """Merge one record; what it is counted as."""
    if content["type"] == "structure":
        store.put_structure(atoms_of(content), **unpack(content["identity"]))
        return "structures"
    row = content["row"]
    if _is_known(store, content):
        return "known"
    document = _document(record, row)
    stored = store.commit(
        Claim(row["key"], uuid.uuid4().hex, forced=content["forced"]), document, document_id=row["_id"]
    )
    return "new" if stored.created_at == document.created_at else "known"


def _is_known(store: Store, content: Row) -> bool:
    """Whether merging this result would change nothing: merged before, or computed by somebody else meanwhile."""
    db, row = store.database, content["row"]
    if db.call(lambda: db["results"].find_one({"_id": row["_id"]}, {"_id": 1})) is not None:
        return True
    if content["forced"]:
        return False
    current = store.get(row["key"], load_arrays=False)
    return current is not None and (current.failure is None or current.failure.final)


def _document(record: SpoolRecord, row: Row) -> ResultDocument:
    try:
        return document_of(row, partial(load_blob, record.file.parent))
    except (StoreError, ValidationError) as error:
        raise _DamagedError(str(error)) from error

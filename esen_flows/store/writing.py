"""Writing many documents of a collection at once, beside other processes that write the same ones."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from esen_flows.store.database import Database, Row

_DUPLICATE = 11000  # MongoDB's error code for an insertion that a unique index forbids


def duplicates_of(write: Callable[..., object], operations: Sequence[Any]) -> dict[int, bool]:
    """Carry out a bulk of writes and list the insertions that a unique index forbade.

    Parameters
    ----------
    write
        `insert_many` or `bulk_write` of a collection.
    operations
        Documents or operations for `write`.

    Returns
    -------
    dict of int to bool
        For the index of each forbidden insertion, whether the unique index is the one on `_id`.

    Raises
    ------
    BulkWriteError
        A write failed for another reason.
    """
    try:
        write(operations, ordered=False)
    except BulkWriteError as error:
        faults = error.details["writeErrors"]
        if error.details.get("writeConcernErrors") or any(fault["code"] != _DUPLICATE for fault in faults):
            raise
        return {fault["index"]: "_id" in fault["keyPattern"] for fault in faults}
    return {}


def upsert(database: Database, collection: str, updates: Iterable[tuple[str, Row | list[Row]]]) -> None:
    """Update documents, inserting those that are missing.

    Parameters
    ----------
    database
        Open database.
    collection
        Name of the collection.
    updates
        `_id` of each document and its update for MongoDB (operators or a pipeline), which must change nothing when it
        is repeated.
    """
    writes = [UpdateOne({"_id": key}, update, upsert=True) for key, update in updates]
    # Two upserts of one missing document may collide; the repetition then finds what the other one has inserted.
    collided = bool(writes)
    while collided:
        collided = bool(database.call(lambda: duplicates_of(database[collection].bulk_write, writes)))

"""Attempts at a result: the documents of one key in `results`, of which at most one is current.

A key has a new attempt when a failure is not final and is computed again, or when a user forces a repetition. Another
attempt takes the place of the current one in two steps, because the unique index `one_current` does not allow two
current ones. A process that is killed between the steps leaves none; the next claim on the key repairs that.
"""

from contextlib import suppress
from typing import Any

from pymongo.errors import DuplicateKeyError

from esen_flows.store.database import Database, Row
from esen_flows.store.reading import find_one

SETTLED: Row = {"$or": [{"failure": None}, {"failure.final": True}]}  # query that agrees with `is_settled`


def is_settled(row: Row) -> bool:
    """Whether a result would not change if it was computed again: it is finished, or has failed for good.

    Parameters
    ----------
    row
        Document of `results`.

    Returns
    -------
    bool
        False for a failure that is not final.
    """
    return row["failure"] is None or bool(row["failure"]["final"])


def insert_if_absent(database: Database, row: Row) -> Row:
    """Insert a result unless its key is settled. Repeating this with the same row changes nothing.

    Parameters
    ----------
    database
        Open database.
    row
        Packed result with its `_id`.

    Returns
    -------
    Row
        The current document of the key: this one, or the one that settles the key.
    """
    while True:
        current = _current(database, row["key"])
        if current is not None and (current["_id"] == row["_id"] or is_settled(current)):
            return current
        if current is not None:
            _supersede(database, current)
        _insert(database, row, current=True)


def add_attempt(database: Database, row: Row) -> Row:
    """Insert a result as a further attempt and make it current, unless it failed and the current one is finished.

    Parameters
    ----------
    database
        Open database.
    row
        Packed result with its `_id`.

    Returns
    -------
    Row
        The document as it is stored.
    """
    while (found := find_one(database, "results", {"_id": row["_id"]})) is None:
        _insert(database, row, current=False)
    while not found["current"]:
        current = _current(database, row["key"])
        if current is not None and current["failure"] is None and row["failure"] is not None:
            break
        if current is not None:
            _supersede(database, current)
        found["current"] = make_current(database, row["_id"])
    return found


def make_current(database: Database, document_id: Any) -> bool:
    """Make an attempt the current one of its key, if no other one is.

    Parameters
    ----------
    database
        Open database.
    document_id
        `_id` of the attempt.

    Returns
    -------
    bool
        False if another attempt is current.
    """
    try:
        database.call(lambda: database["results"].update_one({"_id": document_id}, {"$set": {"current": True}}))
    except DuplicateKeyError:
        return False
    return True


def _current(database: Database, key: str) -> Row | None:
    return find_one(database, "results", {"key": key, "current": True})


def _supersede(database: Database, row: Row) -> None:
    database.call(lambda: database["results"].update_one({"_id": row["_id"]}, {"$set": {"current": False}}))


def _insert(database: Database, row: Row, *, current: bool) -> None:
    """Insert a document under the next number. The caller looks whether it is there, and tries again if not."""
    last = find_one(database, "results", {"key": row["key"]}, {"attempt": 1}, sort=[("attempt", -1)])
    new = row | {"attempt": last["attempt"] + 1 if last else 0, "current": current}
    with suppress(DuplicateKeyError):  # another process was faster, or this insertion was repeated
        database.call(lambda: database["results"].insert_one(new))

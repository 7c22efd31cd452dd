"""Reading many documents of a collection so that a killed server interrupts nothing, as a cursor would be."""

from collections.abc import Iterator, Sequence
from typing import Any

from esen_flows.store.database import Database, Row

Sort = Sequence[tuple[str, int]]
_BATCH = 500


def find_one(
    database: Database, collection: str, query: Row, fields: Row | None = None, sort: Sort | None = None
) -> Row | None:
    """The first document that a query finds.

    Parameters
    ----------
    database
        Open database.
    collection
        Name of the collection.
    query
        Filter of MongoDB.
    fields
        Projection of MongoDB; None: the whole document.
    sort
        Fields that decide which document is the first, each with 1 (ascending) or -1; None: any.

    Returns
    -------
    Row | None
        The document; None if there is none.
    """
    return database.call(lambda: database[collection].find_one(query, fields, sort=sort))


def find_all(
    database: Database, collection: str, query: Row, fields: Row | None = None, sort: Sort | None = None
) -> list[Row]:
    """All documents that a query finds, at once.

    Parameters
    ----------
    database
        Open database.
    collection
        Name of the collection.
    query
        Filter of MongoDB.
    fields
        Projection of MongoDB; None: whole documents.
    sort
        Fields to sort by, each with 1 (ascending) or -1; None: no order.

    Returns
    -------
    list of Row
        The documents.
    """
    return database.call(lambda: list(database[collection].find(query, fields, sort=sort)))


def distinct(database: Database, collection: str, field: str, query: Row) -> set[Any]:
    """The different values of a field in the documents that a query finds.

    Parameters
    ----------
    database
        Open database.
    collection
        Name of the collection.
    field
        Name of the field; of a list, its items are the values.
    query
        Filter of MongoDB.

    Returns
    -------
    set
        The values.
    """
    return set(database.call(lambda: database[collection].distinct(field, query)))


def in_batches(
    database: Database, collection: str, fields: Row, query: Row | None = None, length: int = _BATCH
) -> Iterator[list[Row]]:
    """Documents in batches, in the order of their ids.

    Parameters
    ----------
    database
        Open database.
    collection
        Name of the collection.
    fields
        Projection of MongoDB, with `_id`; empty: whole documents.
    query
        Filter of MongoDB; None: every document.
    length
        Largest number of documents in a batch.

    Yields
    ------
    list of Row
        A batch, never empty.
    """
    after: Row = query or {}
    # Each batch is a query of its own, so that a repetition begins behind the last document that was read.
    while rows := database.call(
        lambda: list(database[collection].find(after, fields).sort("_id", 1).limit(length))  # noqa: B023
    ):
        yield rows
        after = {**(query or {}), "_id": {"$gt": rows[-1]["_id"]}}

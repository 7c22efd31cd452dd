"""The force fields that made the results: one document for each model key, with the card as it was at the first result.

Cards are edited and checkpoints are moved, but what a key stands for can always be looked up here.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from esen_flows.errors import ModelError
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.documents import SCHEMA_VERSION
from esen_flows.store.database import Database, Row
from esen_flows.store.migrations import upgraded
from esen_flows.store.reading import find_one
from esen_flows.store.writing import upsert


def note_models(database: Database, named: Iterable[tuple[str, str]]) -> None:
    """Store force fields, each once under its key, with all labels under which results name it.

    Parameters
    ----------
    database
        Open database.
    named
        Model keys and labels.
    """
    common = {"schema_version": SCHEMA_VERSION, "created_at": datetime.now(UTC)}
    new = [{"_id": key, "labels": [label], "card": _card(key, label), **common} for key, label in sorted(set(named))]
    add_models(database, new)


def add_models(database: Database, documents: Iterable[Row]) -> None:
    """Store documents of force fields; of one that is stored already only new labels are added.

    Parameters
    ----------
    database
        Open database.
    documents
        Documents of the `models` collection.
    """
    updates = []
    for document in documents:
        fields = {name: value for name, value in document.items() if name not in ("_id", "labels")}
        labels = {"labels": {"$each": list(document["labels"])}}
        updates.append((document["_id"], {"$setOnInsert": fields, "$addToSet": labels}))
    upsert(database, "models", updates)


def stored_model(database: Database, key: str) -> dict[str, Any] | None:
    """What is known of a force field.

    Parameters
    ----------
    database
        Open database.
    key
        Model key.

    Returns
    -------
    dict of str to Any | None
        `key`, `labels` and `card`; the card is None if no card described this force field when its first result was
        stored. None if no result was made with it.

    Raises
    ------
    StoreError
        A newer version of this package wrote the document.
    """
    row = find_one(database, "models", {"_id": key})
    if row is None:
        return None
    row = upgraded("models", row)
    return {"key": row["_id"], "labels": sorted(row["labels"]), "card": row["card"]}


def count_results(database: Database, key: str) -> dict[str, int]:
    """Number of current results by a force field.

    Parameters
    ----------
    database
        Database to search.
    key
        Model key.

    Returns
    -------
    dict[str, int]
        Number of finished and failed results by kind, in alphabetical order.
    """
    steps: list[Row] = [
        {"$match": {"model_key": key, "current": True}},
        {"$group": {"_id": "$kind", "count": {"$sum": 1}}},
    ]
    rows: list[Row] = database.call(lambda: list(database["results"].aggregate(steps)))
    return {str(row["_id"]): int(row["count"]) for row in sorted(rows, key=lambda row: str(row["_id"]))}


def model_problems(row: Row) -> list[str]:
    """What is wrong with a document of the `models` collection.

    Parameters
    ----------
    row
        The document.

    Returns
    -------
    list of str
        One message, or none for a sound document.
    """
    key, labels, card = row.get("_id"), row.get("labels"), row.get("card")
    named = isinstance(key, str) and isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    described = card is None or isinstance(card, dict)
    complete = set(row) == {"_id", "labels", "card", "schema_version", "created_at"}
    complete = complete and type(row["schema_version"]) is int and isinstance(row["created_at"], datetime)
    return [] if named and described and complete else [f"model {key} is not as this package writes it"]


def _card(key: str, label: str) -> dict[str, Any] | None:
    """The card with this label, if there is one on this machine and it describes the force field of this key."""
    try:
        model = resolve_model(label)
    except ModelError:
        return None
    return model.card.model_dump(mode="json") if model.card is not None and model.key == key else None

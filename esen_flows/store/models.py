"""The force fields that made the results: a document per model key, with its card as it was at the first result.

Cards are edited and checkpoints move; what a key stands for stays readable here.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pymongo import UpdateOne

from esen_flows.errors import ModelError
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.documents import SCHEMA_VERSION
from esen_flows.store.database import Database, Row, without_duplicates
from esen_flows.store.migrations import upgraded


def note_models(database: Database, named: Iterable[tuple[str, str]]) -> None:
    """Store force fields under their keys, each once, with all the labels that results give them.

    Parameters
    ----------
    named
        model keys and labels.
    """
    add_models(database, [_document(key, label) for key, label in sorted(set(named))])


def add_models(database: Database, documents: Iterable[Row]) -> None:
    """Store documents of force fields unless they are there; labels are added."""
    updates = []
    for document in documents:
        fields = {name: value for name, value in document.items() if name not in ("_id", "labels")}
        labels = {"labels": {"$each": list(document["labels"])}}
        updates.append(UpdateOne({"_id": document["_id"]}, {"$setOnInsert": fields, "$addToSet": labels}, upsert=True))
    # Two upserts of one key may collide; the same operations again then find what the other one has inserted.
    while updates and not database.call(lambda: without_duplicates(lambda: database["models"].bulk_write(updates))):
        continue


def stored_model(database: Database, key: str) -> dict[str, Any] | None:
    """What is known of a force field: key, labels, and its card, which is None where none described these numbers."""
    row = database.call(lambda: database["models"].find_one({"_id": key}))
    if row is None:
        return None
    row = upgraded("models", row)
    return {"key": row["_id"], "labels": sorted(row["labels"]), "card": row["card"]}


def model_problems(row: Row) -> list[str]:
    """What is wrong with a document by itself."""
    key, labels, card = row.get("_id"), row.get("labels"), row.get("card")
    named = isinstance(key, str) and isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    described = card is None or isinstance(card, dict)
    whole = named and described and set(row) == {"_id", "labels", "card", "schema_version", "created_at"}
    return [] if whole else [f"model {key} is not as this package writes it"]


def _document(key: str, label: str) -> Row:
    return {
        "_id": key,
        "schema_version": SCHEMA_VERSION,
        "labels": [label],
        "card": _card(key, label),
        "created_at": datetime.now(UTC),
    }


def _card(key: str, label: str) -> dict[str, Any] | None:
    """The card of that name if it is here and describes the numbers of this key."""
    try:
        model = resolve_model(label)
    except ModelError:
        return None
    described = model.card is not None and model.key == key
    return model.card.model_dump(mode="json") if described and model.card is not None else None

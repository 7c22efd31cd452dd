"""Which structures are stored, and their labels, many at once."""

from collections.abc import Iterable, Sequence

from esen_flows.store.database import Row
from esen_flows.store.results import Store

AT_ONCE = 1000
_IDENTITY = (
    "formula", "chemsys", "elements", "nsites", "space_group_number", "space_group_symbol", "material_ids",
)  # fmt: skip


def stored_identities(store: Store, keys: Sequence[str]) -> dict[str, Row]:
    """What those of some structures are called that are stored: formula, ..., material_ids, by key."""
    db = store.database
    fields = dict.fromkeys(_IDENTITY, True)
    rows = db.call(lambda: list(db["structures"].find({"_id": {"$in": list(keys)}}, fields)))
    return {row.pop("_id"): row for row in rows}


def add_tags(store: Store, keys: Iterable[str], tags: Sequence[str]) -> None:
    """Add tags to stored structures."""
    db, asked = store.database, list(keys)
    change = {"$addToSet": {"tags": {"$each": list(tags)}}}
    for begin in range(0, len(asked), AT_ONCE):
        # Those that have them already are left out, so that nothing is written twice.
        some = {"_id": {"$in": asked[begin : begin + AT_ONCE]}, "tags": {"$not": {"$all": list(tags)}}}
        db.call(lambda some=some: db["structures"].update_many(some, change))  # type: ignore[misc]


def structure_row(store: Store, key: str, *, with_atoms: bool) -> Row:
    """The stored document of a structure.

    Parameters
    ----------
    store
        Store that holds the structure.
    key
        Key of the structure, which must be stored.
    with_atoms
        Whether the arrays of the structure are wanted.

    Returns
    -------
    Row
        The document.
    """
    db = store.database
    found = db.call(lambda: db["structures"].find_one({"_id": key}, {} if with_atoms else {"structure": 0}))
    assert found is not None  # callers have stored the structure before
    return found

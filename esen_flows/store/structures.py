"""Identities and labels of stored structures, many at once."""

from collections.abc import Iterable, Sequence

from esen_flows.store.bulk import batches
from esen_flows.store.database import Row
from esen_flows.store.reading import find_all, find_one
from esen_flows.store.results import Store

_IDENTITY = (
    "formula", "chemsys", "elements", "nsites", "space_group_number", "space_group_symbol", "material_ids",
)  # fmt: skip


def stored_identities(store: Store, keys: Sequence[str]) -> dict[str, Row]:
    """Formula, space group and ids of structures, where they are stored.

    Parameters
    ----------
    store
        Store of the structures.
    keys
        Structure keys.

    Returns
    -------
    dict of str to Row
        formula, chemsys, elements, nsites, space_group_number, space_group_symbol and material_ids of each stored
        structure, by its key.
    """
    rows = find_all(store.database, "structures", {"_id": {"$in": list(keys)}}, dict.fromkeys(_IDENTITY, True))
    return {row.pop("_id"): row for row in rows}


def add_tags(store: Store, keys: Iterable[str], tags: Sequence[str]) -> None:
    """Add tags to stored structures.

    Parameters
    ----------
    store
        Store of the structures.
    keys
        Structure keys.
    tags
        The tags.
    """
    db = store.database
    change = {"$addToSet": {"tags": {"$each": list(tags)}}}
    for batch in batches(keys):
        # Structures that have all of the tags are left out, so that the server rewrites only what changes.
        query = {"_id": {"$in": batch}, "tags": {"$not": {"$all": list(tags)}}}
        db.call(lambda: db["structures"].update_many(query, change))  # noqa: B023


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
    found = find_one(store.database, "structures", {"_id": key}, {} if with_atoms else {"structure": 0})
    assert found is not None  # callers have stored the structure before
    return found

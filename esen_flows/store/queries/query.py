"""Results and structures that fit the filters of a query.

query(store, "phonon", elements=["Ga"], where="stable")                   list of results
stream(store, "relax")                                                    one result after the other, any number
query_structures(store, chemsys="Ga-As"), stream_structures(store)        input structures
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

from ase import Atoms

from esen_flows.errors import InputError
from esen_flows.schemas.documents import Kind, ResultDocument
from esen_flows.store.database import Row
from esen_flows.store.migrations import upgraded
from esen_flows.store.queries.selection import Filters, Selection, StructureFilters, select
from esen_flows.store.reading import find_all
from esen_flows.store.results import Store
from esen_flows.store.rows import atoms_of_row

WITHOUT_ARRAYS = {"output": 0, "blobs": 0}
BATCH = 500  # documents that are fetched at once
_SHORTEST_PREFIX = 4
_PREFIX_LIMIT = 10


@dataclass(frozen=True)
class StructureRecord:
    """A stored input structure.

    Attributes
    ----------
    key
        Structure key.
    fields
        Formula, chemsys, elements, nsites, space group, material_ids, tags and created_at.
    atoms
        The structure.
    """

    kind: ClassVar[str] = "structures"
    key: str
    fields: Row
    atoms: Atoms


def query(store: Store, kind: Kind, **filters: Unpack[Filters]) -> list[ResultDocument]:
    """Current results that fit all filters, without their arrays (`output` is None).

    Parameters
    ----------
    store
        Open store.
    kind
        Kind of result.
    filters
        Filters, order and limit; the limit is 100 unless it is given.

    Returns
    -------
    list of ResultDocument
        The results.

    Raises
    ------
    InputError
        A filter cannot be read.
    """
    filters.setdefault("limit", 100)
    return list(stream(store, kind, **filters))


def stream(store: Store, kind: Kind, **filters: Unpack[Filters]) -> Iterator[ResultDocument]:
    """Current results that fit all filters, one after the other in little memory; waits for a killed server.

    Parameters
    ----------
    store
        Open store.
    kind
        Kind of result.
    filters
        Filters, order and limit; all results unless a limit is given.

    Returns
    -------
    iterator of ResultDocument
        The results without their arrays.

    Raises
    ------
    InputError
        A filter cannot be read; raised at once, not at the first result.
    """
    return _documents(store, select(kind, **filters))


def query_structures(store: Store, **filters: Unpack[StructureFilters]) -> list[StructureRecord]:
    """Input structures that fit all filters.

    Parameters
    ----------
    store
        Open store.
    filters
        Filters, order and limit; the limit is 100 unless it is given.

    Returns
    -------
    list of StructureRecord
        The structures.

    Raises
    ------
    InputError
        A filter cannot be read.
    """
    filters.setdefault("limit", 100)
    return list(stream_structures(store, **filters))


def stream_structures(store: Store, **filters: Unpack[StructureFilters]) -> Iterator[StructureRecord]:
    """Input structures that fit all filters, one after the other in little memory.

    Parameters
    ----------
    store
        Open store.
    filters
        Filters, order and limit; all structures unless a limit is given.

    Returns
    -------
    iterator of StructureRecord
        The structures.

    Raises
    ------
    InputError
        A filter cannot be read; raised at once, not at the first structure.
    """
    ids = select_ids(store, select("structures", **filters))
    return (read_structure(row) for row in fetch(store, "structures", ids, {}))


def find_by_prefix(store: Store, prefix: str) -> list[ResultDocument]:
    """Current results whose keys begin with some digits, at most ten, without their arrays.

    Parameters
    ----------
    store
        Open store.
    prefix
        The first 4 to 64 hexadecimal digits of a result key.

    Returns
    -------
    list of ResultDocument
        The results in the order of their keys.

    Raises
    ------
    InputError
        The prefix is not at least four hexadecimal digits.
    """
    digits = prefix.strip().lower()
    if not re.fullmatch(rf"[0-9a-f]{{{_SHORTEST_PREFIX},64}}", digits):
        raise InputError(f"not the beginning of a result key: {prefix!r}; give {_SHORTEST_PREFIX} to 64 digits 0-9a-f")
    # "g" sorts after every hexadecimal digit. A range uses the index and needs no regular expression.
    filters = {"key": {"$gte": digits, "$lt": digits + "g"}, "current": True}
    return list(_documents(store, Selection("results", filters, [("key", 1)], _PREFIX_LIMIT)))


def select_ids(store: Store, selection: Selection) -> list[Any]:
    """Ids of the documents of a selection.

    Parameters
    ----------
    store
        Open store.
    selection
        Query.

    Returns
    -------
    list
        Ids in order; a quarter of a million take 20 MB.
    """
    return [row["_id"] for row in store.database.call(lambda: list(selection.cursor(store, {"_id": 1})))]


def fetch(store: Store, collection: str, ids: list[Any], projection: Row) -> Iterator[Row]:
    """Documents in the order of their ids, in batches, each of which is requested again if the server is killed.

    Parameters
    ----------
    store
        Open store.
    collection
        Name of the collection.
    ids
        Ids of documents; those that do not exist are left out.
    projection
        Projection of MongoDB; empty: whole documents.

    Yields
    ------
    Row
        A document.
    """
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        found = {row["_id"]: row for row in find_all(store.database, collection, {"_id": {"$in": batch}}, projection)}
        yield from (found[id_] for id_ in batch if id_ in found)


def read_structure(row: Row) -> StructureRecord:
    """The structure of a stored document.

    Parameters
    ----------
    row
        Document of the `structures` collection.

    Returns
    -------
    StructureRecord
        The structure, with charge and spin in `atoms.info` where they are not zero.

    Raises
    ------
    StoreError
        The document is of a newer version of this package, or damaged.
    """
    row = upgraded("structures", row)
    hidden = ("_id", "structure", "schema_version")
    fields = {name: value for name, value in row.items() if name not in hidden}
    return StructureRecord(row["_id"], fields, atoms_of_row(row))


def _documents(store: Store, selection: Selection) -> Iterator[ResultDocument]:
    ids = select_ids(store, selection)
    return (store.read({**row, "output": None}) for row in fetch(store, "results", ids, WITHOUT_ARRAYS))

"""Finding results and structures by what a materials scientist types. No user input ever becomes a database operator.

query(store, "conductivity", elements=["Ga"], where="kappa_300K > 10")    a list of documents
stream(store, "relax")                                                    one after the other, however many
query_structures(store, chemsys="Ga-As"), stream_structures(store)        input structures
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Any, Literal, TypedDict, Unpack

from ase import Atoms

from esen_flows.errors import InputError
from esen_flows.schemas.documents import Kind, ResultDocument, StructureData
from esen_flows.store.blobs import unpack
from esen_flows.store.database import Row
from esen_flows.store.migrations import upgraded
from esen_flows.store.queries.fields import KINDS, find_field
from esen_flows.store.queries.where import where_filter
from esen_flows.store.results import Store
from esen_flows.structures.identity import canonical_chemsys, canonical_formula

_WITHOUT_ARRAYS = {"output": 0, "blobs": 0}
BATCH = 500  # documents fetched at once
_SHORTEST_PREFIX = 4
_MOST = 2**31 - 1  # what MongoDB takes as a limit


class StructureFilters(TypedDict, total=False):
    """What structures and results can be chosen by; all given filters must fit.

    Attributes
    ----------
    chemsys
        exactly these elements, "Ga-As" in any order.
    formula
        "GaAs", in any order and unreduced too.
    elements
        at least these.
    spacegroup
        number or international symbol ("F-43m") of the input structure.
    campaign
        name of a campaign, which its structures and results carry as a tag.
    where
        a condition such as "nsites < 10 and not spacegroup == 216" (see esen_flows.store.queries.where).
    sort
        a name as in `where`, "-" before it for descending; a summary value leaves out results without it.
        Default: newest first.
    limit
        at most so many; None: all.
    """

    chemsys: str | None
    formula: str | None
    elements: Sequence[str] | None
    spacegroup: int | str | None
    campaign: str | None
    where: str | None
    sort: str | None
    limit: int | None


class Filters(StructureFilters, total=False):
    """What results can be chosen by besides.

    Attributes
    ----------
    model
        label or key of the force field.
    failed
        the failed ones instead of the finished ones.
    """

    model: str | None
    failed: bool


@dataclass(frozen=True)
class Selection:
    """A query as MongoDB takes it."""

    collection: Literal["results", "structures"]
    filters: Row
    order: list[tuple[str, int]]
    limit: int

    def cursor(self, store: Store, projection: Row) -> Any:
        """A cursor over what is selected."""
        found = store.database[self.collection].find(self.filters, projection).sort(self.order)
        return found.limit(self.limit).allow_disk_use(True)


@dataclass(frozen=True)
class StructureRecord:
    """A stored input structure and what it is called."""

    key: str
    fields: Row  # formula, chemsys, elements, nsites, space group, material_ids, tags, created_at
    atoms: Atoms


def query(store: Store, kind: Kind, **filters: Unpack[Filters]) -> list[ResultDocument]:
    """Current results that fit all filters, without their arrays (`output` is None); 100 unless `limit` says else.

    Raises
    ------
    InputError
        a filter that means nothing.
    """
    filters.setdefault("limit", 100)
    return list(stream(store, kind, **filters))


def stream(store: Store, kind: Kind, **filters: Unpack[Filters]) -> Iterator[ResultDocument]:
    """The same one after the other, all of them, in little memory; a server that is killed meanwhile is waited for.

    Raises
    ------
    InputError
        a filter that means nothing; at once, not at the first document.
    """
    return _documents(store, select(kind, **filters))


def query_structures(store: Store, **filters: Unpack[StructureFilters]) -> list[StructureRecord]:
    """Input structures that fit all filters; 100 unless `limit` says else.

    Raises
    ------
    InputError
        a filter that means nothing.
    """
    filters.setdefault("limit", 100)
    return list(stream_structures(store, **filters))


def stream_structures(store: Store, **filters: Unpack[StructureFilters]) -> Iterator[StructureRecord]:
    """The same one after the other, all of them, in little memory."""
    ids = select_ids(store, select("structures", **filters))
    return (read_structure(row) for row in fetch(store, "structures", ids, {}))


def find_by_prefix(store: Store, prefix: str, limit: int = 10) -> list[ResultDocument]:
    """Current results whose key begins with `prefix`, without their arrays.

    Raises
    ------
    InputError
        not at least four hexadecimal digits.
    """
    digits = prefix.strip().lower()
    if not re.fullmatch(rf"[0-9a-f]{{{_SHORTEST_PREFIX},64}}", digits):
        raise InputError(f"not the beginning of a result key: {prefix!r}; give {_SHORTEST_PREFIX} to 64 digits 0-9a-f")
    # Keys are hexadecimal, so "g" is beyond all that begin like this; a range uses the index, without any pattern.
    filters = {"key": {"$gte": digits, "$lt": digits + "g"}, "current": True}
    selection = Selection("results", filters, [("key", 1)], _most(limit))
    return list(_documents(store, selection))


def select(
    kind: Kind | Literal["structures"],
    *,
    chemsys: str | None = None,
    formula: str | None = None,
    elements: Sequence[str] | None = None,
    spacegroup: int | str | None = None,
    campaign: str | None = None,
    where: str | None = None,
    model: str | None = None,
    failed: bool = False,
    sort: str | None = None,
    limit: int | None = None,
) -> Selection:
    """What these filters (see `Filters`) ask of MongoDB.

    Raises
    ------
    InputError
        a filter that means nothing.
    """
    if kind not in (*KINDS, "structures"):
        raise InputError(f"unknown kind of result {kind!r}; choose from {', '.join((*KINDS, 'structures'))}")
    filters: Row = {}
    if kind != "structures":
        filters = {"kind": kind, "current": True, "state": "failed" if failed else "finished"}
    elif failed or model is not None:
        raise InputError("structures have no force field and do not fail; ask for a kind of result")
    if chemsys is not None:
        filters["chemsys"] = canonical_chemsys(chemsys)
    if formula is not None:
        filters["formula"] = canonical_formula(formula)
    if elements:
        filters["elements"] = {"$all": _rarest_first(canonical_chemsys("-".join(elements)).split("-"))}
    if spacegroup is not None:
        filters["space_group_number"] = _space_group(spacegroup)
    if campaign is not None:
        filters["tags"] = {"$eq": str(campaign)}
    if model is not None:
        filters |= _model(str(model))
    conditions = [] if where is None else [where_filter(kind, where)]
    order = _order(kind, sort, conditions)
    if conditions:
        filters["$and"] = conditions
    collection: Literal["results", "structures"] = "structures" if kind == "structures" else "results"
    return Selection(collection, filters, order, 0 if limit is None else _most(limit))


def select_ids(store: Store, selection: Selection) -> list[Any]:
    """Ids of the selected documents, in order: 20 MB for a quarter of a million."""
    return [row["_id"] for row in store.database.call(lambda: list(selection.cursor(store, {"_id": 1})))]


def fetch(store: Store, collection: str, ids: list[Any], projection: Row) -> Iterator[Row]:
    """Documents in the order of their ids, a batch at a time; a batch is asked for again if the server dies."""
    db = store.database
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        wanted = {"_id": {"$in": batch}}
        rows = db.call(lambda: list(db[collection].find(wanted, projection)))  # noqa: B023
        found = {row["_id"]: row for row in rows}
        yield from (found[id_] for id_ in batch if id_ in found)


def read_structure(row: Row) -> StructureRecord:
    """A document of the `structures` collection.

    Raises
    ------
    StoreError
        it is of a newer version of this package, or damaged.
    """
    row = upgraded("structures", row)
    atoms = StructureData(**unpack(row["structure"])).to_atoms()
    atoms.info.update({name: row[name] for name in ("charge", "spin") if row.get(name)})
    hidden = ("_id", "structure", "schema_version")
    return StructureRecord(row["_id"], {name: value for name, value in row.items() if name not in hidden}, atoms)


def _documents(store: Store, selection: Selection) -> Iterator[ResultDocument]:
    ids = select_ids(store, selection)
    return (store.read({**row, "output": None}) for row in fetch(store, "results", ids, _WITHOUT_ARRAYS))


def _rarest_first(elements: list[str]) -> list[str]:
    """An index is read for the first one only, and half of all crystals are oxides."""
    return sorted(elements, key=lambda element: element == "O")


def _model(text: str) -> Row:
    return {"model_key": text} if re.fullmatch(r"[0-9a-f]{64}", text) else {"model_label": {"$eq": text}}


def _space_group(spacegroup: int | str) -> int:
    text = str(spacegroup).strip()
    if re.fullmatch(r"[0-9]+", text):
        if len(text) <= 3 and 1 <= int(text) <= 230:
            return int(text)
        raise InputError(f"no space group has the number {text[:20]}; give 1 to 230 or a symbol such as F-43m")
    number = _symbols().get(re.sub(r"[\s_]", "", text[:20]))
    if number is None:
        raise InputError(f"no space group is called {text[:40]!r}; give 1 to 230 or a symbol such as F-43m")
    return number


@cache
def _symbols() -> dict[str, int]:
    """Numbers of the short international symbols in all their settings, without underscores."""
    import spglib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # spglib announces that it will raise instead of None
        types = [spglib.get_spacegroup_type(hall_number) for hall_number in range(1, 531)]
    return {entry.international_short.replace("_", ""): entry.number for entry in types}


def _order(kind: str, sort: str | None, conditions: list[Row]) -> list[tuple[str, int]]:
    """The order; a summary value leaves out the documents without it, so that its index gives the order."""
    if sort is None:
        return [("created_at", -1), ("_id", -1)]
    try:
        field = find_field(kind, sort.removeprefix("-"))
    except InputError as error:
        raise InputError(f"cannot sort by {sort[:80]!r}: {error}") from None
    if field.only_if is not None:
        conditions.append({field.only_if[0]: {"$eq": field.only_if[1]}})
    if field.type == "number" and field.path.startswith("summary."):
        conditions.append({field.path: {"$gte": -inf}})
    return [(field.path, -1 if sort.startswith("-") else 1)]


def _most(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InputError(f"limit must be a positive integer, got {limit!r}")
    return min(limit, _MOST)

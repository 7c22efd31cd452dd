"""Filters as a materials scientist types them, and the query of MongoDB that they become.

No user input ever becomes a database operator.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Any, Literal, TypedDict

from esen_flows.errors import InputError
from esen_flows.schemas.documents import Kind
from esen_flows.schemas.properties import PROPERTIES
from esen_flows.store.database import Row
from esen_flows.store.queries.fields import find_field
from esen_flows.store.queries.where import where_filter
from esen_flows.store.results import Store
from esen_flows.structures.identity import canonical_chemsys, canonical_formula

_LARGEST_LIMIT = 2**31 - 1  # of MongoDB


class StructureFilters(TypedDict, total=False):
    """Filters of structures and results, all of which must hold, with an order and a limit.

    Attributes
    ----------
    chemsys
        Exactly these elements, "Ga-As" in any order.
    formula
        Formula in any order, also unreduced, "GaAs".
    elements
        At least these elements.
    spacegroup
        Number or international symbol ("F-43m") of the input structure.
    campaign
        Name of a campaign, which its structures and results carry as a tag.
    where
        Condition such as "nsites < 10 and not spacegroup == 216" (language: esen_flows.store.queries.where).
    sort
        Name as in `where`, with "-" before it for descending order; an order by a summary value leaves out the results
        without this value. Default: newest first.
    limit
        Largest number of documents; None: all.
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
    """Filters of results.

    Attributes
    ----------
    model
        Label or key of the force field.
    failed
        Failed results instead of finished ones.
    """

    model: str | None
    failed: bool


@dataclass(frozen=True)
class Selection:
    """A query of MongoDB.

    Attributes
    ----------
    collection
        Name of the collection.
    filters
        Filter of MongoDB.
    order
        Paths and directions (1 or -1).
    limit
        Largest number of documents; 0: all.
    """

    collection: str
    filters: Row
    order: list[tuple[str, int]]
    limit: int

    def cursor(self, store: Store, projection: Row) -> Any:
        """A cursor over the documents that the query finds.

        Parameters
        ----------
        store
            Open store.
        projection
            Projection of MongoDB.

        Returns
        -------
        pymongo.cursor.Cursor
            The cursor.
        """
        found = store.database[self.collection].find(self.filters, projection).sort(self.order)
        return found.limit(self.limit).allow_disk_use(True)


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
    """The query of MongoDB for some filters.

    Parameters
    ----------
    kind
        Kind of result, or "structures".
    chemsys, formula, elements, spacegroup, campaign, where, model, failed, sort, limit
        Filters, order and limit, described at `Filters` and `StructureFilters`.

    Returns
    -------
    Selection
        The query.

    Raises
    ------
    InputError
        A filter cannot be read, or structures are filtered by what only results have.

    Examples
    --------
    >>> select("structures", chemsys="Ga-As", sort="nsites", limit=5)
    Selection(collection='structures', filters={'chemsys': 'As-Ga'}, order=[('nsites', 1)], limit=5)
    """
    if kind not in (*PROPERTIES, "structures"):
        raise InputError(f"unknown kind of result {kind!r}; choose from {', '.join((*PROPERTIES, 'structures'))}")
    if kind == "structures" and (failed or model is not None):
        raise InputError("structures have no force field and do not fail; ask for a kind of result")
    filters: Row = {}
    if kind != "structures":
        filters = {"kind": kind, "current": True, "state": "failed" if failed else "finished"}
    filters |= _crystal_filters(chemsys, formula, elements, spacegroup)
    if campaign is not None:
        filters["tags"] = {"$eq": str(campaign)}
    if model is not None:
        filters["model_key" if re.fullmatch(r"[0-9a-f]{64}", str(model)) else "model_label"] = {"$eq": str(model)}
    conditions = [] if where is None else [where_filter(kind, where)]
    order = _order(kind, sort, conditions)
    if conditions:
        filters["$and"] = conditions
    collection = "structures" if kind == "structures" else "results"
    return Selection(collection, filters, order, 0 if limit is None else _checked_limit(limit))


def _crystal_filters(
    chemsys: str | None, formula: str | None, elements: Sequence[str] | None, spacegroup: int | str | None
) -> Row:
    filters: Row = {}
    if chemsys is not None:
        filters["chemsys"] = canonical_chemsys(chemsys)
    if formula is not None:
        filters["formula"] = canonical_formula(formula)
    if elements:
        # The index is read for the first element only, and half of all crystals are oxides: oxygen comes last.
        symbols = canonical_chemsys("-".join(elements)).split("-")
        filters["elements"] = {"$all": sorted(symbols, key=lambda symbol: symbol == "O")}
    if spacegroup is not None:
        filters["space_group_number"] = _space_group(spacegroup)
    return filters


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
    """Space-group numbers by short international symbols, in all settings and without underscores."""
    import spglib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # spglib announces that it will raise instead of None
        types = [spglib.get_spacegroup_type(hall_number) for hall_number in range(1, 531)]
    return {entry.international_short.replace("_", ""): entry.number for entry in types}


def _order(kind: str, sort: str | None, conditions: list[Row]) -> list[tuple[str, int]]:
    """The order of a query. An order by a summary value adds the condition under which its index gives the order."""
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


def _checked_limit(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InputError(f"limit must be a positive integer, got {limit!r}")
    return min(limit, _LARGEST_LIMIT)

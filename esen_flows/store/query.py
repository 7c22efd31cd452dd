"""Finding results by what a materials scientist types. No user input ever becomes a database operator."""

import re
from collections.abc import Sequence
from typing import get_args

from esen_flows.errors import InputError
from esen_flows.schemas.documents import Kind, ResultDocument
from esen_flows.schemas.identity import canonical_chemsys, canonical_formula
from esen_flows.store.database import Row
from esen_flows.store.results import Store

SORTABLE = ("created_at", "formula", "chemsys", "nsites", "space_group_number", "model_label")
_WITHOUT_ARRAYS = {"output": 0, "blobs": 0}
_SHORTEST_PREFIX = 4
_MOST = 2**31 - 1  # what MongoDB takes as a limit


def query(
    store: Store,
    kind: Kind,
    chemsys: str | None = None,
    formula: str | None = None,
    elements: Sequence[str] | None = None,
    spacegroup: int | str | None = None,
    model: str | None = None,
    failed: bool = False,
    sort: str | None = None,
    limit: int = 100,
) -> list[ResultDocument]:
    """Current results that fit all filters, without their arrays (`output` is None).

    Parameters
    ----------
    store : an open store.
    kind : of the result.
    chemsys : exactly these elements, "Ga-As" in any order.
    formula : "GaAs", in any order and unreduced too.
    elements : at least these.
    spacegroup : number or international symbol ("F-43m").
    model : label or key of the force field.
    failed : the failed ones instead of the finished ones.
    sort : a field of SORTABLE or the name of a summary value, "-" before it for descending; default: newest first.
    limit : at most so many.

    Raises
    ------
    InputError : a filter that means nothing.
    """
    if kind not in get_args(Kind):
        raise InputError(f"unknown kind of result {kind!r}; choose from {', '.join(get_args(Kind))}")
    filters: Row = {"kind": kind, "current": True, "state": "failed" if failed else "finished"}
    if chemsys is not None:
        filters["chemsys"] = canonical_chemsys(chemsys)
    if formula is not None:
        filters["formula"] = canonical_formula(formula)
    if elements:
        filters["elements"] = {"$all": canonical_chemsys("-".join(elements)).split("-")}
    if spacegroup is not None:
        filters |= _space_group(spacegroup)
    if model is not None:
        filters["$or"] = [{"model_label": {"$eq": str(model)}}, {"model_key": {"$eq": str(model)}}]
    order = _order(sort)
    most = _positive(limit)
    db = store.database
    rows = db.call(lambda: list(db["results"].find(filters, _WITHOUT_ARRAYS).sort(order).limit(most)))
    return [store.read({**row, "output": None}) for row in rows]


def find_by_prefix(store: Store, prefix: str, limit: int = 10) -> list[ResultDocument]:
    """Current results whose key begins with `prefix`, without their arrays.

    Raises
    ------
    InputError : not at least four hexadecimal digits.
    """
    digits = prefix.strip().lower()
    if not re.fullmatch(rf"[0-9a-f]{{{_SHORTEST_PREFIX},64}}", digits):
        raise InputError(f"not the beginning of a result key: {prefix!r}; give {_SHORTEST_PREFIX} to 64 digits 0-9a-f")
    # Keys are hexadecimal, so "g" is beyond all that begin like this; a range uses the index, without any pattern.
    filters = {"key": {"$gte": digits, "$lt": digits + "g"}, "current": True}
    most = _positive(limit)
    db = store.database
    rows = db.call(lambda: list(db["results"].find(filters, _WITHOUT_ARRAYS).sort("key", 1).limit(most)))
    return [store.read({**row, "output": None}) for row in rows]


def _space_group(spacegroup: int | str) -> Row:
    text = str(spacegroup).strip()
    if re.fullmatch(r"[0-9]+", text):
        if not 1 <= int(text) <= 230:
            raise InputError(f"no space group has the number {text}; give 1 to 230 or a symbol such as F-43m")
        return {"space_group_number": int(text)}
    return {"space_group_symbol": {"$eq": text}}


def _order(sort: str | None) -> list[tuple[str, int]]:
    if sort is None:
        return [("created_at", -1), ("_id", -1)]
    name = sort.removeprefix("-")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise InputError(f"cannot sort by {sort!r}; give one of {', '.join(SORTABLE)} or the name of a summary value")
    field = name if name in SORTABLE else f"summary.{name}"
    return [(field, -1 if sort.startswith("-") else 1), ("_id", 1)]


def _positive(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InputError(f"limit must be a positive integer, got {limit!r}")
    return min(limit, _MOST)

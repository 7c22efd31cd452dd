"""Filters become queries of MongoDB in which no user input is an operator."""

from typing import Any

import pytest
from result_documents import key_of

from esen_flows.errors import InputError
from esen_flows.store.queries.selection import select


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"formula": "{'$gt': ''}"}, "not a chemical formula"),
        ({"chemsys": "$where"}, "not element symbols"),
        ({"elements": ["Si", "$ne"]}, "not element symbols"),
        ({"spacegroup": 231}, "no space group has the number 231"),
        ({"sort": "$natural"}, "cannot sort by"),
        ({"sort": "summary.$x"}, "cannot sort by"),
        ({"limit": 0}, "limit must be a positive integer, got 0"),
        ({"limit": "5"}, "limit must be"),
        ({"sort": "energi_per_atom"}, "did you mean energy_per_atom"),
        ({"where": "$where == 'sleep(1)'"}, "cannot read the condition at position 1"),
        ({"where": {"$where": "sleep(1)"}}, "a condition is a text"),
    ],
)
def test_filters_that_cannot_be_read_are_refused(filters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        select("relax", **filters)


def test_operators_in_free_text_are_plain_text() -> None:
    for wrong in ({"$ne": 0}, "²", "Fd3x", "a" * 10**6):  # Python calls ² a digit, but it is no number
        with pytest.raises(InputError, match=r"no space group is called .{1,60}; give 1 to 230"):
            select("relax", spacegroup=wrong)  # type: ignore[arg-type]
    for text in ("{'$ne': ''}", {"$ne": ""}):
        assert select("relax", model=text).filters["model_label"] == {"$eq": "{'$ne': ''}"}  # type: ignore[arg-type]
        assert select("relax", campaign=text).filters["tags"] == {"$eq": "{'$ne': ''}"}  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown kind of result"):
        select({"$ne": "relax"})  # type: ignore[arg-type]


def test_filters_and_order() -> None:
    found = select("relax", elements=["O", "Si"], model=key_of("model"), sort="-energy_per_atom", limit=10**30)
    assert found.filters == {
        "kind": "relax",
        "current": True,
        "state": "finished",
        "elements": {"$all": ["Si", "O"]},  # the rarer element first
        "model_key": {"$eq": key_of("model")},
        "$and": [{"summary.energy_per_atom_ev": {"$gte": float("-inf")}}],
    }
    assert found.order == [("summary.energy_per_atom_ev", -1)]
    assert found.limit == 2**31 - 1
    assert select("structures").order == [("created_at", -1), ("_id", -1)]
    with pytest.raises(InputError, match="structures have no force field"):
        select("structures", failed=True)

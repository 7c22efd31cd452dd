"""Members of two campaigns: matched, and their outcomes and numbers compared."""

import pytest

from esen_flows.campaigns.member_differences import Moved, Side, Tolerance, compare_members


def side(structure: str, label: str, value: float | None, outcome: str = "finished", model: str = "") -> Side:
    return Side(structure, model, label, "X", outcome, value)


def test_equal_structures_are_told_apart_by_their_labels_and_force_fields() -> None:
    old = [side("s", "one", 1.0), side("s", "two", 2.0), side("t", "x", 3.0, model="m"), side("t", "x", 4.0, model="n")]
    assert compare_members(old, list(reversed(old)), Tolerance()).is_within
    renamed = [side("s", "two", 2.0), side("s", "uno", 1.0)]
    assert compare_members(old[:2], renamed, Tolerance()).is_within


def test_relative_moves_have_an_order_of_their_own() -> None:
    old = [side("a", "large", 100.0), side("b", "small", 0.1), side("c", "zero", 0.0)]
    new = [side("a", "large", 101.0), side("b", "small", 0.2), side("c", "zero", 0.0)]
    found = compare_members(old, new, Tolerance(relative=0.02), most=1)
    assert [move.label for move in found.moved] == ["large"]
    assert [move.label for move in found.moved_relatively] == ["small"]
    assert found.beyond == 1
    assert Moved("z", "X", "", 0.0, 1.0).relative == float("inf")


@pytest.mark.parametrize(
    ("old", "new", "within"),
    [
        (1.0, 1.01, True),
        (1.0, 1.02, False),
        (float("nan"), float("nan"), True),
        (float("nan"), 1.0, False),
        (None, None, True),
        (None, 1.0, False),
    ],
)
def test_tolerance(old: float | None, new: float | None, within: bool) -> None:
    found = compare_members([side("a", "a", old)], [side("a", "a", new)], Tolerance(absolute=5e-3, relative=6e-3))
    assert found.is_within == within


def test_pending_members_are_counted_and_not_compared() -> None:
    found = compare_members([side("a", "a", 1.0)], [side("a", "a", None, "pending")], Tolerance(absolute=1.0))
    assert (found.pending, found.changed, found.compared, found.is_within) == (1, (), 0, False)

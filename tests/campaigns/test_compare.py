"""Two campaigns: their settings, who ended in another way, whose number moved, and whether that is little enough."""

from collections.abc import Iterator

import emt_campaigns
import pytest

from esen_flows.campaigns.compare import Moved, Side, Tolerance, compare_campaigns, compare_members
from esen_flows.errors import InputError
from esen_flows.settings import Settings
from esen_flows.store import campaigns
from esen_flows.store.results import Store


@pytest.fixture(scope="module")
def planned(embedded_settings: Settings) -> Iterator[Store]:
    """Campaigns "a" and "b" of the same eight metals, of which "b" lacks one; numbers as if they were computed."""
    with emt_campaigns.empty_database(embedded_settings) as store:
        structures = emt_campaigns.crystals(8)
        settings = {"fmax_ev_per_angstrom": 0.02, "max_steps": 100}
        old = emt_campaigns.plan(store, structures, "a")
        new = emt_campaigns.plan(store, structures[:7], "b", settings=settings, dtype="float64", tags="again")
        for name, keys, shift in (("a", old, 0.0), ("b", new, 1e-3)):
            outcomes = [
                campaigns.Outcome(key, "finished", None, 1.0, -(i + 1.0) - shift * i) for i, key in enumerate(keys)
            ]
            if name == "b":
                outcomes[2] = campaigns.Outcome(keys[2], "failed", "NotConvergedError", 1.0, None)
            campaigns.record_outcomes(store, name, outcomes)
        yield store


@pytest.mark.mongod
def test_settings_classes_and_moves(planned: Store) -> None:
    found = compare_campaigns(planned, "a", "b", Tolerance(absolute=3.5e-3), most=3)
    assert found.field == "energy_per_atom_ev"
    assert found.settings == (("settings.fmax_ev_per_angstrom", 0.2, 0.02),)
    members = found.members
    assert (members.matched, members.only_old, members.only_new) == (7, 1, 0)
    assert members.unmatched == ("m7",)
    (changed,) = members.changed
    assert (changed.label, changed.old, changed.new) == ("m2", "finished", "NotConvergedError")
    assert members.transitions == {("finished", "NotConvergedError"): 1}
    assert [move.label for move in members.moved] == ["m6", "m5", "m4"]
    assert members.moved[0].absolute == pytest.approx(-6e-3)
    assert members.moved[0].relative == pytest.approx(-6e-3 / 7)
    assert members.compared == 6
    assert members.mean_absolute == pytest.approx(1e-3 * (0 + 1 + 3 + 4 + 5 + 6) / 6)
    assert members.beyond == 3
    assert not members.is_within


@pytest.mark.mongod
def test_a_campaign_is_itself(planned: Store) -> None:
    found = compare_campaigns(planned, "a", "a")
    assert found.settings == ()
    assert found.members.is_within
    assert (found.members.moved, found.members.mean_absolute) == ((), 0.0)


@pytest.mark.mongod
def test_what_cannot_be_compared(planned: Store) -> None:
    emt_campaigns.plan(planned, emt_campaigns.crystals(1), "p", property="phonon", settings={})
    with pytest.raises(InputError, match="'a' gives energy_per_atom_ev and 'p' max_frequency_thz; compare"):
        compare_campaigns(planned, "a", "p")
    with pytest.raises(InputError, match=r"no campaign 'x'; there are: a, b"):
        compare_campaigns(planned, "a", "x")


@pytest.mark.mongod
def test_force_fields_are_settings(planned: Store) -> None:
    emt_campaigns.plan(planned, emt_campaigns.crystals(1), "other")
    update = {"$set": {"models": [{"label": "nep", "key": "e" * 64, "location": "nep"}]}}
    planned.database["campaigns"].update_one({"_id": "other"}, update)
    found = compare_campaigns(planned, "a", "other")
    emt = campaigns.campaign_of(planned, "a")["models"][0]["key"][:16]
    assert found.settings == (("models.emt", emt, None), ("models.nep", None, "e" * 16))


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


@pytest.mark.mongod
def test_results_that_came_from_elsewhere_count(embedded_settings: Settings) -> None:
    """Two campaigns that ask for the same share its results, though one was never submitted."""
    with emt_campaigns.empty_database(embedded_settings) as store:
        structures = emt_campaigns.crystals(2)
        emt_campaigns.finish(store, structures, "a")
        emt_campaigns.plan(store, structures, "b")
        assert compare_campaigns(store, "a", "b").members.is_within

"""Two campaigns: settings that differ, outcomes that changed, numbers that moved, and how far."""

from collections.abc import Iterator

import emt_campaigns
import pytest

from esen_flows.campaigns.compare import compare_campaigns
from esen_flows.campaigns.member_differences import Tolerance
from esen_flows.errors import InputError
from esen_flows.settings import Settings
from esen_flows.store import campaigns
from esen_flows.store.campaign_progress import Outcome, record_outcomes
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


@pytest.fixture(scope="module")
def planned(embedded_settings: Settings) -> Iterator[Store]:
    """Campaigns "a" and "b" of the same eight metals, of which "b" lacks one; numbers as if they were computed."""
    with emt_campaigns.empty_database(embedded_settings) as store:
        structures = emt_campaigns.crystals(8)
        settings = {"fmax_ev_per_angstrom": 0.02, "max_steps": 100}
        old = emt_campaigns.plan(store, structures, "a")
        new = emt_campaigns.plan(store, structures[:7], "b", settings=settings, dtype="float64", tags="again")
        for name, keys, shift in (("a", old, 0.0), ("b", new, 1e-3)):
            outcomes = [Outcome(key, "finished", None, 1.0, -(i + 1.0) - shift * i) for i, key in enumerate(keys)]
            if name == "b":
                outcomes[2] = Outcome(keys[2], "failed", "NotConvergedError", 1.0, None)
            record_outcomes(store, name, outcomes)
        yield store


def test_settings_outcomes_and_moves(planned: Store) -> None:
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


def test_a_campaign_equals_itself(planned: Store) -> None:
    found = compare_campaigns(planned, "a", "a")
    assert found.settings == ()
    assert found.members.is_within
    assert (found.members.moved, found.members.mean_absolute) == ((), 0.0)


def test_what_cannot_be_compared(planned: Store) -> None:
    emt_campaigns.plan(planned, emt_campaigns.crystals(1), "p", property="phonon", settings={})
    with pytest.raises(InputError, match="'a' gives energy_per_atom_ev and 'p' max_frequency_thz; compare"):
        compare_campaigns(planned, "a", "p")
    with pytest.raises(InputError, match=r"no campaign 'x'; there are: a, b"):
        compare_campaigns(planned, "a", "x")


def test_force_fields_are_compared_as_settings(planned: Store) -> None:
    emt_campaigns.plan(planned, emt_campaigns.crystals(1), "other")
    update = {"$set": {"models": [{"label": "nep", "key": "e" * 64, "location": "nep"}]}}
    planned.database["campaigns"].update_one({"_id": "other"}, update)
    found = compare_campaigns(planned, "a", "other")
    emt = campaigns.campaign_of(planned, "a")["models"][0]["key"][:16]
    assert found.settings == (("models.emt", emt, None), ("models.nep", None, "e" * 16))


def test_results_of_other_campaigns_count(named_store: Store) -> None:
    """Two campaigns with the same members share results, even if one was never submitted."""
    structures = emt_campaigns.crystals(2)
    emt_campaigns.finish(named_store, structures, "a")
    emt_campaigns.plan(named_store, structures, "b")
    assert compare_campaigns(named_store, "a", "b").members.is_within

"""What a campaign remembers: members, states, who works on them."""

from typing import Any

import pytest

from esen_flows.errors import InputError
from esen_flows.store import campaign_runs, campaigns
from esen_flows.store.campaigns import Outcome
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


def spec(name: str, sha: str = "1") -> dict[str, Any]:
    return {"_id": name, "spec": {"name": name}, "spec_text": "", "spec_sha256": sha, "models": []}


def rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "key": f"k{i}", "steps": [f"k{i}"], "label": f"m{i}", "structure_key": f"s{i}", "model_key": "m",
            "model_label": "emt", "formula": "Cu", "nsites": i + 1, "info": {}, "cost": float(i), **changes,
        }
        for i in range(count)
    ]  # fmt: skip


def test_a_name_belongs_to_one_spec(store: Store) -> None:
    assert campaigns.create_campaign(store, spec("one"))
    assert not campaigns.create_campaign(store, spec("one"))
    with pytest.raises(InputError, match=r"'one' with another spec .* delete one"):
        campaigns.create_campaign(store, spec("one", "2"))
    with pytest.raises(InputError, match=r"no campaign 'two'; there are: one\."):
        campaigns.campaign_of(store, "two")
    campaigns.delete_campaign(store, "one")
    assert campaigns.campaign_names(store) == []


def test_members_come_once_and_the_costly_ones_first(store: Store) -> None:
    assert campaigns.insert_members(store, "c", rows(3)) == 3
    assert campaigns.insert_members(store, "c", rows(4)) == 1
    assert campaigns.insert_members(store, "other", rows(2)) == 2
    assert [row["key"] for row in campaigns.members(store, "c")] == ["k3", "k2", "k1", "k0"]
    assert [row["key"] for row in campaigns.members_of(store, "c", ["k1", "none", "k0"])] == ["k1", "k0"]


def test_members_of_any_number_can_be_sorted(store: Store) -> None:
    server = store.database["campaign_members"].database
    server.command("profile", 2)
    assert list(campaigns.members(store, "c")) == []
    server.command("profile", 0)
    asked = server["system.profile"].find_one({"command.sort.cost": -1})
    assert asked is not None
    assert asked["command"]["allowDiskUse"] is True


def test_counting_reads_the_index_alone(store: Store) -> None:
    campaigns.insert_members(store, "c", rows(5))
    outcomes = [Outcome("k1", "finished", None, 2.0, 1.0), Outcome("k2", "finished", None, None, 3.0)]
    campaigns.record_outcomes(store, "c", [*outcomes, Outcome("k3", "failed", "NotConvergedError", 1.0)])
    found = {row["state"]: row for row in campaigns.counts(store, "c")}
    assert {state: row["members"] for state, row in found.items()} == {"finished": 2, "failed": 1, "pending": 2}
    finished = found["finished"]
    assert finished["cost"] == 3.0
    assert (finished["measured"], finished["mean"]) == (2, 2.0)
    assert finished["deviation"] == pytest.approx(2**0.5)
    assert found["failed"]["failure"] == "NotConvergedError"
    question = {"find": "campaign_members", "filter": {"campaign": "c"}, "hint": "status"}
    question["projection"] = {"_id": 0, "state": 1, "cost": 1}
    server = store.database["campaign_members"].database
    plan = server.command("explain", question, verbosity="executionStats")
    assert plan["executionStats"]["totalDocsExamined"] == 0


def test_a_repeated_beginning_forgets_nothing_of_the_dead(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = campaign_runs.begin_run(store, "c", "chunk", {"worker": "a"})
    campaign_runs.note_run(store, first, ["k1"])
    call = store.database.call

    def twice(operation: Any) -> Any:  # as after an answer that was lost
        answer = call(operation)
        call(operation)
        return answer

    with monkeypatch.context() as repeated:
        repeated.setattr(store.database, "call", twice)
        assert campaign_runs.begin_run(store, "c", "chunk", {"worker": "b"})[1] == [["k1"]]
    assert {row["_id"]: row.get("lost") for row in campaign_runs.runs(store, "c")}[first] == ["k1"]


def test_what_was_in_flight_when_a_process_died_is_told_to_the_next_one(store: Store) -> None:
    first, lost = campaign_runs.begin_run(store, "c", "chunk", {"worker": "a"})
    assert lost == []
    campaign_runs.note_run(store, first, ["k1", "k2"], {"done": 1, "failed": 0, "atoms": 4})
    second, lost = campaign_runs.begin_run(store, "c", "chunk", {"worker": "b"})
    assert lost == [["k1", "k2"]]
    campaign_runs.end_run(store, second)
    third, lost = campaign_runs.begin_run(store, "c", "chunk", {"worker": "c"})
    assert lost == []  # the second has ended, and the first was seen to
    states = {row["_id"]: (row["state"], row.get("lost")) for row in campaign_runs.runs(store, "c")}
    assert states == {first: ("died", ["k1", "k2"]), second: ("ended", None), third: ("running", None)}

"""Runs of processes that work on chunks of campaigns."""

from typing import Any

import pytest

from esen_flows.store import campaign_runs
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


def test_a_repeated_begin_keeps_what_dead_processes_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = campaign_runs.begin_run(store, "c", "chunk", {"worker": "a"})
    campaign_runs.note_run(store, first, ["k1"])
    call = store.database.call

    def twice(operation: Any) -> Any:  # as after a lost answer of the server
        answer = call(operation)
        call(operation)
        return answer

    with monkeypatch.context() as repeated:
        repeated.setattr(store.database, "call", twice)
        assert campaign_runs.begin_run(store, "c", "chunk", {"worker": "b"})[1] == [["k1"]]
    assert {row["_id"]: row.get("lost") for row in campaign_runs.runs(store, "c")}[first] == ["k1"]


def test_the_next_process_learns_what_a_dead_one_was_evaluating(store: Store) -> None:
    first, lost = campaign_runs.begin_run(store, "c", "chunk", {"worker": "a"})
    assert lost == []
    campaign_runs.note_run(store, first, ["k1", "k2"], {"done": 1, "failed": 0, "atoms": 4})
    second, lost = campaign_runs.begin_run(store, "c", "chunk", {"worker": "b"})
    assert lost == [["k1", "k2"]]
    campaign_runs.end_run(store, second)
    third, lost = campaign_runs.begin_run(store, "c", "chunk", {"worker": "c"})
    assert lost == []  # the second run has ended, and the first was recovered before
    states = {row["_id"]: (row["state"], row.get("lost")) for row in campaign_runs.runs(store, "c")}
    assert states == {first: ("died", ["k1", "k2"]), second: ("ended", None), third: ("running", None)}

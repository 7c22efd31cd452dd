"""States of members of campaigns."""

import pytest
from result_documents import member_rows

from esen_flows.store import campaigns
from esen_flows.store.campaign_progress import Outcome, counts, number, record_outcomes
from esen_flows.store.results import Store


@pytest.mark.mongod
def test_counting_reads_only_the_index(store: Store) -> None:
    campaigns.insert_members(store, "c", member_rows(5))
    outcomes = [Outcome("k1", "finished", None, 2.0, 1.0), Outcome("k2", "finished", None, None, 3.0)]
    record_outcomes(store, "c", [*outcomes, Outcome("k3", "failed", "NotConvergedError", 1.0)])
    found = {row["state"]: row for row in counts(store, "c")}
    assert {state: row["members"] for state, row in found.items()} == {"finished": 2, "failed": 1, "pending": 2}
    finished = found["finished"]
    assert finished["cost"] == 3.0
    assert (finished["measured"], finished["mean"]) == (2, 2.0)
    assert finished["deviation"] == pytest.approx(2**0.5)
    assert found["failed"]["failure"] == "NotConvergedError"
    explained = {"find": "campaign_members", "filter": {"campaign": "c"}, "hint": "status"}
    explained["projection"] = {"_id": 0, "state": 1, "cost": 1}
    server = store.database["campaign_members"].database
    plan = server.command("explain", explained, verbosity="executionStats")
    assert plan["executionStats"]["totalDocsExamined"] == 0


@pytest.mark.parametrize(("value", "expected"), [(2, 2.0), (0.5, 0.5), (True, None), ("2", None), (None, None)])
def test_booleans_and_text_are_no_numbers(value: object, expected: float | None) -> None:
    assert number(value) == expected

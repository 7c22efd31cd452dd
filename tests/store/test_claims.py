"""Claims: one holder, taken over from the dead at once and from the silent in time."""

import time
from typing import TYPE_CHECKING, Any

import pytest
from other_processes import Ghost, Odd, Remote

from esen_flows.store.claims import Claims

if TYPE_CHECKING:
    from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
KEY = "ab" * 32


def row(store: "Store") -> dict[str, Any]:
    found = store.database["claims"].find_one({"_id": KEY})
    assert found is not None
    return found


def test_one_at_a_time(store: "Store") -> None:
    first, second = Claims(store.database), Claims(store.database)
    claim = first.try_claim(KEY)
    assert claim is not None
    assert second.try_claim(KEY) is None
    assert first.try_claim(KEY) is None
    assert first.forget(claim)
    assert second.try_claim(KEY) is not None


def test_of_a_dead_process_it_is_taken_over_at_once_with_its_debts(store: "Store") -> None:
    ghost = Claims(store.database, host=Ghost())
    old = ghost.try_claim(KEY)
    assert old is not None
    ghost.announce_blobs(old, ["b" * 64, "a" * 64])
    assert Claims(store.database).dead() == [KEY]
    new = Claims(store.database).try_claim(KEY)
    assert new is not None
    assert new.inherited == ("a" * 64, "b" * 64)
    assert set(row(store)["tokens"]) == {old.token, new.token}
    assert not ghost.forget(old)
    assert row(store)["token"] == new.token


def test_of_a_process_that_cannot_be_seen_it_is_kept_until_it_expires(store: "Store") -> None:
    remote = Claims(store.database, host=Remote(), lifetime_seconds=2.0, heartbeat_seconds=60.0)
    assert remote.try_claim(KEY) is not None
    here = Claims(store.database)
    assert here.try_claim(KEY) is None
    assert here.dead() == []
    time.sleep(2.1)
    assert here.dead() == [KEY]
    assert here.try_claim(KEY) is not None
    assert remote.try_claim(KEY) is None


def test_the_heartbeat_keeps_it(store: "Store") -> None:
    remote = Claims(store.database, host=Remote(), lifetime_seconds=30.0, heartbeat_seconds=0.2)
    claim = remote.try_claim(KEY)
    assert claim is not None
    first, deadline = row(store)["expires_at"], time.monotonic() + 60
    while row(store)["expires_at"] == first and time.monotonic() < deadline:
        time.sleep(0.05)  # it comes up in its own time
    assert row(store)["expires_at"] > first
    assert Claims(store.database).try_claim(KEY) is None
    remote.forget(claim)
    remote.close()


def test_a_closed_or_forgotten_one_beats_no_more(store: "Store") -> None:
    remote = Claims(store.database, host=Remote(), lifetime_seconds=0.5, heartbeat_seconds=0.1)
    assert remote.try_claim(KEY) is not None
    remote.close()
    time.sleep(0.7)
    assert Claims(store.database).try_claim(KEY) is not None


def test_expiry_is_by_the_clock_of_the_server(store: "Store") -> None:
    claims = Claims(store.database, lifetime_seconds=100.0)
    claims.try_claim(KEY)
    assert (row(store)["expires_at"] - row(store)["claimed_at"]).total_seconds() == pytest.approx(100.0)


def test_work_under_a_lost_claim_is_still_written_down(store: "Store") -> None:
    """Starved for longer than its lifetime, then taken over: it is alive and about to write arrays."""
    starved = Claims(store.database, host=Remote(), lifetime_seconds=0.2, heartbeat_seconds=60.0)
    claim = starved.try_claim(KEY)
    assert claim is not None
    time.sleep(0.3)
    other = Claims(store.database)
    assert other.try_claim(KEY) is not None
    starved.announce_blobs(claim, ["a" * 64])
    entries = {entry["_id"]: entry["blobs"] for entry in store.database["claims"].find()}
    assert entries == {KEY: [], f"{KEY}#{claim.token}": ["a" * 64]}
    assert not starved.forget(claim)
    assert [entry["_id"] for entry in store.database["claims"].find()] == [KEY]


def test_nothing_in_a_claim_is_taken_for_an_expression(store: "Store") -> None:
    odd = Claims(store.database, host=Odd())
    assert odd.try_claim("$token") is not None
    found = store.database["claims"].find_one({"_id": "$token"})
    assert found is not None
    assert found["process"]["host"] == "$$NOW"

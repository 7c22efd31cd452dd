"""Claims have one holder; they are taken over from dead processes at once, and from others when they expire."""

import time
from typing import TYPE_CHECKING, Any

import pytest
from other_processes import EndedProcess, OddHostName, RemoteProcess

from esen_flows.store.claims import Claims

if TYPE_CHECKING:
    from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
KEY = "ab" * 32


def row(store: "Store") -> dict[str, Any]:
    found = store.database["claims"].find_one({"_id": KEY})
    assert found is not None
    return found


def expire(store: "Store") -> None:
    """Let a claim expire now."""
    # A second ago: within the same millisecond it would not have expired yet.
    earlier = {"$subtract": ["$$NOW", 1000]}
    store.database["claims"].update_one({"_id": KEY}, [{"$set": {"expires_at": earlier}}])


def test_a_claim_has_one_holder(store: "Store") -> None:
    first, second = Claims(store.database), Claims(store.database)
    claim = first.try_claim(KEY)
    assert claim is not None
    assert second.try_claim(KEY) is None
    assert first.try_claim(KEY) is None
    assert first.forget(claim)
    assert second.try_claim(KEY) is not None


def test_the_claim_of_a_dead_process_is_taken_over_at_once_with_its_list_of_arrays(store: "Store") -> None:
    ended = Claims(store.database, host=EndedProcess())
    old = ended.try_claim(KEY)
    assert old is not None
    ended.announce_blobs(old, ["b" * 64, "a" * 64])
    assert Claims(store.database).dead() == [KEY]
    new = Claims(store.database).try_claim(KEY)
    assert new is not None
    assert new.inherited == ("a" * 64, "b" * 64)
    assert set(row(store)["tokens"]) == {old.token, new.token}
    assert not ended.forget(old)
    assert row(store)["token"] == new.token


def test_the_claim_of_an_invisible_process_is_kept_until_it_expires(store: "Store") -> None:
    remote = Claims(store.database, host=RemoteProcess(), heartbeat_seconds=600.0)
    assert remote.try_claim(KEY) is not None
    here = Claims(store.database)
    assert here.try_claim(KEY) is None
    assert here.dead() == []
    expire(store)
    assert here.dead() == [KEY]
    assert here.try_claim(KEY) is not None
    assert remote.try_claim(KEY) is None


def test_the_heartbeat_renews_a_claim(store: "Store") -> None:
    remote = Claims(store.database, host=RemoteProcess(), lifetime_seconds=30.0, heartbeat_seconds=0.2)
    claim = remote.try_claim(KEY)
    assert claim is not None
    first, deadline = row(store)["expires_at"], time.monotonic() + 600
    while row(store)["expires_at"] == first and time.monotonic() < deadline:
        time.sleep(0.05)  # the heartbeat process takes a while to start
    assert row(store)["expires_at"] > first
    assert Claims(store.database).try_claim(KEY) is None
    remote.forget(claim)
    remote.close()


def test_a_closed_heartbeat_renews_no_more(store: "Store") -> None:
    remote = Claims(store.database, host=RemoteProcess(), lifetime_seconds=0.5, heartbeat_seconds=0.1)
    assert remote.try_claim(KEY) is not None
    remote.close()
    time.sleep(0.7)
    assert Claims(store.database).try_claim(KEY) is not None


def test_claims_expire_by_the_clock_of_the_server(store: "Store") -> None:
    claims = Claims(store.database, lifetime_seconds=100.0)
    claims.try_claim(KEY)
    assert (row(store)["expires_at"] - row(store)["claimed_at"]).total_seconds() == pytest.approx(100.0)


def test_arrays_under_a_lost_claim_are_still_listed(store: "Store") -> None:
    """The claim of a process that stood still was taken over, but the process is alive and about to write arrays."""
    slow = Claims(store.database, host=RemoteProcess(), heartbeat_seconds=600.0)
    claim = slow.try_claim(KEY)
    assert claim is not None
    expire(store)
    other = Claims(store.database)
    assert other.try_claim(KEY) is not None
    slow.announce_blobs(claim, ["a" * 64])
    entries = {entry["_id"]: entry["blobs"] for entry in store.database["claims"].find()}
    assert entries == {KEY: [], f"{KEY}#{claim.token}": ["a" * 64]}
    assert not slow.forget(claim)
    assert [entry["_id"] for entry in store.database["claims"].find()] == [KEY]


def test_no_value_in_a_claim_is_evaluated_as_an_expression(store: "Store") -> None:
    odd = Claims(store.database, host=OddHostName())
    assert odd.try_claim("$token") is not None
    found = store.database["claims"].find_one({"_id": "$token"})
    assert found is not None
    assert found["process"]["host"] == "$$NOW"

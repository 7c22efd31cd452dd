"""Results: computed once, kept whole, failed ones asked again when that can help."""

import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from other_processes import Ghost, Remote
from result_documents import document, failed, key_of, large_array

from esen_flows.errors import ClaimedElsewhereError, InputError, StoreError
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.keys import array_key, atoms_key
from esen_flows.store import results
from esen_flows.store.attempts import insert_if_absent
from esen_flows.store.blobs import BlobReference
from esen_flows.store.claims import Claim, Claims
from esen_flows.store.database import Database, Row
from esen_flows.store.results import Store

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.mongod
KEY = key_of("one")


def claimed(store: Store, key: str = KEY) -> Claim:
    claim = store.get_or_claim(key, wait_seconds=0)
    assert isinstance(claim, Claim)
    return claim


def rows(store: Store) -> dict[str, int]:
    names = ("results", "claims", "blobs", "blob_chunks")
    return {name: store.database[name].count_documents({}) for name in names}


def test_absent_then_claimed_then_stored(store: Store) -> None:
    assert store.get(KEY) is None
    claim = claimed(store)
    assert store.get(KEY) is None
    stored = store.commit(claim, document(KEY))
    assert stored.attempt == 0
    assert stored.current
    again = store.get_or_claim(KEY)
    assert isinstance(again, ResultDocument)
    assert again.model_dump(exclude={"output"}) == stored.model_dump(exclude={"output"})
    assert rows(store) == {"results": 1, "claims": 0, "blobs": 0, "blob_chunks": 0}


def test_arrays_of_all_sizes_survive(store: Store) -> None:
    output = {
        "small": np.arange(6.0).reshape(2, 3),
        "fc3": large_array(1, 20.0).reshape(-1, 32),  # three chunks
        "paths": [np.arange(3), np.arange(4)],
        "words": {"verdict": "stable", "n": 3, "nothing": None},
    }
    stored = store.commit(claimed(store), document(KEY, output=output))
    loaded = store.get(KEY)
    assert loaded is not None
    for found in (stored.output, loaded.output):
        assert found is not None
        np.testing.assert_array_equal(found["fc3"], output["fc3"])
        np.testing.assert_array_equal(found["small"], output["small"])
        np.testing.assert_array_equal(found["paths"][1], np.arange(4))
        assert found["words"] == output["words"]
    assert rows(store) == {"results": 1, "claims": 0, "blobs": 1, "blob_chunks": 3}


def test_many_short_arrays_are_no_long_document(store: Store) -> None:
    """Together they would not fit into one; a path of a long run of molecular dynamics is such a thing."""
    output = {"path": [large_array(n, 0.2) for n in range(90)], "small": np.arange(5)}
    store.commit(claimed(store), document(KEY, output=output))
    found = store.get(KEY)
    assert found is not None
    assert found.output is not None
    np.testing.assert_array_equal(found.output["path"][89], output["path"][89])
    np.testing.assert_array_equal(found.output["small"], output["small"])
    assert store.database["blobs"].count_documents({}) == 90


def test_a_document_that_is_too_long_by_itself_is_refused_with_the_remedy(store: Store) -> None:
    with pytest.raises(StoreError, match=r"has 18 MB without its arrays.*as arrays instead of lists"):
        store.commit(claimed(store), document(KEY, output={"words": "x" * 18_000_000}))
    assert store.get(KEY) is None


def test_large_arrays_are_left_where_they_are_unless_asked_for(store: Store) -> None:
    array = large_array(0)
    store.commit(claimed(store), document(KEY, output={"large": array, "small": np.arange(2)}))
    found = store.get(KEY, load_arrays=False)
    assert found is not None
    assert found.output is not None
    assert found.output["large"] == BlobReference(array_key(array), "<f8", array.shape)
    np.testing.assert_array_equal(found.output["small"], np.arange(2))


def test_the_same_array_of_two_results_is_stored_once(store: Store) -> None:
    for name in ("one", "two"):
        store.commit(claimed(store, key_of(name)), document(key_of(name), output={"fc2": large_array(0)}))
    assert rows(store) == {"results": 2, "claims": 0, "blobs": 1, "blob_chunks": 1}


def test_times_are_utc_and_what_commit_returns_is_what_get_returns(store: Store) -> None:
    berlin = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
    stored = store.commit(claimed(store), document(KEY, created_at=berlin))
    assert stored.created_at == datetime(2026, 11, 21, 11, 0, 0, 123000, tzinfo=UTC)
    again = store.get(KEY)
    assert again is not None
    assert again.created_at == stored.created_at
    assert again.created_at.utcoffset() == timedelta(0)


def test_a_document_of_another_key_is_refused(store: Store) -> None:
    claim = claimed(store)
    with pytest.raises(StoreError, match=r"claim is for result .*, but the document is result "):
        store.commit(claim, document(key_of("two")))
    with pytest.raises(StoreError, match=r"relax\.output\.a is a set"):
        store.commit(claim, document(KEY, output={"a": {1}}))
    store.commit(claim, document(KEY))  # the claim was still there


def test_release_lets_the_next_one_compute(store: Store) -> None:
    store.release(claimed(store))
    store.release(claimed(store))
    assert rows(store)["claims"] == 0


def test_a_final_failure_is_an_answer_and_another_one_is_not(store: Store) -> None:
    store.commit(claimed(store), failed(KEY, final=True))
    answer = store.get_or_claim(KEY)
    assert isinstance(answer, ResultDocument)
    assert answer.failure is not None
    assert answer.failure.error == "NotConvergedError"

    other = key_of("two")
    store.commit(claimed(store, other), failed(other, final=False))
    found = store.get(other)
    assert found is not None
    assert found.state == "failed"
    store.commit(claimed(store, other), failed(other, final=False))
    finished = store.commit(claimed(store, other), document(other))
    assert (finished.attempt, finished.current) == (2, True)
    attempts = list(store.database["results"].find({"key": other}).sort("attempt"))
    assert [(row["attempt"], row["state"], row["current"]) for row in attempts] == [
        (0, "failed", False),
        (1, "failed", False),
        (2, "finished", True),
    ]


def test_a_crash_between_two_attempts_leaves_pending_work(store: Store) -> None:
    store.commit(claimed(store), failed(KEY, final=False))
    store.database["results"].update_one({"key": KEY}, {"$set": {"current": False}})
    assert store.get(KEY) is None
    assert store.commit(claimed(store), document(KEY)).attempt == 1


def test_the_first_of_two_finished_results_stays(store: Store) -> None:
    """Both computed it, one under a claim that it had lost; float noise made their arrays differ."""
    slow = Store(store.database, Claims(store.database, host=Ghost()))
    lost = claimed(slow)
    first = store.commit(claimed(store), document(KEY, output={"fc2": large_array(1)}))
    second = slow.commit(lost, document(KEY, output={"fc2": large_array(2), "shared": large_array(1)}))
    assert second.output is not None
    np.testing.assert_array_equal(second.output["fc2"], large_array(1))
    assert second.created_at == first.created_at
    assert rows(store) == {"results": 1, "claims": 0, "blobs": 1, "blob_chunks": 1}


def test_a_failure_does_not_replace_a_result(store: Store) -> None:
    slow = Store(store.database, Claims(store.database, host=Ghost()))
    lost = claimed(slow)
    store.commit(claimed(store), document(KEY))
    assert slow.commit(lost, failed(KEY, final=False)).state == "finished"


def test_a_result_replaces_the_pending_failure_of_somebody_else(store: Store) -> None:
    slow = Store(store.database, Claims(store.database, host=Ghost()))
    lost = claimed(slow)
    store.commit(claimed(store), failed(KEY, final=False))
    stored = slow.commit(lost, document(KEY))
    assert (stored.state, stored.attempt) == ("finished", 1)


def test_arrays_that_a_sweeper_took_are_written_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for dead while it inserts: the document may not name what is gone."""
    slow = Store(store.database, Claims(store.database, host=Ghost()))
    claim = claimed(slow)

    def swept_before(database: Database, row: Row) -> Row:
        assert store.sweep() == 1
        assert rows(store)["blobs"] == 0
        return insert_if_absent(database, row)

    monkeypatch.setattr(results, "insert_if_absent", swept_before)
    slow.commit(claim, document(KEY, output={"fc2": large_array(0)}))
    found = store.get(KEY)
    assert found is not None
    assert found.output is not None
    np.testing.assert_array_equal(found.output["fc2"], large_array(0))
    assert rows(store) == {"results": 1, "claims": 0, "blobs": 1, "blob_chunks": 1}


def test_the_second_asker_waits_for_the_first(store: Store) -> None:
    claim = claimed(store)
    timer = threading.Timer(0.7, lambda: store.commit(claim, document(KEY)))
    timer.start()
    found = store.get_or_claim(KEY, wait_seconds=20)
    timer.join()
    assert isinstance(found, ResultDocument)


def test_the_second_asker_takes_over_when_the_first_gives_up(store: Store) -> None:
    claim = claimed(store)
    timer = threading.Timer(0.3, lambda: store.release(claim))
    timer.start()
    assert isinstance(store.get_or_claim(KEY, wait_seconds=20), Claim)
    timer.join()


def test_the_second_asker_does_not_wait_for_ever(store: Store) -> None:
    remote = Store(store.database, Claims(store.database, host=Remote()))
    claimed(remote)
    began = time.monotonic()
    with pytest.raises(ClaimedElsewhereError, match=rf"{KEY} is being computed by process \d+ on elsewhere"):
        store.get_or_claim(KEY, wait_seconds=0.5)
    assert time.monotonic() - began >= 0.5


def test_what_the_dead_left_is_cleared_by_who_takes_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_debris(store, monkeypatch)
    assert rows(store) == {"results": 0, "claims": 1, "blobs": 1, "blob_chunks": 1}
    claim = claimed(store)
    assert rows(store) == {"results": 0, "claims": 1, "blobs": 0, "blob_chunks": 0}
    store.commit(claim, document(KEY))
    assert rows(store)["claims"] == 0


def test_sweep_clears_what_nobody_asks_for_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_debris(store, monkeypatch)
    alive = claimed(store, key_of("two"))
    assert store.sweep() == 1
    assert rows(store) == {"results": 0, "claims": 1, "blobs": 0, "blob_chunks": 0}
    assert store.sweep() == 0
    store.commit(alive, document(key_of("two")))


def leave_debris(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies between its arrays and its document."""
    dying = Store(store.database, Claims(store.database, host=Ghost()))
    claim = claimed(dying)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(results, "insert_if_absent", killed)
        with pytest.raises(KeyboardInterrupt):
            dying.commit(claim, document(KEY, output={"fc2": large_array(0)}))


def test_a_newer_document_asks_for_an_upgrade(store: Store) -> None:
    store.commit(claimed(store), document(KEY))
    store.database["results"].update_one({}, {"$set": {"schema_version": 99}})
    with pytest.raises(StoreError, match="schema version 99, newer than 1; upgrade"):
        store.get(KEY)


@pytest.mark.parametrize(
    "make",
    [lambda: bulk("GaAs", "zincblende", 5.65), lambda: molecule("H2O"), lambda: charged(molecule("NH3"))],
)
def test_structures(store: Store, make: "Callable[[], Atoms]") -> None:
    atoms = make()
    key = store.put_structure(atoms, material_ids=["mp-1"], tags=["a"])
    assert key == atoms_key(atoms) == store.put_structure(atoms, material_ids=["mp-2"], tags=["a"])
    back = store.get_structure(key)
    assert back is not None
    assert atoms_key(back) == key
    np.testing.assert_array_equal(back.positions, atoms.positions)
    row = store.database["structures"].find_one({"_id": key})
    assert row is not None
    assert (row["nsites"], row["material_ids"], row["tags"]) == (len(atoms), ["mp-1", "mp-2"], ["a"])
    assert store.get_structure("0" * 64) is None


def charged(atoms: Atoms) -> Atoms:
    atoms.info.update(charge=1.0, spin=2.0)
    return atoms


def test_a_given_identity_is_not_computed_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esen_flows.store.rows.identify", lambda atoms: pytest.fail("computed"))
    key = store.put_structure(bulk("Si"), formula="Si", chemsys="Si", elements=["Si"], nsites=2)
    row = store.database["structures"].find_one({"_id": key})
    assert row is not None
    assert row["chemsys"] == "Si"
    with pytest.raises(InputError, match=r"unknown fields of a structure: \['name'\]"):
        store.put_structure(bulk("Si"), name="silicon")


def test_many_are_claimed_at_once_and_those_of_others_are_left_over(store: Store) -> None:
    other = Store(store.database, Claims(store.database, host=Remote()))
    keys = [key_of(name) for name in ("free", "stored", "final", "pending", "taken", "dead")]
    store.commit(claimed(store, keys[1]), document(keys[1]))
    store.commit(claimed(store, keys[2]), failed(keys[2], final=True))
    store.commit(claimed(store, keys[3]), failed(keys[3], final=False))
    claimed(other, keys[4])
    claimed(Store(store.database, Claims(store.database, host=Ghost())), keys[5])
    chunk = store.claim_many([*keys, keys[0]])
    assert {claim.key for claim in chunk.claims} == {keys[0], keys[3], keys[5]}
    assert (chunk.settled, chunk.leftovers) == ((keys[1], keys[2]), (keys[4],))
    assert other.claim_many(keys).leftovers == (keys[0], *keys[3:])  # its own too: another thread has it
    store.commit(chunk.claims[0], document(chunk.claims[0].key))
    store.release_many(chunk.claims[1:])
    assert len(other.claim_many(keys).claims) == 2
    assert store.claim_many([]).claims == ()


def test_what_was_finished_between_the_look_and_the_claims_is_not_computed_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_many = store._claims.try_claim_many

    def late(keys: list[str]) -> list[Claim]:
        other = Store(store.database)
        other.commit(claimed(other), document(KEY))
        return claim_many(keys)

    monkeypatch.setattr(store._claims, "try_claim_many", late)
    chunk = store.claim_many([KEY, key_of("two")])
    assert [claim.key for claim in chunk.claims] == [key_of("two")]
    assert chunk.settled == (KEY,)
    assert rows(store)["claims"] == 1


def attempts(store: Store) -> list[tuple[int, str, bool]]:
    found = store.database["results"].find({"key": KEY}).sort("attempt")
    return [(row["attempt"], row["state"], row["current"]) for row in found]


def forced(store: Store) -> Claim:
    claim = store.get_or_claim(KEY, wait_seconds=0, force=True)
    assert isinstance(claim, Claim)
    return claim


def test_a_forced_recomputation_is_a_further_attempt(store: Store) -> None:
    store.commit(claimed(store), document(KEY, summary={"n": 0}))
    again = store.commit(forced(store), document(KEY, summary={"n": 1}))
    assert (again.attempt, again.current, again.summary) == (1, True, {"n": 1})
    found = store.get(KEY)
    assert found is not None
    assert found.summary == {"n": 1}
    assert attempts(store) == [(0, "finished", False), (1, "finished", True)]


def test_a_forced_failure_takes_no_result_away(store: Store) -> None:
    store.commit(forced(store), failed(KEY, final=True))  # nothing is there: like any other
    store.commit(forced(store), document(KEY))
    failure = store.commit(forced(store), failed(KEY, final=True))
    assert (failure.state, failure.current) == ("failed", False)
    assert attempts(store) == [(0, "failed", False), (1, "finished", True), (2, "failed", False)]


def test_a_crash_within_a_forced_attempt_hides_no_result_for_long(store: Store) -> None:
    """Killed when neither of the two attempts is the current one."""
    store.commit(claimed(store), document(KEY, summary={"n": 0}))
    store.commit(forced(store), document(KEY, summary={"n": 1}))
    assert store.get_or_claim(KEY) is not None
    for ask in (lambda: store.get_or_claim(KEY), lambda: store.claim_many([KEY]), lambda: swept(store)):
        store.database["results"].update_many({"key": KEY}, {"$set": {"current": False}})
        assert store.get(KEY) is None
        assert not isinstance(ask(), Claim)
        assert attempts(store) == [(0, "finished", False), (1, "finished", True)]
        assert rows(store)["claims"] == 0


def swept(store: Store) -> int:
    assert Claims(store.database, host=Ghost()).try_claim(KEY) is not None
    return store.sweep()

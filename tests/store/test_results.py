"""Results: each is computed once and stored whole; a failure that is not final is computed again."""

import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from other_processes import EndedProcess, RemoteProcess
from result_documents import KEY, claimed, commit, document, failed, key_of, large_array, output_of, result_of

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
        "text": {"verdict": "stable", "n": 3, "nothing": None},
    }
    stored = commit(store, document(KEY, output=output))
    loaded = result_of(store, KEY)
    for found in (stored.output, loaded.output):
        assert found is not None
        np.testing.assert_array_equal(found["fc3"], output["fc3"])
        np.testing.assert_array_equal(found["small"], output["small"])
        np.testing.assert_array_equal(found["paths"][1], np.arange(4))
        assert found["text"] == output["text"]
    assert rows(store) == {"results": 1, "claims": 0, "blobs": 1, "blob_chunks": 3}


def test_many_short_arrays_are_stored_apart_from_the_document(store: Store) -> None:
    """Together they would not fit into a document; the trajectory of a long run of molecular dynamics is an example."""
    output = {"trajectory": [large_array(n, 0.2) for n in range(90)], "small": np.arange(5)}
    commit(store, document(KEY, output=output))
    found = output_of(store, KEY)
    np.testing.assert_array_equal(found["trajectory"][89], output["trajectory"][89])
    np.testing.assert_array_equal(found["small"], output["small"])
    assert store.database["blobs"].count_documents({}) == 90


def test_a_document_that_is_too_long_without_arrays_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match=r"has 18 MB without its arrays.*as arrays instead of lists"):
        commit(store, document(KEY, output={"words": "x" * 18_000_000}))
    assert store.get(KEY) is None


def test_large_arrays_are_loaded_on_request(store: Store) -> None:
    array = large_array(0)
    commit(store, document(KEY, output={"large": array, "small": np.arange(2)}))
    found = output_of(store, KEY, load_arrays=False)
    assert found["large"] == BlobReference(array_key(array), "<f8", array.shape)
    np.testing.assert_array_equal(found["small"], np.arange(2))


def test_an_array_of_two_results_is_stored_once(store: Store) -> None:
    for name in ("one", "two"):
        commit(store, document(key_of(name), output={"fc2": large_array(0)}))
    assert rows(store) == {"results": 2, "claims": 0, "blobs": 1, "blob_chunks": 1}


def test_times_are_utc_and_commit_returns_the_same_as_get(store: Store) -> None:
    berlin = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
    stored = commit(store, document(KEY, created_at=berlin))
    assert stored.created_at == datetime(2026, 11, 21, 11, 0, 0, 123000, tzinfo=UTC)
    again = result_of(store, KEY)
    assert again.created_at == stored.created_at
    assert again.created_at.utcoffset() == timedelta(0)


def test_a_document_of_another_key_is_refused(store: Store) -> None:
    claim = claimed(store)
    with pytest.raises(StoreError, match=r"claim is for result .*, but the document is result "):
        store.commit(claim, document(key_of("two")))
    with pytest.raises(StoreError, match=r"relax\.output\.a is a set"):
        store.commit(claim, document(KEY, output={"a": {1}}))
    store.commit(claim, document(KEY))  # the claim was still there


def test_a_released_claim_is_free(store: Store) -> None:
    store.release(claimed(store))
    store.release(claimed(store))
    assert rows(store)["claims"] == 0


def test_a_final_failure_is_a_result_and_another_failure_is_not(store: Store) -> None:
    commit(store, failed(KEY, final=True))
    answer = store.get_or_claim(KEY)
    assert isinstance(answer, ResultDocument)
    assert answer.failure is not None
    assert answer.failure.error == "NotConvergedError"

    other = key_of("two")
    commit(store, failed(other, final=False))
    found = result_of(store, other)
    assert found.state == "failed"
    commit(store, failed(other, final=False))
    finished = commit(store, document(other))
    assert (finished.attempt, finished.current) == (2, True)
    attempts = list(store.database["results"].find({"key": other}).sort("attempt"))
    assert [(row["attempt"], row["state"], row["current"]) for row in attempts] == [
        (0, "failed", False),
        (1, "failed", False),
        (2, "finished", True),
    ]


def test_a_kill_between_two_attempts_leaves_a_pending_result(store: Store) -> None:
    commit(store, failed(KEY, final=False))
    store.database["results"].update_one({"key": KEY}, {"$set": {"current": False}})
    assert store.get(KEY) is None
    assert commit(store, document(KEY)).attempt == 1


def test_the_first_of_two_finished_results_stays(store: Store) -> None:
    """Two processes computed it, one under a claim that it had lost; rounding errors made their arrays differ."""
    slow = Store(store.database, Claims(store.database, host=EndedProcess()))
    lost = claimed(slow)
    first = commit(store, document(KEY, output={"fc2": large_array(1)}))
    second = slow.commit(lost, document(KEY, output={"fc2": large_array(2), "shared": large_array(1)}))
    assert second.output is not None
    np.testing.assert_array_equal(second.output["fc2"], large_array(1))
    assert second.created_at == first.created_at
    assert rows(store) == {"results": 1, "claims": 0, "blobs": 1, "blob_chunks": 1}


def test_a_failure_does_not_replace_a_result(store: Store) -> None:
    slow = Store(store.database, Claims(store.database, host=EndedProcess()))
    lost = claimed(slow)
    commit(store, document(KEY))
    assert slow.commit(lost, failed(KEY, final=False)).state == "finished"


def test_a_result_replaces_the_pending_failure_of_another_process(store: Store) -> None:
    slow = Store(store.database, Claims(store.database, host=EndedProcess()))
    lost = claimed(slow)
    commit(store, failed(KEY, final=False))
    stored = slow.commit(lost, document(KEY))
    assert (stored.state, stored.attempt) == ("finished", 1)


def test_arrays_removed_by_a_sweep_are_written_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process was considered dead while it inserted; its document must not name arrays that are removed."""
    slow = Store(store.database, Claims(store.database, host=EndedProcess()))
    claim = claimed(slow)

    def swept_before(database: Database, row: Row) -> Row:
        assert store.sweep() == 1
        assert rows(store)["blobs"] == 0
        return insert_if_absent(database, row)

    monkeypatch.setattr(results, "insert_if_absent", swept_before)
    slow.commit(claim, document(KEY, output={"fc2": large_array(0)}))
    found = output_of(store, KEY)
    np.testing.assert_array_equal(found["fc2"], large_array(0))
    assert rows(store) == {"results": 1, "claims": 0, "blobs": 1, "blob_chunks": 1}


def test_a_second_request_waits_for_the_first(store: Store) -> None:
    claim = claimed(store)
    timer = threading.Timer(0.7, lambda: store.commit(claim, document(KEY)))
    timer.start()
    found = store.get_or_claim(KEY, wait_seconds=20)
    timer.join()
    assert isinstance(found, ResultDocument)


def test_a_second_request_takes_over_a_released_claim(store: Store) -> None:
    claim = claimed(store)
    timer = threading.Timer(0.3, lambda: store.release(claim))
    timer.start()
    assert isinstance(store.get_or_claim(KEY, wait_seconds=20), Claim)
    timer.join()


def test_a_second_request_does_not_wait_forever(store: Store) -> None:
    remote = Store(store.database, Claims(store.database, host=RemoteProcess()))
    claimed(remote)
    began = time.monotonic()
    with pytest.raises(ClaimedElsewhereError, match=rf"{KEY} is being computed by process \d+ on elsewhere"):
        store.get_or_claim(KEY, wait_seconds=0.5)
    assert time.monotonic() - began >= 0.5


def test_taking_over_a_claim_removes_what_the_dead_process_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_orphans(store, monkeypatch)
    assert rows(store) == {"results": 0, "claims": 1, "blobs": 1, "blob_chunks": 1}
    claim = claimed(store)
    assert rows(store) == {"results": 0, "claims": 1, "blobs": 0, "blob_chunks": 0}
    store.commit(claim, document(KEY))
    assert rows(store)["claims"] == 0


def test_a_sweep_removes_what_dead_processes_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_orphans(store, monkeypatch)
    alive = claimed(store, key_of("two"))
    assert store.sweep() == 1
    assert rows(store) == {"results": 0, "claims": 1, "blobs": 0, "blob_chunks": 0}
    assert store.sweep() == 0
    store.commit(alive, document(key_of("two")))


def leave_orphans(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process die between writing its arrays and its document."""
    dying = Store(store.database, Claims(store.database, host=EndedProcess()))
    claim = claimed(dying)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(results, "insert_if_absent", killed)
        with pytest.raises(KeyboardInterrupt):
            dying.commit(claim, document(KEY, output={"fc2": large_array(0)}))


def test_a_newer_document_asks_for_an_upgrade(store: Store) -> None:
    commit(store, document(KEY))
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


def test_a_given_identity_is_not_computed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esen_flows.store.rows.identify", lambda atoms: pytest.fail("computed"))
    key = store.put_structure(bulk("Si"), formula="Si", chemsys="Si", elements=["Si"], nsites=2)
    row = store.database["structures"].find_one({"_id": key})
    assert row is not None
    assert row["chemsys"] == "Si"
    with pytest.raises(InputError, match=r"unknown fields of a structure: \['name'\]"):
        store.put_structure(bulk("Si"), name="silicon")


def test_many_keys_are_claimed_at_once_except_those_of_other_processes(store: Store) -> None:
    other = Store(store.database, Claims(store.database, host=RemoteProcess()))
    keys = [key_of(name) for name in ("free", "stored", "final", "pending", "taken", "dead")]
    commit(store, document(keys[1]))
    commit(store, failed(keys[2], final=True))
    commit(store, failed(keys[3], final=False))
    claimed(other, keys[4])
    claimed(Store(store.database, Claims(store.database, host=EndedProcess())), keys[5])
    chunk = store.claim_many([*keys, keys[0]])
    assert {claim.key for claim in chunk.claims} == {keys[0], keys[3], keys[5]}
    assert (chunk.settled, chunk.leftovers) == ((keys[1], keys[2]), (keys[4],))
    assert other.claim_many(keys).leftovers == (
        keys[0],
        *keys[3:],
    )  # its own claim too: threads of a process exclude each other
    store.commit(chunk.claims[0], document(chunk.claims[0].key))
    store.release_many(chunk.claims[1:])
    assert len(other.claim_many(keys).claims) == 2
    assert store.claim_many([]).claims == ()


def test_a_result_finished_between_query_and_claim_is_not_computed_again(
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


def test_a_forced_recomputation_is_a_further_attempt(store: Store) -> None:
    commit(store, document(KEY, summary={"n": 0}))
    again = commit(store, document(KEY, summary={"n": 1}), force=True)
    assert (again.attempt, again.current, again.summary) == (1, True, {"n": 1})
    found = result_of(store, KEY)
    assert found.summary == {"n": 1}
    assert attempts(store) == [(0, "finished", False), (1, "finished", True)]


def test_a_forced_failure_does_not_replace_a_result(store: Store) -> None:
    commit(store, failed(KEY, final=True), force=True)  # without a stored result, force has no effect
    commit(store, document(KEY), force=True)
    failure = commit(store, failed(KEY, final=True), force=True)
    assert (failure.state, failure.current) == ("failed", False)
    assert attempts(store) == [(0, "failed", False), (1, "finished", True), (2, "failed", False)]


def test_a_kill_within_a_forced_attempt_is_repaired_by_the_next_request(store: Store) -> None:
    """The kill came when neither of the two attempts was current."""
    commit(store, document(KEY, summary={"n": 0}))
    commit(store, document(KEY, summary={"n": 1}), force=True)
    assert store.get_or_claim(KEY) is not None
    for request in (lambda: store.get_or_claim(KEY), lambda: store.claim_many([KEY]), lambda: swept(store)):
        store.database["results"].update_many({"key": KEY}, {"$set": {"current": False}})
        assert store.get(KEY) is None
        assert not isinstance(request(), Claim)
        assert attempts(store) == [(0, "finished", False), (1, "finished", True)]
        assert rows(store)["claims"] == 0


def swept(store: Store) -> int:
    assert Claims(store.database, host=EndedProcess()).try_claim(KEY) is not None
    return store.sweep()

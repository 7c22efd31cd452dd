"""Size, and garbage collection: it removes all garbage, and nothing that a document or a live writer needs."""

import threading
from typing import Any

import numpy as np
import pytest
from other_processes import EndedProcess
from result_documents import commit, document, failed, key_of, large_array
from whole_store import contents, fill

from esen_flows.schemas.keys import array_key
from esen_flows.store.blobs import BlobStore
from esen_flows.store.claims import Claims
from esen_flows.store.results import Store
from esen_flows.store.upkeep import maintenance as module
from esen_flows.store.upkeep.maintenance import Garbage, collect_garbage, size
from esen_flows.store.upkeep.verify import verify

pytestmark = pytest.mark.mongod
MEGABYTE = 2**20


def supersede(store: Store, name: str, array: np.ndarray) -> None:
    """A failed attempt that holds an array, then a finished one."""
    commit(store, failed(key_of(name), final=False).model_copy(update={"output": {"a": array}}))
    commit(store, document(key_of(name)))


def test_size(store: Store) -> None:
    fill(store)
    sizes = {one.name: one for one in size(store.database)}
    assert sizes["results"].documents == 7
    assert sizes["structures"].documents == 2
    assert sizes["blobs"].documents == 3
    assert 3 * MEGABYTE < sizes["blob_chunks"].data_bytes < 3.1 * MEGABYTE
    assert all(one.index_bytes > 0 and one.disk_bytes > 0 for one in sizes.values())


def test_a_store_without_garbage(store: Store) -> None:
    fill(store)
    store.database["results"].delete_many({"current": False})
    before = contents(store)
    assert collect_garbage(store, apply=True) == Garbage(0, 0, 0, 0)
    assert contents(store) == before


def test_a_dry_run_counts_what_a_real_run_removes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 2)
    keys = fill(store)  # one superseded attempt
    shared, own, orphan, unfinished = (large_array(seed) for seed in (1, 11, 12, 13))
    supersede(store, "shared", shared)  # the phonon of `fill` names it too
    supersede(store, "own", own)
    blobs = BlobStore(store.database)
    blobs.put(array_key(orphan), orphan, "dead")
    for sha in (array_key(unfinished), array_key(shared)):
        blobs._put_chunk(f"{sha}:gone:0", {"sha": sha, "write": "gone", "n": 0, "data": b"x"})

    expected = Garbage(attempts=3, blobs=2, blob_bytes=2 * MEGABYTE, chunks=2)
    before = contents(store)
    assert collect_garbage(store, apply=False) == expected
    assert contents(store) == before
    assert collect_garbage(store, apply=True) == expected
    assert collect_garbage(store, apply=True) == Garbage(0, 0, 0, 0)

    assert store.database["results"].count_documents({"current": False}) == 0
    assert sorted(store.database["blobs"].distinct("_id")) == sorted(array_key(large_array(n)) for n in (1, 2, 3))
    assert store.database["blob_chunks"].count_documents({}) == 3
    for key in keys.values():
        assert store.get(key) is not None  # which checks its arrays


def test_an_attempt_of_a_key_without_a_current_attempt_is_kept(store: Store) -> None:
    """A writer is between two attempts, or was killed there."""
    commit(store, failed(key_of("one"), final=False))
    store.database["results"].update_one({}, {"$set": {"current": False}})
    assert collect_garbage(store, apply=True).attempts == 0


def test_an_attempt_of_a_live_writer_is_kept(store: Store) -> None:
    """A further attempt is inserted before it becomes the current one."""
    commit(store, document(key_of("one")))
    first = store.database["results"].find_one({})
    claims = Claims(store.database)
    claim = claims.try_claim(key_of("one"))
    assert claim is not None
    store.database["results"].insert_one(first | {"_id": "new", "attempt": 1, "current": False})
    assert collect_garbage(store, apply=True).attempts == 0
    claims.forget(claim)
    claims.close()
    assert collect_garbage(store, apply=True).attempts == 1


def test_arrays_announced_by_live_writers_are_kept_and_those_of_dead_writers_removed(store: Store) -> None:
    arrays = {name: large_array(seed) for seed, name in enumerate(("living", "dead"))}
    for name, claims in {"living": Claims(store.database), "dead": Claims(store.database, host=EndedProcess())}.items():
        claim = claims.try_claim(key_of(name))
        sha = array_key(arrays[name])
        claims.announce_blobs(claim, [sha])
        BlobStore(store.database).put(sha, arrays[name], claim.token)
        claims.close()
    assert collect_garbage(store, apply=False) == Garbage(0, 0, 0, 0)  # the claim of the dead is still there
    collect_garbage(store, apply=True)
    assert store.database["blobs"].distinct("_id") == [array_key(arrays["living"])]
    assert store.database["blob_chunks"].distinct("sha") == [array_key(arrays["living"])]


def test_chunks_of_an_array_under_repair_are_kept(store: Store) -> None:
    array = large_array(0)
    sha = array_key(array)
    commit(store, document(key_of("one"), output={"fc2": array}))
    store.database["blobs"].delete_one({"_id": sha})  # as a repair begins
    assert collect_garbage(store, apply=True) == Garbage(0, 0, 0, 0)
    BlobStore(store.database).repair(sha, array)
    assert verify_arrays(store) == []


def verify_arrays(store: Store) -> list[str]:
    """Problems of arrays; the other documents here are made up."""
    return [problem for problem in verify(store).problems if problem.startswith("array")]


def test_the_array_of_a_writer_that_finishes_during_collection_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claims are read when its claim still exists, and the results when its document exists already."""
    array = large_array(0)
    sha = array_key(array)
    claims = Claims(store.database)
    claim = claims.try_claim(key_of("one"))
    claims.announce_blobs(claim, [sha])
    blobs = BlobStore(store.database)
    blobs.put(sha, array, claim.token)
    call, looks = store.database.call, []

    def between(operation: Any) -> Any:
        found = call(operation)
        looks.append(found)
        if len(looks) == 2:  # after the doom and the first look
            store.database["results"].insert_one({"key": "k", "attempt": 0, "current": True, "blobs": [sha]})
            store.database["claims"].delete_many({})
        return found

    monkeypatch.setattr(store.database, "call", between)
    assert blobs.remove_orphans([sha]) == []
    claims.close()


def test_collection_beside_live_writers_loses_nothing(store: Store) -> None:
    """Four threads store results that share arrays, some superseded at once, while another thread collects garbage."""
    faults: list[BaseException] = []
    done = threading.Event()

    def work(thread: int) -> None:
        try:
            for n in range(12):
                key = key_of(f"{thread} {n}")
                output = {"shared": large_array(n, 0.3), "own": large_array(100 * thread + n, 0.3)}
                if n % 3 == 0:
                    commit(store, failed(key, final=False).model_copy(update={"output": output}))
                commit(store, document(key, output=output))
        except BaseException as error:
            faults.append(error)

    def collect() -> None:
        try:
            while not done.is_set():
                collect_garbage(store, apply=True)
        except BaseException as error:
            faults.append(error)

    collector = threading.Thread(target=collect)
    writers = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in (collector, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    collector.join()
    assert faults == []
    for found in map(store.read, store.database["results"].find()):
        assert found.output["shared"].shape == found.output["own"].shape
    assert store.database["results"].count_documents({"current": True}) == 48
    collect_garbage(store, apply=True)
    assert store.database["results"].count_documents({}) == 48
    named = {sha for row in store.database["results"].find() for sha in row["blobs"]}
    assert set(store.database["blobs"].distinct("_id")) == named
    assert store.database["blob_chunks"].count_documents({}) == len(named)

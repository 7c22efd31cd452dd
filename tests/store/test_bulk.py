"""Bulk insertion gives the same store as single commits: one result for a key, the first one, with its arrays."""

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase.build import bulk
from result_documents import claimed, document, failed, key_of, large_array, output_of, result_of

from esen_flows.errors import InputError, ServerUnavailableError
from esen_flows.schemas.keys import atoms_key
from esen_flows.store.bulk import BATCH, commit_many, insert_results, put_structures

if TYPE_CHECKING:
    from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


def test_missing_results_are_inserted_and_stored_ones_stay(store: "Store") -> None:
    keys = [key_of(str(number)) for number in range(BATCH + 10)]
    assert insert_results(store, (document(key, tags=["first"]) for key in keys[:7])) == 7
    assert insert_results(store, (document(key, tags=["second"]) for key in keys)) == BATCH + 3
    assert insert_results(store, [document(keys[0]), document(keys[0])]) == 0
    assert store.database["results"].count_documents({}) == BATCH + 10
    assert store.database["results"].count_documents({"tags": "first"}) == 7
    found = result_of(store, keys[0])
    assert (found.attempt, found.current, found.tags) == (0, True, ["first"])
    assert found.output is not None
    np.testing.assert_array_equal(found.output["forces"], np.zeros((2, 3)))


def test_a_key_that_is_twice_in_a_batch_is_stored_once(store: "Store") -> None:
    key = key_of("twice")
    assert insert_results(store, [document(key, tags=["a"]), document(key, tags=["b"])]) == 1
    assert store.database["results"].count_documents({}) == 1


def test_pending_failures_are_superseded_and_final_ones_are_not(store: "Store") -> None:
    insert_results(store, [failed(key_of("a"), final=False), failed(key_of("b"), final=True)])
    assert insert_results(store, [document(key_of("a")), document(key_of("b"))]) == 1
    superseded, final = result_of(store, key_of("a")), result_of(store, key_of("b"))
    assert (superseded.state, superseded.attempt) == ("finished", 1)
    assert final.state == "failed"


def test_large_arrays_are_stored_as_blobs(store: "Store") -> None:
    made = document(key_of("large"), output={"fc2": large_array(0)})
    assert insert_results(store, [made]) == 1
    assert insert_results(store, [made]) == 0
    found = output_of(store, made.key)
    np.testing.assert_array_equal(found["fc2"], large_array(0))
    counts = {name: store.database[name].count_documents({}) for name in ("results", "blobs", "blob_chunks", "claims")}
    assert counts == {"results": 1, "blobs": 1, "blob_chunks": 1, "claims": 0}


def test_a_process_that_computes_an_imported_result_finds_it(store: "Store") -> None:
    claim = claimed(store, key_of("claimed"))
    assert insert_results(store, [document(claim.key, tags=["imported"])]) == 1
    assert store.commit(claim, document(claim.key, tags=["computed"])).tags == ["imported"]


def test_parallel_insertions_store_each_result_once(store: "Store") -> None:
    documents = [document(key_of(str(number))) for number in range(300)]
    inserted: list[int] = []
    threads = [threading.Thread(target=lambda: inserted.append(insert_results(store, documents))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(inserted) == 300
    assert store.database["results"].count_documents({}) == 300


def test_an_outage_ends_with_a_stored_batch(store: "Store", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Folder:
        patience_seconds, folder = 100.0, tmp_path

    monkeypatch.setattr(store.fallback, "_spool", Folder())
    monkeypatch.setattr(store.fallback, "_lost_at", time.monotonic() - 1000.0)  # an outage long ago
    claim = claimed(store, key_of("after"))
    commit_many(store, [(claim, document(claim.key))])
    monkeypatch.setattr("esen_flows.store.spool_fallback.time.sleep", lambda seconds: None)
    assert not store.fallback.gives_up_waiting(ServerUnavailableError("a second outage"))


def test_structures(store: "Store") -> None:
    silicon, copper = bulk("Si"), bulk("Cu")
    copper.info["charge"] = 1.0
    assert store.put_structure(silicon, material_ids=["one"]) == atoms_key(silicon)
    keys = put_structures(store, [(silicon, {"material_ids": ["two"]}), (copper, {"tags": ["t"]}), (copper, {})])
    assert keys == [atoms_key(silicon), atoms_key(copper), atoms_key(copper)]
    assert store.database["structures"].count_documents({}) == 2
    row = store.database["structures"].find_one({"_id": keys[0]})
    assert row is not None
    assert (row["material_ids"], row["formula"], row["space_group_number"]) == (["one", "two"], "Si", 227)
    found = store.get_structure(keys[1])
    assert found is not None
    assert found.info == {"charge": 1.0}
    with pytest.raises(InputError, match=r"unknown fields of a structure: \['colour'\]"):
        put_structures(store, [(silicon, {"colour": "red"})])

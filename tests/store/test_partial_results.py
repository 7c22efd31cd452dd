"""Partial results of interrupted computations, and when they are deleted."""

from pathlib import Path

import numpy as np
import pytest

from esen_flows.store import partial_results
from esen_flows.store.exchange.spool_store import SpoolStore
from esen_flows.store.partial_results import COLLECTION, PartialResult
from esen_flows.store.results import Store

ARRAY = np.linspace(0, 1, 24).reshape(2, 3, 4)


def interrupt(store: Store, array: np.ndarray = ARRAY, source: str = "one") -> None:
    def work() -> None:
        with PartialResult(store, "ab" * 32, source) as partial:
            partial.keep(array)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()


@pytest.mark.mongod
def test_an_interrupted_computation_continues_and_deletes_its_partial_result(store: Store) -> None:
    interrupt(store)
    with PartialResult(store, "ab" * 32, "one") as work:
        assert np.array_equal(work.load(), ARRAY)
        assert store.database[COLLECTION].count_documents({}) == 1
        work.keep(2 * ARRAY)  # not written, because half a minute has not passed
        assert np.array_equal(PartialResult(store, "ab" * 32, "one").load(), ARRAY)
    assert store.database[COLLECTION].count_documents({}) == 0


@pytest.mark.mongod
def test_a_partial_result_of_another_source_is_not_used(store: Store) -> None:
    interrupt(store)
    with PartialResult(store, "ab" * 32, "another") as work:
        assert work.load() is None
    assert store.database[COLLECTION].count_documents({}) == 0


@pytest.mark.mongod
def test_a_killed_process_has_written_its_last_interval(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_results, "INTERVAL_SECONDS", 0.0)
    work = PartialResult(store, "ab" * 32, "one")
    work.keep(ARRAY)
    work.keep(2 * ARRAY)
    assert np.array_equal(PartialResult(store, "ab" * 32, "one").load(), 2 * ARRAY)


@pytest.mark.mongod
def test_an_array_that_is_too_large_for_a_document_is_not_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_results, "MOST_BYTES", ARRAY.nbytes - 1)
    interrupt(store)
    assert PartialResult(store, "ab" * 32, "one").load() is None


def test_without_a_server_nothing_is_kept(tmp_path: Path) -> None:
    store = SpoolStore(tmp_path / "spool")
    interrupt(store)
    with PartialResult(store, "ab" * 32, "one") as work:
        assert work.load() is None

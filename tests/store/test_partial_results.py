"""What is kept of work that was broken off, and when it is gone."""

from pathlib import Path

import numpy as np
import pytest

from esen_flows.store import partial_results
from esen_flows.store.exchange.spool_store import SpoolStore
from esen_flows.store.partial_results import COLLECTION, PartialResult
from esen_flows.store.results import Store

ARRAY = np.linspace(0, 1, 24).reshape(2, 3, 4)


def break_off(store: Store, array: np.ndarray = ARRAY, source: str = "one") -> None:
    def work() -> None:
        with PartialResult(store, "ab" * 32, source) as partial:
            partial.keep(array)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()


@pytest.mark.mongod
def test_what_was_broken_off_goes_on_and_is_forgotten_at_the_end(store: Store) -> None:
    break_off(store)
    with PartialResult(store, "ab" * 32, "one") as work:
        assert np.array_equal(work.load(), ARRAY)
        assert store.database[COLLECTION].count_documents({}) == 1
        work.keep(2 * ARRAY)  # not written: half a minute has not passed
        assert np.array_equal(PartialResult(store, "ab" * 32, "one").load(), ARRAY)
    assert store.database[COLLECTION].count_documents({}) == 0


@pytest.mark.mongod
def test_another_source_begins_anew(store: Store) -> None:
    break_off(store)
    with PartialResult(store, "ab" * 32, "another") as work:
        assert work.load() is None
    assert store.database[COLLECTION].count_documents({}) == 0


@pytest.mark.mongod
def test_a_killed_process_loses_half_a_minute(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_results, "INTERVAL_SECONDS", 0.0)
    work = PartialResult(store, "ab" * 32, "one")
    work.keep(ARRAY)
    work.keep(2 * ARRAY)
    assert np.array_equal(PartialResult(store, "ab" * 32, "one").load(), 2 * ARRAY)


@pytest.mark.mongod
def test_what_is_too_large_for_a_document_is_not_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_results, "MOST_BYTES", ARRAY.nbytes - 1)
    break_off(store)
    assert PartialResult(store, "ab" * 32, "one").load() is None


def test_without_a_server_work_begins_anew(tmp_path: Path) -> None:
    store = SpoolStore(tmp_path / "spool")
    break_off(store)
    with PartialResult(store, "ab" * 32, "one") as work:
        assert work.load() is None

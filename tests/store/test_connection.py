"""Opening the store is quick and imports little, and a process has one store."""

import subprocess
import sys
import time

import pytest
from other_processes import EndedProcess
from result_documents import KEY, claimed, commit, document

from esen_flows.settings import Settings
from esen_flows.store.claims import Claims
from esen_flows.store.connection import open_store
from esen_flows.store.results import Store


def test_imports_are_light() -> None:
    heavy = {"torch", "atomate2", "jobflow", "maggma", "phonopy", "pymatgen", "fireworks"}
    names = "esen_flows.store.connection, esen_flows.store.queries.query, esen_flows.store.server.embedded"
    assert imported_with(names, heavy) == "set()"


@pytest.mark.parametrize("module", ["server.keeper", "heartbeat"])
def test_processes_beside_the_worker_import_only_the_standard_library(module: str) -> None:
    assert imported_with(f"esen_flows.store.{module}", {"pymongo", "numpy", "pydantic", "ase"}) == "set()"


def imported_with(modules: str, names: set[str]) -> str:
    """Which of some packages are imported together with some modules."""
    code = f"import sys, {modules}; print({names} & set(sys.modules))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.mongod
def test_one_store_per_process_until_it_is_closed(embedded_settings: Settings) -> None:
    settings = embedded_settings.model_copy(update={"database": "test_open"})
    first = open_store(settings)
    assert open_store(settings) is first
    assert open_store(settings.model_copy(update={"database": "test_other"})) is not first
    first.close()
    second = open_store(settings)
    assert second is not first
    assert second.get(KEY) is None
    second.database.drop()
    second.close()


@pytest.mark.mongod
def test_opening_removes_what_dead_processes_left(embedded_settings: Settings, store: Store) -> None:
    claimed(Store(store.database, Claims(store.database, host=EndedProcess())))
    settings = embedded_settings.model_copy(update={"database": store.database.database_name})
    store.close()
    again = open_store(settings)
    assert again.database["claims"].count_documents({}) == 0
    again.close()


@pytest.mark.mongod
def test_a_stored_result_is_returned_quickly(embedded_settings: Settings, store: Store) -> None:
    commit(store, document(KEY))
    store.close()
    began = time.process_time()  # CPU time, because a busy machine is slow
    again = open_store(embedded_settings.model_copy(update={"database": store.database.database_name}))
    assert again.get(KEY) is not None
    assert time.process_time() - began < 0.2  # 15 ms measured
    again.close()

"""Opening the store: light, quick, one per process."""

import subprocess
import sys
import time

import pytest
from other_processes import Ghost
from result_documents import document, key_of

from esen_flows.settings import Settings
from esen_flows.store.claims import Claim, Claims
from esen_flows.store.connection import open_store
from esen_flows.store.results import Store


def test_imports_are_light() -> None:
    code = (
        "import sys, esen_flows.store.connection, esen_flows.store.queries.query, esen_flows.store.server.embedded\n"
        "print({'torch', 'atomate2', 'jobflow', 'maggma', 'phonopy', 'pymatgen', 'fireworks'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_keeper_needs_the_standard_library_alone() -> None:
    code = "import sys, esen_flows.store.server.keeper; print({'pymongo', 'numpy', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.mongod
def test_one_store_per_process_until_it_is_closed(embedded_settings: Settings) -> None:
    settings = embedded_settings.model_copy(update={"database": "test_open"})
    first = open_store(settings)
    assert open_store(settings) is first
    assert open_store(settings.model_copy(update={"database": "test_other"})) is not first
    first.close()
    second = open_store(settings)
    assert second is not first
    assert second.get(key_of("nothing")) is None
    second.database.drop()
    second.close()


@pytest.mark.mongod
def test_opening_clears_away_after_the_dead(embedded_settings: Settings, store: Store) -> None:
    assert isinstance(Store(store.database, Claims(store.database, host=Ghost())).get_or_claim(key_of("x")), Claim)
    settings = embedded_settings.model_copy(update={"database": store.database.database_name})
    store.close()
    again = open_store(settings)
    assert again.database["claims"].count_documents({}) == 0
    again.close()


@pytest.mark.mongod
def test_a_stored_answer_comes_at_once(embedded_settings: Settings, store: Store) -> None:
    claim = store.get_or_claim(key_of("x"))
    assert isinstance(claim, Claim)
    store.commit(claim, document(key_of("x")))
    store.close()
    began = time.process_time()  # not the time of day, which a busy machine stretches
    again = open_store(embedded_settings.model_copy(update={"database": store.database.database_name}))
    assert again.get(key_of("x")) is not None
    assert time.process_time() - began < 0.2  # 15 ms measured
    again.close()

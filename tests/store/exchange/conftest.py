"""An archive, and the empty store that it came from."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from whole_store import fill

from esen_flows.settings import Settings
from esen_flows.store.connection import open_store
from esen_flows.store.exchange.transfer import export_archive

if TYPE_CHECKING:
    from esen_flows.store.results import Store


@pytest.fixture(scope="module")
def emptied(embedded_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[tuple[Store, bytes]]":
    """An empty store, and an archive of what was in it."""
    store = open_store(embedded_settings.model_copy(update={"database": "test_emptied"}))
    fill(store)
    path = tmp_path_factory.mktemp("archive") / "all.tar"
    export_archive(store, path)
    store.database.drop()
    store.database.make_indexes()
    yield store, path.read_bytes()
    store.database.drop()
    store.close()


@pytest.fixture
def pristine(emptied: "tuple[Store, bytes]") -> bytes:
    """An archive of a whole store."""
    return emptied[1]

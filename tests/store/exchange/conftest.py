"""An archive, and the empty store that it came from."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from emt_campaigns import empty_database
from whole_store import fill, wipe

from esen_flows.settings import Settings
from esen_flows.store.exchange.transfer import export_archive
from esen_flows.store.results import Store


@pytest.fixture(scope="module")
def emptied(embedded_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, bytes]]:
    """An empty store, and an archive of what was in it."""
    with empty_database(embedded_settings) as store:
        fill(store)
        path = tmp_path_factory.mktemp("archive") / "all.tar"
        export_archive(store, path)
        wipe(store)
        yield store, path.read_bytes()


@pytest.fixture
def archive(emptied: tuple[Store, bytes], tmp_path: Path) -> Path:
    """An archive of a whole store, to be changed."""
    (tmp_path / "all.tar").write_bytes(emptied[1])
    return tmp_path / "all.tar"

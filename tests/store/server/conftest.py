"""A private server of its own for each test, and a client in another process."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from esen_flows.settings import Settings
from esen_flows.store.server.embedded import EmbeddedServer, Lease
from esen_flows.store.server.layout import Layout


@pytest.fixture
def server(tmp_path: Path, embedded_settings: Settings) -> Iterator[EmbeddedServer]:
    """A new server in `tmp_path`, not started."""
    server = EmbeddedServer(Layout.of(tmp_path), idle_seconds=60.0, mongod=embedded_settings.mongod)
    yield server
    server.stop(force=True)


@pytest.fixture
def lease(server: EmbeddedServer) -> Iterator[Lease]:
    """The running server, which no other client uses."""
    with contextlib.closing(server.connect()) as lease:
        yield lease

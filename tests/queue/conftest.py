"""A database with its own folder, for tests of workers."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from worker_site import Site

from esen_flows.queue.fireworks_adapter import Pad
from esen_flows.store.results import Store


@pytest.fixture
def site(tmp_path: Path, named_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty database that the environment names, and a folder."""
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "PBS_JOBID"):
        monkeypatch.delenv(name, raising=False)
    site = Site(tmp_path, named_store)
    yield site
    site.end()


@pytest.fixture
def pad(site: Site) -> Iterator[Pad]:
    """The launchpad of that database."""
    pad = Pad(site.store.database, patience_seconds=10.0)
    with closing(pad.connection):
        yield pad

"""Fixtures shared by all tests."""

import io
import json
import os
import tarfile
import tempfile
import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from esen_flows.cli.machine import yield_waiting_threads
from esen_flows.errors import ServerUnavailableError
from esen_flows.settings import Settings, get_settings

if TYPE_CHECKING:
    from ase import Atoms

    from esen_flows.forcefield.third_party.any_ase import AseForceField
    from esen_flows.store.results import Store

# The same examples each time, however busy the machine is, and nothing of them in a folder.
settings.register_profile(
    "esen_flows",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("esen_flows")
# Before any test imports numpy or torch: on a busy machine spinning threads make the suite many times slower.
yield_waiting_threads()
# Tests leave nothing in the user's cache.
os.environ.setdefault("ESEN_FLOWS_CACHE_DIR", str(Path(tempfile.gettempdir(), f"esen_flows_tests_{os.getuid()}")))
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a worker: `pytest -n` has taken the cores already


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For folders of tests as many processes as there are cores, at most four; a single file runs in this one."""
    cores = min(4, len(os.sched_getaffinity(0)))
    return cores if cores > 1 and all(Path(argument).is_dir() for argument in config.args) else 0


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The reference data beside the checkout; tests marked `shared` use it where it is there."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not (path / "fixtures" / "esen").is_dir():
        pytest.skip(f"no reference data at {path}")
    return path


@pytest.fixture(scope="session")
def silicon_dft_frames(shared_dir: Path) -> "list[Atoms]":
    """Every fourth of the 111 VASP supercells of phono3py's Si-PBE example, with energies and forces."""
    from ase.io import read

    frames = []
    with tarfile.open(shared_dir / "data/phono3py/Si-PBE/vasprun_xmls.tar.lzma", "r:xz") as archive:
        for name in sorted(m.name for m in archive if m.name.endswith(".xml"))[::4]:
            member = archive.extractfile(name)
            assert member is not None  # a file
            frames.append(read(io.StringIO(member.read().decode()), format="vasp-xml", index=-1))
    return frames


def write_header_only(path: Path, model_key: str, elements: list[int], conservative: bool = True) -> Path:
    """Write a checkpoint without tensors: enough to be named and keyed, not enough to be loaded.

    Its key, which nothing was made of, counts as verified until the file is changed.
    """
    from esen_flows.schemas.verified_checkpoints import remember

    ours = {
        "format_version": 1,
        "family": "esen",
        "model_key": model_key,
        "elements": elements,
        "declaration": {"conservative": conservative, "equivariance": "SO3", "differentiable": True},
    }
    header = json.dumps({"__metadata__": {"esen_flows": json.dumps(ours)}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    remember(path, model_key)
    return path


@pytest.fixture
def header_only_checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of a silicon force field without tensors."""
    return write_header_only(tmp_path / "silicon.safetensors", "5e" * 32, [14])


@pytest.fixture
def direct_checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of a silicon force field without tensors, whose forces are not conservative."""
    return write_header_only(tmp_path / "direct.safetensors", "d1" * 32, [14], conservative=False)


HAS_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where ESEN_FLOWS_REQUIRE names markers ("mongod shared"), a skipped test with one of them has failed."""
    report = yield
    item.stash[HAS_FAILED] = item.stash.get(HAS_FAILED, False) or report.failed
    required = [m for m in os.environ.get("ESEN_FLOWS_REQUIRE", "").split() if item.get_closest_marker(m) is not None]
    if report.skipped and required and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but ESEN_FLOWS_REQUIRE names {', '.join(required)}: {reason}"
    return report


@pytest.fixture(scope="session")
def embedded_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a private mongod of this test session; skips where no mongod is found."""
    from esen_flows.store.server.embedded import stop
    from esen_flows.store.server.mongod import find_mongod

    settings = Settings(mongo_uri=None, data_dir=tmp_path_factory.mktemp("esen"), mongod_idle_seconds=600.0)
    try:
        find_mongod(settings.mongod)
    except ServerUnavailableError as error:
        pytest.skip(str(error))
    yield settings
    stop(settings, force=True)


@pytest.fixture(scope="session")
def emptied_databases() -> list[str]:
    """Names of databases that earlier tests have left, with their indexes and no documents."""
    return []


@pytest.fixture
def store(
    request: pytest.FixtureRequest, embedded_settings: Settings, emptied_databases: list[str]
) -> "Iterator[Store]":
    """An empty store on the session's private mongod, in a database that no other test uses meanwhile.

    Databases are used again, because to make one with its indexes takes the server longer than most tests. Those of
    workers, whose processes may write after the end of the test, and those of failed tests are not.
    """
    from esen_flows.store.connection import open_store
    from esen_flows.store.database import INDEXES

    is_own = "site" in request.fixturenames
    name = emptied_databases.pop() if emptied_databases and not is_own else f"test_{uuid.uuid4().hex[:12]}"
    settings = embedded_settings.model_copy(update={"database": name})
    yield open_store(settings)
    last = open_store(settings)  # another one where the test has closed the first
    database = last.database
    if is_own or request.node.stash.get(HAS_FAILED, False):
        database.drop()
    else:
        for collection in (database[name] for name in database.collection_names()):
            database.call(partial(collection.delete_many, {}) if collection.name in INDEXES else collection.drop)
        emptied_databases.append(name)
    last.close()


@pytest.fixture
def named_store(store: "Store", embedded_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Store]":
    """The same, which the environment names: `open_store()` opens it, in child processes too."""
    monkeypatch.delenv("ESEN_FLOWS_MONGO_URI", raising=False)
    monkeypatch.setenv("ESEN_FLOWS_DATA_DIR", str(embedded_settings.data_dir))
    monkeypatch.setenv("ESEN_FLOWS_DATABASE", store.database.database_name)
    get_settings.cache_clear()
    yield store
    get_settings.cache_clear()


@dataclass
class Copper:
    """A cheap force field with its database.

    Attributes
    ----------
    checkpoint
        names the force field; `load_force_field` gives `force_field` for it.
    force_field
        EMT's copper; it counts its evaluations.
    store
        empty; `open_store()` opens the same one, in a child process too.
    """

    checkpoint: Path
    force_field: "AseForceField"
    store: "Store"


@pytest.fixture
def copper(tmp_path: Path, named_store: "Store", monkeypatch: pytest.MonkeyPatch) -> Copper:
    """Copper by ASE's EMT in place of a checkpoint, and an empty store that the environment names."""
    from ase.calculators.emt import EMT

    from esen_flows.forcefield import load
    from esen_flows.forcefield.contract import Declaration
    from esen_flows.forcefield.third_party.any_ase import AseForceField

    declaration = Declaration(
        conservative=True, equivariance="O3", differentiable=False, elements=frozenset({29}), dtype="float64"
    )
    force_field = AseForceField(EMT(), key="cc" * 32, label="emt", declaration=declaration)
    monkeypatch.setattr(load, "load_force_field", lambda *arguments, **options: force_field)
    checkpoint = write_header_only(tmp_path / "emt.safetensors", force_field.key, [29])
    return Copper(checkpoint, force_field, named_store)

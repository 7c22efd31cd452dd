"""A firework whose process or server is killed at any write ends as if nothing had happened."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import worker_jobs
from fireworks import FWorker, LaunchPad
from fireworks.core import rocket
from jobflow import SETTINGS
from other_processes import EndedProcess
from pymongo.errors import AutoReconnect
from worker_site import Site

from esen_flows.queue.fireworks_adapter import MOST_OUTAGES, Pad, run_firework
from esen_flows.queue.recover import recover
from esen_flows.stopping import Allocation, allocated
from esen_flows.store import launchpad_repair
from esen_flows.store.claims import Claims
from esen_flows.store.database import Database
from esen_flows.store.jobflow_files import launchpad_spec
from esen_flows.store.jobflow_store import job_store
from esen_flows.store.launchpad import claim_key, find_ready

pytestmark = pytest.mark.mongod
WRITES = ("find_one_and_update", "find_one_and_replace", "update_one", "insert_many", "delete_many", "insert_one")
COLLECTIONS = ("fireworks", "workflows", "launches")
READS = ("find_one", "find", "aggregate", "count_documents", "distinct")


class Killed(BaseException):
    """The process is gone: none of its writes arrives any more."""


class Fuse:
    """Fails at one of the writes to a launchpad.

    Parameters
    ----------
    at
        Number of the write, from 1; 0: never.
    arrives
        Whether the write is carried out before.
    kills
        Whether every later write fails too, as after kill -9; otherwise the server comes back.
    operations
        Operations that are counted.
    lasts
        Number of operations in a row for which the server is away.
    """

    def __init__(
        self, at: int, arrives: bool, kills: bool, operations: tuple[str, ...] = WRITES, lasts: int = 1
    ) -> None:
        self.at, self.arrives, self.kills, self.writes = at, arrives, kills, 0
        self.operations, self.lasts = operations, lasts

    def write(self, carry_out: Callable[[], Any]) -> Any:
        self.writes += 1
        if self.kills and self.at and self.writes > self.at:
            raise Killed
        if not self.at or not self.at <= self.writes < self.at + self.lasts:
            return carry_out()
        if self.arrives and self.writes == self.at:
            carry_out()
        raise Killed if self.kills else AutoReconnect("connection closed")


class Fused:
    """A collection whose writes go through a fuse."""

    def __init__(self, collection: Any, fuse: Fuse) -> None:
        self._collection, self._fuse = collection, fuse

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._collection, name)
        if name not in self._fuse.operations:
            return method
        return lambda *arguments, **options: self._fuse.write(lambda: method(*arguments, **options))


class FusedDatabase:
    """A database whose launchpad goes through a fuse."""

    def __init__(self, database: Database, fuse: Fuse) -> None:
        self._database, self._fuse = database, fuse

    def __getitem__(self, name: str) -> Any:
        collection = self._database[name]
        return Fused(collection, self._fuse) if name in COLLECTIONS else collection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


def burn(pad: Pad, fuse: Fuse) -> None:
    for name in COLLECTIONS:
        setattr(pad, name, Fused(getattr(pad, name), fuse))
    pad.database = FusedDatabase(pad.database, fuse)


@pytest.fixture(autouse=True)
def allocation() -> Iterator[Allocation]:
    """This process has to end."""
    with allocated(Allocation(requested=True)) as found:
        yield found


@pytest.fixture(autouse=True)
def quick(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of dead processes are removed soon, and jobs hand on their rest at once."""
    monkeypatch.setattr(launchpad_repair, "_LOCK_SECONDS", 0.15)
    monkeypatch.setattr(SETTINGS, "JOB_STORE", job_store(site.store))
    monkeypatch.setattr(rocket, "start_ping_launch", lambda *arguments: None)  # a kill would end its thread too
    monkeypatch.chdir(site.folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def begin(site: Site) -> Callable[[], int]:
    """A function that puts a firework which hands on its rest, claimed by a process that is dead by now, in the place
    of all others; its id.
    """
    database = site.store.database
    (number,) = site.add(worker_jobs.obey(site.notes))
    assert [row["fw_id"] for row in find_ready(database, {}, 10.0, 5)] == [number]
    claims = Claims(database, EndedProcess())
    assert claims.try_claim(claim_key(number)) is not None
    claims.close()
    begun = {name: list(database[name].find()) for name in (*COLLECTIONS, "claims", "jobs")}

    def begin() -> int:
        for name, rows in begun.items():
            database[name].delete_many({})
            if rows:
                database[name].insert_many(rows)
        return number

    return begin


def run_with(site: Site, number: int, fuse: Fuse) -> int:
    """Run a firework; the number of its writes."""
    pad = Pad(site.store.database, patience_seconds=10.0)
    burn(pad, fuse)
    try:
        run_firework(pad, number, "tester", "w")
    except Killed:
        pass
    finally:
        pad.connection.close()
    return fuse.writes


def run_what_is_ready(site: Site) -> None:
    pad = Pad(site.store.database, patience_seconds=10.0)
    while ready := find_ready(pad.database, {}, float("inf"), 5):
        assert run_firework(pad, ready[0]["fw_id"], "tester", "w")
    pad.connection.close()


def check(site: Site, at: str = "") -> None:
    """Two fireworks in one workflow are completed: the one that handed on its rest, and the rest exactly once."""
    database = site.store.database
    (workflow,) = database["workflows"].find()
    fireworks = {row["fw_id"]: row for row in database["fireworks"].find()}
    assert {number: row["state"] for number, row in fireworks.items()} == dict.fromkeys(
        workflow["nodes"], "COMPLETED"
    ), at
    assert sorted(row["name"] for row in fireworks.values()) == ["add", "obey"]
    assert set(workflow["fw_states"].values()) == {"COMPLETED"}
    assert "locked" not in workflow


def test_a_write_that_is_lost_with_the_server_changes_nothing(site: Site, begin: Callable[[], int]) -> None:
    """One that arrives although its answer is lost is among the operations of the next test."""
    writes = run_with(site, begin(), Fuse(0, arrives=False, kills=False))
    run_what_is_ready(site)
    check(site)
    assert writes > 10
    for at in range(1, writes + 1):
        run_with(site, begin(), Fuse(at, arrives=False, kills=False))
        run_what_is_ready(site)
        check(site, f"write {at}")


@pytest.mark.parametrize("lasts", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_an_outage_at_any_operation_or_one_that_lasts_changes_nothing(
    site: Site, begin: Callable[[], int], lasts: int
) -> None:
    """By itself, FireWorks would take a firework that it cannot read for a broken one."""
    operations = WRITES + READS
    count = run_with(site, begin(), Fuse(0, arrives=False, kills=False, operations=operations))
    assert count > 20
    for at in range(1, count + 1):
        run_with(site, begin(), Fuse(at, arrives=True, kills=False, operations=operations, lasts=lasts))
        run_what_is_ready(site)
        check(site, f"operation {at}")


# A write that did not arrive looks like a kill after the write before.
@pytest.mark.parametrize("arrives", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_kill_at_any_write_is_recovered(
    site: Site, begin: Callable[[], int], monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    monkeypatch.setattr("esen_flows.queue.recover.CONFIRM_SECONDS", 0.1)
    writes = run_with(site, begin(), Fuse(0, arrives=False, kills=False))
    for at in range(1, writes + 1):
        run_with(site, begin(), Fuse(at, arrives, kills=True))
        recover(site.store, now=True)
        run_what_is_ready(site)
        check(site, f"write {at}")


def test_a_server_that_never_answers_a_job_is_the_jobs_failure(site: Site, pad: Pad) -> None:
    (number,) = site.add(worker_jobs.lose_a_server())
    for _ in range(MOST_OUTAGES + 1):
        assert site.states() == {number: "READY"}
        assert run_firework(pad, number, "tester", "w")
        assert pad.handed_back == (site.states()[number] == "READY")
    assert site.states() == {number: "FIZZLED"}


def test_an_exit_is_a_failure_unless_the_process_has_to_end(site: Site, pad: Pad, allocation: Allocation) -> None:
    (number,) = site.add(worker_jobs.leave())
    assert run_firework(pad, number, "tester", "w")
    assert pad.handed_back
    assert site.states() == {number: "READY"}
    allocation.requested = False
    assert run_firework(pad, number, "tester", "w")
    assert site.states() == {number: "FIZZLED"}


def test_a_firework_that_cannot_be_read_is_a_failure_with_its_reason(site: Site, pad: Pad) -> None:
    (number,) = site.add(worker_jobs.leave())
    database = site.store.database
    database["fireworks"].update_one({}, {"$set": {"spec._tasks.0.job.function.@module": "no_such_package"}})
    assert not run_firework(pad, number, "tester", "w")
    assert site.states() == {number: "FIZZLED"}
    firework = database["fireworks"].find_one()
    assert "no_such_package" in firework["spec"]["_exception_details"]["_stacktrace"]


def test_a_firework_runs_only_once(site: Site, pad: Pad) -> None:
    (number,) = site.add(worker_jobs.add(1, 2, site.notes))
    assert run_firework(pad, number, "tester", "w")
    assert not run_firework(pad, number, "tester", "w")
    assert len(site.lines()) == 1


def test_what_rlaunch_took_during_an_outage_is_left_to_it(site: Site, pad: Pad) -> None:
    (number,) = site.add(worker_jobs.add(1, 2, site.notes))
    plain = LaunchPad.from_dict(launchpad_spec(site.store.database))
    fireworks = pad.fireworks

    def lose(*arguments: Any, **options: Any) -> Any:
        pad.fireworks = fireworks
        assert plain.checkout_fw(FWorker("plain"), str(site.folder))[1] is not None
        raise AutoReconnect("connection closed")

    pad.fireworks = SimpleNamespace(find_one_and_update=lose)
    assert not run_firework(pad, number, "tester", "w")
    assert site.states() == {number: "RUNNING"}
    plain.connection.close()

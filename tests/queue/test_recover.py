"""Recovery of lost fireworks: which become READY, which are left alone, and how long that takes."""

import os
import re
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import worker_jobs
from fireworks import FWorker
from other_processes import EndedProcess, RemoteProcess
from worker_site import Site

from esen_flows.queue import recover as module
from esen_flows.queue.allocation import Answer
from esen_flows.queue.child_deaths import ChildDeaths
from esen_flows.queue.fireworks_adapter import WORKER_MARK, Pad
from esen_flows.queue.recover import RecoveryReport, recover
from esen_flows.queue.worker_settings import WorkDone
from esen_flows.store import launchpad_repair
from esen_flows.store.claims import Claims
from esen_flows.store.host import Host
from esen_flows.store.launchpad import claim_key
from esen_flows.store.workers import WorkerFacts, WorkerRecord

pytestmark = pytest.mark.mongod
CONFIRM = 0.4


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchpad_repair, "_LOCK_SECONDS", 0.1)
    monkeypatch.setattr(module, "CONFIRM_SECONDS", CONFIRM)


def begin(site: Site, pad: Pad, *, host: Host | None = None, env: dict[str, str] | None = None, **spec: Any) -> int:
    """A firework that a process has begun with; the process claims it if `host` is given."""
    made = worker_jobs.add(1, 2, site.notes)
    made.metadata.update(spec)
    (number,) = site.add(made)
    if host is not None:
        claims = Claims(site.store.database, host, lifetime_seconds=0.2 if isinstance(host, RemoteProcess) else 45.0)
        assert claims.try_claim(claim_key(number)) is not None
        claims.close()  # so that it is not renewed
    pad.checkout_fw(FWorker("w", "", {"fw_id": number}, env or {}), str(site.folder))
    return number


def no_queue(command: Sequence[str]) -> Answer | None:
    return None


def look(site: Site, **options: Any) -> RecoveryReport:
    return recover(site.store, run=options.pop("run", no_queue), **options)


def make_older(site: Site, seconds: float) -> None:
    """Date back all launches and fireworks."""
    then = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    database = site.store.database
    for launch in database["launches"].find():
        history = [{**entry, "created_on": then, "updated_on": then} for entry in launch["state_history"]]
        database["launches"].update_one({"_id": launch["_id"]}, {"$set": {"state_history": history}})
    database["fireworks"].update_many({}, {"$set": {"created_on": then, "updated_on": then}})


def test_a_worker_takes_up_what_a_killed_worker_left(site: Site) -> None:
    gate = site.folder / "gate"
    (number,) = site.add(worker_jobs.wait(site.notes, 600, str(gate)))
    killed = site.start()
    site.wait(lambda: site.lines() == ["began"])
    child = site.child_of(killed)
    os.kill(killed.pid, signal.SIGSTOP)  # so that it cannot see its child die
    os.kill(child, signal.SIGKILL)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert site.states() == {number: "RUNNING"}
    gate.touch()
    second = site.start("--idle", "0.5")
    said = site.said_by(second)
    # Opening a store clears away the claim; the launch still says that there was one.
    assert re.search(rf"firework {number}: its process on \S+ is gone; READY again", said)
    assert "1 fireworks completed, 0 failed, 1 of others put right" in said
    assert site.states() == {number: "COMPLETED"}


def test_living_processes_are_left_alone_and_dead_ones_of_this_machine_are_known_at_once(
    site: Site, pad: Pad, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive, dead = begin(site, pad, host=Host()), begin(site, pad, host=EndedProcess())
    swept = begin(site, pad, env={WORKER_MARK: "w"})  # its claim was cleared away
    monkeypatch.setattr(module, "CONFIRM_SECONDS", -1.0)  # no second look: sleeping for a negative time would fail
    report = look(site)
    assert set(report.reasons) == {dead, swept}
    assert report.running == 1
    assert site.states() == {alive: "RUNNING", dead: "READY", swept: "READY"}
    assert site.store.database["claims"].count_documents({}) == 1  # of the living process
    assert look(site).reasons == {}
    assert "2 fireworks put right, 1 are running" in str(report)


def test_fireworks_of_a_workers_own_child_are_left_to_the_worker(site: Site, pad: Pad) -> None:
    """The worker counts how many processes a firework has killed; a faster recovery would allow one more."""
    number = begin(site, pad, host=EndedProcess())
    claims = Claims(site.store.database)
    own = module.LostRunRecovery(site.store, pad, claims, no_queue, is_looked_after=lambda firework: firework == number)
    assert own.look().reasons == {}
    other = module.LostRunRecovery(site.store, pad, claims, no_queue, is_looked_after=lambda firework: False)
    assert "has ended" in other.look().reasons[number]
    claims.close()


@pytest.mark.parametrize("claim", ["cleared away", "of another process"])
def test_a_kill_is_counted_without_the_claim_of_the_dead_process(site: Site, pad: Pad, claim: str) -> None:
    """Every store that is opened clears claims of dead processes away, and a child may look whether they are READY."""
    number = begin(site, pad)
    database = site.store.database
    claims, other = Claims(database), Claims(database)
    done = WorkDone()
    child: Any = SimpleNamespace(identity=EndedProcess().process(), work=(number, "crash"))
    deaths = ChildDeaths(pad, claims, done)
    recovery = module.LostRunRecovery(site.store, pad, claims, no_queue)
    for _ in range(2):
        deaths.return_fireworks(child, blame=True)
        assert site.states() == {number: "READY"}
        pad.checkout_fw(FWorker("w", "", {"fw_id": number}, {WORKER_MARK: "w"}), str(site.folder))
    held = other.try_claim(claim_key(number)) if claim == "of another process" else None
    deaths.return_fireworks(child, blame=True)
    if held is not None:
        assert site.states() == {number: "RUNNING"}
        other.forget(held)
        assert "it killed its process 3 times" in recovery.look().reasons[number]
    else:
        assert done.failed == 1
    assert site.states() == {number: "FIZZLED"}
    assert done.handed_back == 2
    claims.close()
    other.close()


def test_an_expired_claim_of_another_machine_needs_a_second_look(site: Site, pad: Pad) -> None:
    number = begin(site, pad, host=RemoteProcess())
    time.sleep(0.3)
    begun = time.monotonic()
    report = look(site)
    assert time.monotonic() - begun >= CONFIRM
    assert "of elsewhere has given no sign of life; READY again" in report.reasons[number]
    assert site.states() == {number: "READY"}


def test_a_process_that_was_silent_because_of_an_outage_is_not_dead(
    site: Site, pad: Pad, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = begin(site, pad, host=RemoteProcess())
    time.sleep(0.3)
    claims = site.store.database["claims"]

    def renew(_: float) -> None:  # its heartbeat, between the two looks
        later = {"$add": ["$$NOW", 45_000]}
        claims.update_one({"_id": claim_key(number)}, [{"$set": {"expires_at": later}}])

    monkeypatch.setattr(module.time, "sleep", renew)
    report = look(site)
    assert (report.reasons, report.running) == ({}, 1)
    assert site.states() == {number: "RUNNING"}


def test_a_queue_job_that_is_gone_takes_its_fireworks_with_it(site: Site, pad: Pad) -> None:
    database = site.store.database
    number = begin(site, pad)
    claims = Claims(database, RemoteProcess())
    claim = claims.try_claim(claim_key(number))
    assert claim is not None
    facts = WorkerFacts("w", "gpu", ("0",), {"kind": "slurm", "id": "17", "cluster": "test"})
    record = WorkerRecord(database, facts)
    record.begin()
    record.seen([number], [RemoteProcess().process().as_dict()], 0, 0)
    config, user = "ClusterName = test\n", database["workers"].find_one()["user"]

    def queue(listed: str) -> Any:
        answers = {"scontrol": (config, "", 0), f"squeue -h -r -u {user}": (listed, "", 0)}
        return lambda command: next((a for s, a in answers.items() if " ".join(command).startswith(s)), None)

    assert look(site, run=queue("17 RUNNING\n")).running == 1
    assert look(site).running == 1  # no queue to ask here
    commands: list[Sequence[str]] = []
    recovery = module.LostRunRecovery(site.store, pad, claims, lambda command: commands.append(command))
    assert [recovery.look().running for _ in range(5)] == [1] * 5
    assert len(commands) == 1  # a queue is not asked at every look
    assert look(site, run=queue("18 RUNNING\n")).reasons == {number: "queue job 17 is gone; READY again"}
    assert site.states() == {number: "READY"}
    assert database["claims"].count_documents({}) == 0
    claims.close()


def test_a_job_of_ours_without_our_worker_is_alive_if_it_holds_the_claim_on_its_result(site: Site, pad: Pad) -> None:
    working = begin(site, pad, result_key="aa" * 32)
    dead = begin(site, pad, result_key="bb" * 32)
    claims = Claims(site.store.database)
    assert claims.try_claim("aa" * 32) is not None
    assert look(site).running == 2  # it may still load its force field
    make_older(site, 61.0)
    report = look(site)
    assert set(report.reasons) == {dead}
    assert site.states() == {working: "RUNNING", dead: "READY"}
    claims.close()


def test_jobs_of_other_packages_are_dead_when_they_have_not_pinged_for_hours(site: Site, pad: Pad) -> None:
    number = begin(site, pad)
    make_older(site, 3.9 * 3600)
    report = look(site)
    assert report.reasons == {}
    assert report.unknown == {number: f"add, in {site.folder} on {os.uname().nodename}"}
    assert "lpad rerun_fws -i ID" in str(report)
    make_older(site, 4.1 * 3600)
    assert "has not pinged for 4.1 h" in look(site).reasons[number]
    assert site.states() == {number: "READY"}


def test_reservations_without_their_queue_job_are_given_up(site: Site, pad: Pad) -> None:
    reserved, taken = site.add(worker_jobs.add(1, 1, site.notes), worker_jobs.add(2, 2, site.notes))
    _, launch = pad.reserve_fw(FWorker("w", "", {"fw_id": reserved}), str(site.folder), fw_id=reserved)
    pad.set_reservation_id(launch, "17")
    # As after a kill between the first two writes of a worker.
    pad.fireworks.update_one({"fw_id": taken}, {"$set": {"state": "RESERVED"}})
    listed = "17 PENDING\n"

    def queue(command: Sequence[str]) -> Answer | None:
        return {"scontrol": ("ClusterName = test\n", "", 0), "squeue": (listed, "", 0)}.get(command[0])

    start = time.monotonic()
    reasons = look(site, run=queue).reasons
    assert time.monotonic() - start >= CONFIRM  # a living process may be about to write the next one
    assert reasons == {taken: "its process was killed at its start; READY again"}
    listed = "18 PENDING\n"
    report = look(site, run=queue)
    assert "queue job 17, which it was reserved for, is gone" in report.reasons[reserved]
    assert set(site.states().values()) == {"READY"}


def test_a_firework_without_a_workflow_is_removed_when_it_is_old_enough(site: Site, pad: Pad) -> None:
    (number,) = site.add(worker_jobs.add(1, 1, site.notes))
    site.store.database["workflows"].delete_many({})
    assert look(site).reasons == {}
    make_older(site, 61.0)
    assert "without a workflow" in look(site).reasons[number]
    assert site.states() == {}


def test_a_chunk_that_rlaunch_runs_is_alive_by_its_process_or_its_claims(site: Site, pad: Pad) -> None:
    database, now = site.store.database, datetime.now(UTC)
    begun = {chunk: begin(site, pad, campaign="c", chunk=chunk) for chunk in ("here", "gone", "there", "lost", "none")}
    workers = {"here": f"{Host().process().host}:{os.getpid()}", "gone": f"{Host().process().host}:{2**22 + 1}"}
    for chunk in ("here", "gone", "there", "lost"):
        run = {"campaign": "c", "chunk": chunk, "state": "running", "in_flight": [chunk], "started_at": now}
        database["campaign_runs"].insert_one({**run, "worker": workers.get(chunk, "elsewhere:7")})
        database["campaign_members"].insert_one({"campaign": "c", "key": chunk, "steps": [f"forces of {chunk}", chunk]})
    claims = Claims(database, RemoteProcess())
    assert claims.try_claim("forces of there") is not None
    assert look(site).running == 5  # a process needs some time to begin
    make_older(site, 61.0)
    report = look(site)
    claims.close()
    assert set(report.reasons) == {begun["gone"], begun["lost"], begun["none"]}
    assert {chunk for chunk, number in begun.items() if site.states()[number] == "RUNNING"} == {"here", "there"}

"""`esen-flows worker` with real processes and a real server: finished, killed and returned work."""

import os
import signal
from pathlib import Path

import pytest
import worker_jobs
from jobflow import Flow
from worker_site import Site

from esen_flows.queue.fireworks_adapter import open_launchpad
from esen_flows.settings import get_settings
from esen_flows.store.server import embedded

pytestmark = pytest.mark.mongod


def test_every_device_works_and_a_firework_that_kills_is_given_up(site: Site) -> None:
    first = worker_jobs.add(1, 2, site.notes)
    second = worker_jobs.add(first.output, 4, site.notes)
    fine = site.add(Flow([first, second]), *(worker_jobs.add(n, n, site.notes) for n in range(4)))
    failing, killing = site.add(
        worker_jobs.fail(str(site.folder / "failures")), worker_jobs.crash(str(site.folder / "kills"))
    )
    worker = site.start("--devices", "3,5", "--idle", "1.5")
    said = site.said_by(worker)
    states = site.states()
    assert [states[number] for number in fine] == ["COMPLETED"] * 5
    assert sorted(states.values()) == ["COMPLETED"] * 6 + ["FIZZLED"] * 2
    assert "ended because there was nothing to do for 1.5 s" in said
    assert f"firework {failing} fail: fizzled" in said
    # Every child saw a device of its own, and the foreign job that kills was given up after three times.
    noted = [line.split() for line in site.lines()]
    assert {device for _, device, _ in noted} <= {"3", "5"}
    assert {threads for *_, threads in noted} == {"1"}
    assert len((site.folder / "kills").read_text().splitlines()) == 3
    assert said.count("died of SIGSEGV") == 3
    spec = site.store.database["fireworks"].find_one({"fw_id": killing})["spec"]
    assert spec["_exception_details"]["_message"] == "it killed its process 3 times"
    # Nothing is left behind: no claim, no process; the worker's own document says how it was.
    assert site.store.database["claims"].count_documents({}) == 0
    (record,) = site.store.database["workers"].find()
    assert (record["done"], record["failed"], record["fireworks"]) == (6, 2, [])
    assert record["devices"] == ["3", "5"]
    assert record["ended_at"] >= record["seen_at"] > record["started_at"]


def test_a_signal_hands_everything_back_at_once(site: Site) -> None:
    going_on, broken_off, unresponsive = site.add(
        worker_jobs.obey(site.notes), worker_jobs.break_off(site.notes), worker_jobs.ignore(site.notes)
    )
    worker = site.start("--processes", "3", "--grace", "12")
    site.wait(lambda: site.lines().count("began") == 3)
    worker.send_signal(signal.SIGTERM)
    said = site.said_by(worker, 75)  # not the hour that `ignore` sleeps
    states = site.states()
    assert states[going_on] == "COMPLETED"
    assert states[broken_off] == states[unresponsive] == "READY"
    assert list(states.values()).count("READY") == 3  # with what was handed on
    assert "does not end and is killed" in said
    assert "SIGTERM asked for it" in said
    assert site.store.database["claims"].count_documents({}) == 0


def test_killed_processes_and_those_in_which_a_firework_failed_are_replaced(site: Site) -> None:
    gate = site.folder / "gate"
    work = [
        worker_jobs.wait(site.notes, 600, str(gate)),
        worker_jobs.fail(site.notes),
        worker_jobs.add(1, 1, site.notes),
    ]
    for priority, one in zip((3, 2, 1), work, strict=True):
        one.update_config({"manager_config": {"_priority": priority}})
    numbers = site.add(*work)
    worker = site.start("--idle", "0.5")
    site.wait(lambda: site.lines() == ["began"])
    child = site.child_of(worker)
    assert b"mongodb" not in Path(f"/proc/{child}/cmdline").read_bytes()
    os.kill(child, signal.SIGKILL)
    site.wait(lambda: site.lines() == ["began", "began"])
    second = site.child_of(worker)
    gate.touch()
    said = site.said_by(worker)
    assert "died of SIGKILL" in said
    assert f"firework {numbers[0]}: READY again" in said
    assert [site.states()[number] for number in numbers] == ["COMPLETED", "FIZZLED", "COMPLETED"]
    firework = site.store.database["fireworks"].find_one({"fw_id": numbers[0]})
    assert (len(firework["archived_launches"]), len(firework["launches"])) == (1, 1)  # FireWorks keeps both
    third = site.lines()[-1].split()[0]
    assert site.lines()[2:4] == ["ended", f"{second} fails"]
    assert int(third) not in (child, second)
    assert "1 processes died" in said


def test_a_firework_that_is_defused_while_it_runs_has_not_failed(site: Site) -> None:
    gate = site.folder / "gate"
    (number,) = site.add(worker_jobs.wait(site.notes, 600, str(gate)))
    worker = site.start("--idle", "0.5")
    site.wait(lambda: site.lines() == ["began"])
    with open_launchpad(site.store.database) as launchpad:
        launchpad.defuse_fw(number)
    gate.touch()
    said = site.said_by(worker)
    assert "0 fireworks completed, 0 failed, 1 withdrawn by others;" in said
    assert site.states() == {number: "DEFUSED"}


def test_a_child_without_its_worker_hands_back_and_ends(site: Site) -> None:
    (number,) = site.add(worker_jobs.obey(site.notes))
    worker = site.start()
    site.wait(lambda: site.lines() == ["began"])
    child = site.child_of(worker)
    worker.kill()
    worker.wait()
    site.wait(lambda: not Path(f"/proc/{child}").exists())
    assert site.lines() == ["began", "handed on"]
    assert sorted(site.states().items()) == [(number, "COMPLETED"), (number + 1, "READY")]
    assert site.store.database["claims"].count_documents({}) == 0


def test_the_worker_ends_before_its_walltime(site: Site) -> None:
    long = worker_jobs.add(1, 1, site.notes)
    long.update_config({"manager_config": {"least_seconds": 100.0}})
    broken_off, left_alone = site.add(worker_jobs.break_off(site.notes), long)
    worker = site.start("--walltime", "0:00:05", "--margin", "2")
    said = site.said_by(worker, 75)
    assert "its time is up" in said
    assert set(site.lines()) <= {"began"}  # on a busy machine the time may be up before
    assert site.states() == {broken_off: "READY", left_alone: "READY"}


def test_work_goes_on_when_the_server_is_killed(site: Site) -> None:
    numbers = site.add(*(worker_jobs.add(n, n, site.notes) for n in range(24)))
    worker = site.start("--processes", "2", "--idle", "1")
    for done in (4, 12):
        site.wait(lambda done=done: len(site.lines()) >= done)
        os.kill(embedded.status(get_settings())["mongod_pid"], signal.SIGKILL)
        site.store.database.call(lambda: site.store.database["claims"].find_one())
    said = site.said_by(worker)
    assert set(site.states().values()) == {"COMPLETED"}, said
    assert len(site.states()) == len(numbers)
    assert len(site.lines()) <= len(numbers) + 2 * 2  # what was in flight


def test_conditions_that_the_database_refuses_give_one_line(site: Site) -> None:
    worker = site.start("--query", '{"$nonsense": 1}')
    said = site.said_by(worker, 1)
    assert "unknown top level operator: $nonsense" in said
    assert "Traceback" not in said
    assert "died" not in said

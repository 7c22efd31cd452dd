"""Fireworks of others: a worker takes jobs of jobflow, and tasks of other packages only if it is told to."""

from pathlib import Path
from typing import Any

import pytest
import worker_jobs
from fireworks import Firework, PyTask, ScriptTask, Workflow
from worker_site import Site

from esen_flows.queue.fireworks_adapter import Pad, open_launchpad, worker_query
from esen_flows.queue.submit import make_launchpad
from esen_flows.store.launchpad import find_ready

pytestmark = pytest.mark.mongod


def ready(pad: Pad, *, any_task: bool = False) -> list[str]:
    """Names of the fireworks that a worker would take."""
    query = worker_query("here", "", {}, any_task=any_task)
    return sorted(row["name"] for row in find_ready(pad.database, query, float("inf"), 100))


def insert(pad: Pad, number: int, name: str, spec: dict[str, Any]) -> None:
    """A firework as anybody may write it into the database."""
    row = {"fw_id": number, "name": name, "state": "READY", "spec": spec, "created_on": "2026-11-28T00:00:00"}
    pad.database["fireworks"].insert_one(row)
    pad.database["workflows"].insert_one({"nodes": [number], "state": "READY"})


JOB = {"_fw_name": "{{jobflow.managers.fireworks.JobFiretask}}"}
OWN = {"_fw_name": "{{esen_flows.queue.some.Task}}"}
SCRIPT = {"_fw_name": "ScriptTask", "script": "touch ran"}


def test_only_jobs_of_jobflow_and_own_tasks_are_taken(pad: Pad) -> None:
    shapes: dict[str, dict[str, Any]] = {
        "a job": {"_tasks": [JOB]},
        "one of ours": {"_tasks": [JOB, OWN]},
        "a script": {"_tasks": [SCRIPT]},
        "a job and a script": {"_tasks": [JOB, SCRIPT]},
        "a script without a list": {"_tasks": SCRIPT},
        "a list in a list": {"_tasks": [[SCRIPT]]},
        "a function": {"_tasks": [{"_fw_name": "PyTask", "func": "os.getcwd"}]},
        "a class by its module": {"_tasks": [{"_fw_name": "{{other.esen_flows.Task}}"}]},
        "a task without a name": {"_tasks": [{"script": "touch ran"}]},
        "no task": {},
        "in the background": {"_tasks": [JOB], "_background_tasks": [{"tasks": [SCRIPT]}]},
        "to find duplicates": {"_tasks": [JOB], "_dupefinder": {"_fw_name": "{{other.Finder}}"}},
    }
    for number, (name, spec) in enumerate(shapes.items(), start=1):
        insert(pad, number, name, spec)
    assert ready(pad) == ["a job", "one of ours"]
    assert ready(pad, any_task=True) == sorted(shapes)


def test_a_worker_says_what_it_leaves_alone_and_runs_it_when_told_to(site: Site) -> None:
    make_launchpad(site.store.database)
    mark = site.folder / "ran"
    with open_launchpad(site.store.database) as launchpad:
        script = Firework([ScriptTask.from_str(f"echo script >> {mark}")], name="script")
        function = Firework([PyTask(func="os.mkdir", args=[str(site.folder / "made")])], name="function")
        launchpad.add_wf(Workflow([script]))
        launchpad.add_wf(Workflow([function]))
    (number,) = site.add(worker_jobs.add(1, 1, site.notes))
    said = site.said_by(site.start("--idle", "0.5"))
    assert "left alone: READY fireworks with PyTask, ScriptTask" in said
    assert said.count("left alone") == 1
    assert sorted(site.states().values()) == ["COMPLETED", "READY", "READY"]
    assert site.states()[number] == "COMPLETED"
    assert not mark.exists()
    assert not Path(site.folder / "made").exists()
    said = site.said_by(site.start("--idle", "0.5", "--any-task"))
    assert "left alone" not in said
    assert set(site.states().values()) == {"COMPLETED"}
    assert mark.read_text() == "script\n"

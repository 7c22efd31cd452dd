"""A flow of jobs that do not come from this package, run with our settings files."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FOREIGN = """
import json, sys, warnings
warnings.simplefilter("ignore")
from fireworks import FWorker, LaunchPad
from fireworks.core.rocket_launcher import rapidfire
from jobflow import SETTINGS, Flow, job
from jobflow.managers.fireworks import flow_to_workflow
import foreign_job

launchpad = LaunchPad.from_file("my_launchpad.yaml")
launchpad.reset("", require_password=False)
worker = FWorker.from_file("my_fworker.yaml")
first = foreign_job.make(3)
second = foreign_job.total(first.output["large"])
unlisted, bare = foreign_job.unlisted(7), foreign_job.bare()
launchpad.add_wf(flow_to_workflow(Flow([first, second, unlisted, bare])))
rapidfire(launchpad, worker, nlaunches=0, strm_lvl="ERROR")
states = [launchpad.get_fw_by_id(n).state for n in launchpad.get_fw_ids()]
SETTINGS.JOB_STORE.connect()
print(json.dumps({"states": states, "total": SETTINGS.JOB_STORE.get_output(second.uuid),
                  "unlisted": len(SETTINGS.JOB_STORE.get_output(bare.uuid, load=True)),
                  "torch": "torch" in sys.modules}))
"""
FOREIGN_JOB = """
from jobflow import job

@job(data=["large"])
def make(n):
    return {"n": n, "large": ["x" * 1_000_000] * 18 + [n]}

@job
def unlisted(n):
    return {"n": n, "blob": ["x" * 1_000_000] * 18}

@job
def bare():
    return ["x" * 1_000_000] * 18

@job
def total(large):
    return large[-1] + len(large)
"""


def run_foreign_flow(folder: Path) -> dict[str, Any]:
    """Run four jobs through FireWorks with the files that `write_jobflow_files` wrote into a folder; their results."""
    (folder / "foreign_job.py").write_text(FOREIGN_JOB)
    variables = {"JOBFLOW_CONFIG_FILE": str(folder / "jobflow.yaml"), "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    (folder / "printed").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results

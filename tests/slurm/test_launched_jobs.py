"""Filled-in launchers on a real queue: batch jobs, qlaunch, warnings, cancelled jobs, training with two processes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import queue_jobs
import yaml
from ase.build import bulk
from jobflow import Flow
from one_node import SlurmSite, wait_for

from esen_flows.makers.relax import RelaxMaker
from esen_flows.queue.launchers import fill
from esen_flows.queue.submit import submit
from esen_flows.store.jobflow_files import write_jobflow_files
from esen_flows.store.results import Store

pytestmark = [pytest.mark.slurm, pytest.mark.mongod]
BIN = Path(sys.executable).parent


@dataclass
class Launched:
    """A site with its launchers, and the database of its jobs."""

    site: SlurmSite
    folder: Path
    store: Store

    def sbatch(self, script: str, *arguments: str, **variables: str) -> str:
        return self.site.submit(str(self.folder / script), *arguments, environment=variables)

    def states(self) -> list[str]:
        rows = self.store.database["fireworks"].find({}, {"state": True}, sort=[("fw_id", 1)])
        return [row["state"] for row in rows]

    def jobs(self) -> set[str]:
        """Numbers of all jobs that qlaunch has submitted, ended ones too."""
        return set(self.site.run("squeue", "--noheader", "--states=all", "--format=%A", "--name=esen-node").split())

    def told(self, job: str) -> str:
        return next((self.folder / "log").glob(f"*-{job}.out")).read_text()


@pytest.fixture
def launched(
    slurm_site: SlurmSite, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Launched]:
    """`launcher init` for the test site, with an empty database."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # of queue_jobs, in jobs as here
    uri_file = tmp_path / "uri"
    uri_file.touch(mode=0o600)
    uri_file.write_text(store.database.uri)
    values = {"partition": "gpu", "gpus_per_node": "2", "cpus_per_gpu": "1", "nodes": "1", "walltime": "0:20:00"}
    values |= {"cpu_partition": "cpu", "uri_file": str(uri_file), "database": store.database.database_name}
    fill("slurm_gpu", values, tmp_path / "site")
    yield Launched(slurm_site, tmp_path / "site", store)
    slurm_site.run("scancel", "--full", "--signal=KILL", "--state=RUNNING", "--user", str(os.getuid()))


def test_a_cancelled_node_gives_back_its_work(launched: Launched, tmp_path: Path) -> None:
    files = [tmp_path / "obeyed", tmp_path / "hung"]
    jobs = [queue_jobs.obey(str(files[0])), queue_jobs.hang(str(files[1]))]
    for each in jobs:
        each.config.manager_config = {"_category": "gpu"}
        submit(Flow([each]), store=launched.store)
    first = launched.sbatch("node.sbatch")
    wait_for("two jobs at work", lambda: all(file.exists() for file in files))
    seen = sorted(file.read_text().split() for file in files)
    assert seen == [["0", "1"], ["1", "1"]]  # each child has one GPU, and its own number of threads
    launched.site.run("scancel", first)
    assert launched.site.wait(first) == ["CANCELLED"]
    # A job that obeys is handed back by its own process. A hanging one is killed by SLURM together with its worker.
    assert launched.states() == ["READY", "RUNNING"]
    second = launched.sbatch("node.sbatch", "--idle", "1")
    assert launched.site.wait(second) == ["COMPLETED"]
    assert launched.states() == ["COMPLETED", "COMPLETED"]
    assert "1 of others put right" in launched.told(second)
    assert [len(file.read_text().splitlines()) for file in files] == [2, 2]


def test_a_warned_job_comes_back(launched: Launched, tmp_path: Path) -> None:
    job = queue_jobs.obey(str(tmp_path / "obeyed"))
    job.config.manager_config = {"_category": "gpu"}
    submit(Flow([job]), store=launched.store)
    number = launched.sbatch("gpu.sbatch", "--idle", "1", RESUBMIT="1")
    wait_for("a job at work", (tmp_path / "obeyed").exists)
    launched.site.run("scancel", "--batch", "--signal=USR1", number)  # as SLURM does ahead of the end
    wait_for("a job that was put back", lambda: launched.site.state(number) == "PENDING")
    time.sleep(2)  # SLURM tells the two runs' credentials apart by their seconds
    launched.site.run("scontrol", "update", f"jobid={number}", "StartTime=now")  # two minutes, otherwise
    assert launched.site.wait(number) == ["COMPLETED"]
    assert launched.states() == ["COMPLETED"]
    assert f"job {number} goes back into the queue" in launched.told(number)
    assert (tmp_path / "obeyed").read_text().split("\n")[:2] == ["0 1", "0 1"]


@pytest.mark.parametrize("started", ["worker", "rlaunch"])
def test_qlaunch_starts_a_node(started: str, launched: Launched, tmp_path: Path) -> None:
    submission = submit(Flow([RelaxMaker(force_field_name="emt").make(bulk("Cu"))]), store=launched.store)
    write_jobflow_files(launched.store.database, launched.folder / "database")
    folder, adapter = launched.folder, yaml.safe_load((launched.folder / "my_qadapter.yaml").read_text())
    if started == "worker":
        adapter["rocket_launch"] += " --idle 1"
    else:  # FireWorks alone, as launchers/README.md has it
        settings = f"-l {folder}/database/my_launchpad.yaml -w {folder}/my_fworker.yaml"
        adapter |= {"pre_rocket": f". {folder}/environment.sh", "rocket_launch": f"rlaunch {settings} singleshot"}
    (folder / "my_qadapter.yaml").write_text(yaml.safe_dump(adapter))
    files = ("-l", "database/my_launchpad.yaml", "-w", "my_fworker.yaml", "-q", "my_qadapter.yaml")
    command = [str(BIN / "qlaunch"), *files, "--launch_dir", str(tmp_path), "singleshot"]
    before = launched.jobs()
    subprocess.run(command, cwd=folder, env=launched.site.environment, check=True, timeout=120)
    (number,) = launched.jobs() - before
    assert launched.site.wait(number) == ["COMPLETED"]
    assert launched.states() == ["COMPLETED"]
    document = launched.store.get(submission.result_keys[-1])
    assert document is not None
    # Copper by EMT has its minimum at a = 3.5898 A.
    assert document.summary["volume_per_atom_angstrom3"] == pytest.approx(3.5898**3 / 4, rel=3e-3)


RANK = """#!{python}
import sys
import time
from esen_flows.training.distributed import joined
with joined("cpu") as world:
    print(sys.argv[1:], world.rank, world.size, world.sum([world.rank + 1])[0])
"""


def test_a_training_is_one_of_several_processes(launched: Launched, tmp_path: Path) -> None:
    program = tmp_path / "esen-flows"
    program.write_text(RANK.format(python=sys.executable))
    program.chmod(0o755)
    with (launched.folder / "environment.sh").open("a") as file:
        file.write(f'export PATH={tmp_path}:"$PATH"\n')
    number = launched.sbatch("train.sbatch", "some.yaml", "--folder", "f")
    assert launched.site.wait(number) == ["COMPLETED"]
    told = sorted(launched.told(number).splitlines())
    assert told == [f"['train', 'some.yaml', '--folder', 'f'] {rank} 2 3.0" for rank in (0, 1)]

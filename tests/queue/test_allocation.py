"""Answers of queues, in the form of SLURM 22.05 and PBS Pro 2022, and what follows for a worker."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from esen_flows.durations import clock_seconds
from esen_flows.queue.allocation import (
    Answer,
    ended_jobs,
    job_of_this_queue,
    processors,
    queue_job,
    run_command,
    seconds_until_end,
    visible_devices,
)

SLURM = {"SLURM_JOB_ID": "17", "SLURM_CLUSTER_NAME": "test"}
CONFIG = "Configuration data as of 2026-11-22T05:40:11\nAccountingStorageType   = accounting_storage/none\n"
CONFIG += "ClusterName             = test\nCompleteWait            = 0 sec\n"
QSTAT_F = """Job Id: 1234.pbs01
    Job_Name = worker
    Job_Owner = ann@login1
    resources_used.cpupct = 99
    resources_used.walltime = 01:10:05
    job_state = R
    Resource_List.ncpus = 8
    Resource_List.walltime = 24:00:00
    Variable_List = PBS_O_HOME=/home/ann,PBS_O_LANG=C,
	PBS_O_PATH=/usr/bin
"""
QSTAT = """Job id            Name             User              Time Use S Queue
----------------  ---------------- ----------------  -------- - -----
1234.pbs01        worker           ann               01:10:05 R gpu
"""


class Queue:
    """Answers like the commands of a queue, and keeps the commands."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = answers
        self.commands: list[str] = []

    def __call__(self, command: Sequence[str]) -> Answer | None:
        self.commands.append(" ".join(command))
        return next((answer for start, answer in self.answers.items() if self.commands[-1].startswith(start)), None)


def test_the_environment_says_the_queue_job() -> None:
    assert queue_job({}) is None
    assert queue_job(SLURM) == {"kind": "slurm", "id": "17", "cluster": "test"}
    assert queue_job({"PBS_JOBID": "1234.pbs01"}) == {"kind": "pbs", "id": "1234.pbs01"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("59:07", 3547.0),
        ("23:00:01", 82801.0),
        ("1-00:00:30", 86430.0),
        ("0:00:08", 8.0),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("90", None),
    ],
)
def test_durations_as_queues_write_them(text: str, seconds: float | None) -> None:
    assert clock_seconds(text) == seconds


def test_seconds_until_the_end_of_a_slurm_job() -> None:
    queue = Queue({"squeue -h -j 17": ("59:07\n", "", 0)})
    assert seconds_until_end(SLURM, queue) == 3547.0
    known = {**SLURM, "SLURM_JOB_END_TIME": str(int(time.time()) + 100)}
    assert seconds_until_end(known, Queue({})) == pytest.approx(100, abs=2)
    assert seconds_until_end(SLURM, Queue({"squeue": ("UNLIMITED\n", "", 0)})) is None
    gone = "slurm_load_jobs error: Invalid job id specified\n"
    assert seconds_until_end(SLURM, Queue({"squeue": ("", gone, 1)})) is None
    assert seconds_until_end(SLURM, Queue({})) is None  # no squeue on this node
    assert seconds_until_end({}, Queue({"squeue": ("59:07\n", "", 0)})) is None


def test_seconds_until_the_end_of_a_pbs_job() -> None:
    pbs = {"PBS_JOBID": "1234.pbs01"}
    assert seconds_until_end(pbs, Queue({"qstat -f 1234.pbs01": (QSTAT_F, "", 0)})) == 24 * 3600 - 4205
    just_started = QSTAT_F.replace("    resources_used.walltime = 01:10:05\n", "")
    assert seconds_until_end(pbs, Queue({"qstat": (just_started, "", 0)})) == 24 * 3600
    unlimited = QSTAT_F.replace("    Resource_List.walltime = 24:00:00\n", "")
    assert seconds_until_end(pbs, Queue({"qstat": (unlimited, "", 0)})) is None


def test_only_what_has_certainly_ended_counts_as_ended() -> None:
    jobs = [({"kind": "slurm", "id": number, "cluster": "test"}, "ann") for number in ("17", "18", "19", "20")]
    config = {"scontrol show config": (CONFIG, "", 0)}
    listed = "17 RUNNING\n18 PENDING\n19 TIMEOUT\n"
    queue = Queue({**config, "squeue -h -r -u ann": (listed, "", 0)})
    assert ended_jobs(jobs, queue) == {"19", "20"}
    assert len([line for line in queue.commands if line.startswith("squeue")]) == 1
    # A controller that does not answer, no commands, another cluster, jobs of an unknown user: nothing is known.
    down = ("", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", 1)
    assert ended_jobs(jobs, Queue({**config, "squeue": down})) == set()
    assert ended_jobs(jobs, Queue({})) == set()
    elsewhere = Queue({"scontrol": (CONFIG.replace("= test", "= other"), "", 0), "squeue": ("", "", 0)})
    assert ended_jobs(jobs, elsewhere) == set()
    assert ended_jobs([(jobs[0][0], "")], Queue({**config, "squeue": ("", "", 0)})) == set()
    assert ended_jobs([], Queue({})) == set()


@pytest.mark.parametrize(
    ("answer", "ended"),
    [
        ((QSTAT, "", 0), False),
        (("", "qstat: Unknown Job Id 1234.pbs01\n", 153), True),
        (("", "qstat: 1234.pbs01 Job has finished, use -x or -H to obtain historical job information\n", 35), True),
        (("", "qstat: cannot connect to server pbs01 (errno=111)\n", 255), False),
        (None, False),
    ],
)
def test_a_pbs_job_has_ended_when_qstat_says_so(answer: Answer | None, ended: bool) -> None:
    queue = Queue({} if answer is None else {"qstat 1234.pbs01": answer})
    found = ended_jobs([({"kind": "pbs", "id": "1234.pbs01"}, "ann")], queue)
    assert found == ({"1234.pbs01"} if ended else set())


def test_a_job_of_this_machines_queue() -> None:
    assert job_of_this_queue("17", Queue({"scontrol": (CONFIG, "", 0)})) == {**queue_job(SLURM)}
    assert job_of_this_queue("1.a", Queue({})) == {"kind": "pbs", "id": "1.a"}


def test_a_missing_command_has_no_answer() -> None:
    assert run_command(["no-such-command-at-all"]) is None
    assert run_command(["sh", "-c", "echo a; echo b >&2; exit 3"]) == ("a\n", "b\n", 3)


STEP = {**SLURM, "SLURM_STEP_ID": "0", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0"}


@pytest.mark.parametrize(
    ("environ", "devices"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, ("0", "1")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937-d72c,MIG-4f"}, ("GPU-8932f937-d72c", "MIG-4f")),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ()),
        ({**SLURM, "SLURM_GPUS_ON_NODE": "2"}, ("0", "1")),
        (SLURM, ()),  # a queue that gave none: the devices of the machine belong to other jobs
        ({}, ("0", "1", "2")),  # a workstation of three
        # A batch script of two tasks sees both devices; a task of srun has one device, or takes one of the two.
        ({**SLURM, "SLURM_LOCALID": "0", "SLURM_NTASKS": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, ("0", "1")),
        ({**STEP, "SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": "0,1"}, ("1",)),
        ({**STEP, "SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": "1"}, ("1",)),
        ({**STEP, "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x3)", "CUDA_VISIBLE_DEVICES": "4,5"}, ("5",)),
        (
            {**STEP, "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1", "SLURM_NODEID": "3"}
            | {"CUDA_VISIBLE_DEVICES": "4,5"},
            ("4", "5"),
        ),
    ],
)
def test_devices_of_a_process(environ: dict[str, str], devices: tuple[str, ...], tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
    assert visible_devices(environ, tmp_path) == devices


def test_processors_are_at_most_those_of_the_queue() -> None:
    here = processors({})
    assert here >= 1
    assert processors({"SLURM_CPUS_ON_NODE": "1"}) == 1
    assert processors({"SLURM_CPUS_PER_TASK": "100000"}) == here
    assert processors({**STEP, "SLURM_LOCALID": "1", "SLURM_CPUS_ON_NODE": "2"}) == 1

"""What a queue has given this process (time, job, devices, cores), and which other queue jobs still exist."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from esen_flows.durations import clock_seconds

# Standard output, standard error and exit status of a command.
Answer = tuple[str, str, int]
CommandRunner = Callable[[Sequence[str]], Answer | None]

_COMMAND_SECONDS = 20.0
_NO_DEVICE = ("", "-1", "NoDevFiles", "void")
# What squeue calls jobs whose processes are gone.
_SLURM_ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT".split()  # noqa: SIM905
)


def run_command(command: Sequence[str]) -> Answer | None:
    """Answer of a command of the queue.

    Parameters
    ----------
    command
        Name and arguments.

    Returns
    -------
    Answer | None
        Standard output, standard error and exit status; None if the command is missing or takes longer than 20 s.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout, done.stderr, done.returncode


def queue_job(environ: Mapping[str, str]) -> dict[str, str] | None:
    """Queue job that this process is part of.

    Parameters
    ----------
    environ
        Environment of the process.

    Returns
    -------
    dict[str, str] | None
        `kind` (slurm or pbs), `id`, and for SLURM `cluster`; None outside a queue.

    Examples
    --------
    >>> queue_job({"SLURM_JOB_ID": "17", "SLURM_CLUSTER_NAME": "cedar"})
    {'kind': 'slurm', 'id': '17', 'cluster': 'cedar'}
    """
    if environ.get("SLURM_JOB_ID"):
        return {"kind": "slurm", "id": environ["SLURM_JOB_ID"], "cluster": environ.get("SLURM_CLUSTER_NAME", "")}
    if environ.get("PBS_JOBID"):
        return {"kind": "pbs", "id": environ["PBS_JOBID"]}
    return None


def seconds_until_end(environ: Mapping[str, str], run: CommandRunner = run_command) -> float | None:
    """Time that the queue job of this process still has.

    Parameters
    ----------
    environ
        Environment of the process.
    run
        Runs a command.

    Returns
    -------
    float | None
        Seconds; None outside a queue, without a limit, or if the queue does not answer.
    """
    job = queue_job(environ)
    if job is None:
        return None
    if job["kind"] == "pbs":
        return _pbs_seconds_left(job["id"], run)
    ends = environ.get("SLURM_JOB_END_TIME", "")
    if ends.isdigit():
        return int(ends) - time.time()
    left = _output(run, ["squeue", "-h", "-j", job["id"], "-o", "%L"]) or ""
    return clock_seconds(left.strip().partition("\n")[0])


def _output(run: CommandRunner, command: Sequence[str]) -> str | None:
    """Standard output of a command that succeeded."""
    answer = run(command)
    return None if answer is None or answer[2] != 0 else answer[0]


def _pbs_seconds_left(job_id: str, run: CommandRunner) -> float | None:
    described = _output(run, ["qstat", "-f", job_id]) or ""
    fields = dict(re.findall(r"^\s*([\w.]+)\s*=\s*(.*?)\s*$", described, flags=re.MULTILINE))
    limit = clock_seconds(fields.get("Resource_List.walltime", ""))
    if limit is None:
        return None
    return limit - (clock_seconds(fields.get("resources_used.walltime", "")) or 0.0)


def ended_jobs(jobs: Sequence[tuple[Mapping[str, str], str]], run: CommandRunner = run_command) -> set[str]:
    """Queue jobs that have certainly ended; only the cluster of this machine is asked.

    Parameters
    ----------
    jobs
        Queue jobs, each with the name of its user.
    run
        Runs a command.

    Returns
    -------
    set[str]
        Ids of the jobs that have ended.
    """
    ended: set[str] = set()
    slurm = [(job, user) for job, user in jobs if job["kind"] == "slurm"]
    if slurm:
        cluster = _slurm_cluster(run)
        for user in sorted({user for _, user in slurm if user}):
            here = {job["id"] for job, of in slurm if of == user and cluster and job.get("cluster") == cluster}
            ended |= _ended_in_slurm(here, user, run)
    pbs = {job["id"] for job, _ in jobs if job["kind"] == "pbs"}
    return ended | {job_id for job_id in sorted(pbs) if _ended_in_pbs(job_id, run)}


def job_of_this_queue(job_id: str, run: CommandRunner = run_command) -> dict[str, str]:
    """A job of the queue that this machine's commands ask.

    Parameters
    ----------
    job_id
        Id of the job.
    run
        Runs a command.

    Returns
    -------
    dict[str, str]
        The job in the form of `queue_job`.
    """
    cluster = _slurm_cluster(run)
    return {"kind": "slurm", "id": job_id, "cluster": cluster} if cluster else {"kind": "pbs", "id": job_id}


def _slurm_cluster(run: CommandRunner) -> str | None:
    configuration = _output(run, ["scontrol", "show", "config"]) or ""
    match = re.search(r"^ClusterName\s*=\s*(\S+)", configuration, flags=re.MULTILINE)
    return match[1] if match else None


def _ended_in_slurm(job_ids: set[str], user: str, run: CommandRunner) -> set[str]:
    """Jobs that are missing in the complete list of a user's jobs, or are listed as ended."""
    if not job_ids:
        return set()
    listed = _output(run, ["squeue", "-h", "-r", "-u", user, "-o", "%A %T"])
    if listed is None:
        return set()
    states = dict(line.split()[:2] for line in listed.splitlines() if len(line.split()) >= 2)
    return {job_id for job_id in job_ids if states.get(job_id, "COMPLETED") in _SLURM_ENDED}


def _ended_in_pbs(job_id: str, run: CommandRunner) -> bool:
    answer = run(["qstat", job_id])
    if answer is None or answer[2] == 0:
        return False
    return re.search(r"unknown job|has finished", answer[1], flags=re.IGNORECASE) is not None


def visible_devices(environ: Mapping[str, str], nvidia: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[str, ...]:
    """CUDA devices of this process: those that the queue gave, or this task's share of them if srun started several.

    Parameters
    ----------
    environ
        Environment of the process.
    nvidia
        Folder of the driver with one entry per GPU, for a machine without a queue.

    Returns
    -------
    tuple[str, ...]
        Numbers or UUIDs of the devices.

    Examples
    --------
    >>> visible_devices({"CUDA_VISIBLE_DEVICES": "0,1"})
    ('0', '1')
    """
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        devices = tuple(name for name in listed.split(",") if name not in _NO_DEVICE)
    elif environ.get("SLURM_GPUS_ON_NODE", "").isdigit():
        devices = tuple(str(number) for number in range(int(environ["SLURM_GPUS_ON_NODE"])))
    elif environ.get("SLURM_JOB_ID"):
        devices = ()  # devices that the queue did not give belong to other jobs
    else:
        devices = tuple(str(number) for number in range(len(list(nvidia.glob("*")))))
    tasks = _tasks_on_this_node(environ)
    return devices[int(environ["SLURM_LOCALID"]) :: tasks] if tasks > 1 and len(devices) > 1 else devices


def _tasks_on_this_node(environ: Mapping[str, str]) -> int:
    """Number of tasks on this node of the step that srun started; 1 in a batch script, which has no step."""
    if not environ.get("SLURM_STEP_ID", "").isdigit() or not environ.get("SLURM_LOCALID", "").isdigit():
        return 1
    # "2(x3),1": two tasks on each of three nodes, one on the fourth.
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", environ.get("SLURM_STEP_TASKS_PER_NODE", "1")):
        counts += [int(count)] * int(times or 1)
    node = int(environ.get("SLURM_NODEID", "0") or 0)
    return counts[node] if node < len(counts) else 1


def processors(environ: Mapping[str, str]) -> int:
    """Number of processor cores that this process may use.

    Parameters
    ----------
    environ
        Environment of the process.

    Returns
    -------
    int
        Cores of its queue job, at most those of its affinity.
    """
    allowed = len(os.sched_getaffinity(0))
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "NCPUS"):
        if environ.get(name, "").isdigit():
            given = int(environ[name])
            tasks = 1 if name != "SLURM_CPUS_ON_NODE" else _tasks_on_this_node(environ)
            return max(1, min(allowed, given // tasks))
    return allowed

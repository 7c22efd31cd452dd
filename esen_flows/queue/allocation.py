"""What a queue gave this process: until when, which job it is, which devices; and which other jobs still exist."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# Standard output, standard error and status of a command; None where the command is not there or does not answer.
Answer = tuple[str, str, int]
CommandRunner = Callable[[Sequence[str]], Answer | None]

_COMMAND_SECONDS = 20.0
_NO_DEVICE = ("", "-1", "NoDevFiles", "void")
# What squeue calls jobs whose processes are gone.
_SLURM_ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT".split()  # noqa: SIM905
)


def run_command(command: Sequence[str]) -> Answer | None:
    """What a queue's command says; None where it is missing or does not answer in time."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout, done.stderr, done.returncode


def queue_job(environ: Mapping[str, str]) -> dict[str, str] | None:
    """The queue's job that this process is part of: kind (slurm or pbs), id, and SLURM's cluster; None outside one."""
    if environ.get("SLURM_JOB_ID"):
        return {"kind": "slurm", "id": environ["SLURM_JOB_ID"], "cluster": environ.get("SLURM_CLUSTER_NAME", "")}
    if environ.get("PBS_JOBID"):
        return {"kind": "pbs", "id": environ["PBS_JOBID"]}
    return None


def seconds_until_end(environ: Mapping[str, str], run: CommandRunner = run_command) -> float | None:
    """How long this process's queue job still has; None outside a queue, without a limit, or where nothing answers.

    Parameters
    ----------
    environ
        of the process.
    run
        runs a command.
    """
    job = queue_job(environ)
    if job is None:
        return None
    if job["kind"] == "pbs":
        return _pbs_seconds_left(job["id"], run)
    ends = environ.get("SLURM_JOB_END_TIME", "")
    if ends.isdigit():
        return int(ends) - time.time()
    answer = run(["squeue", "-h", "-j", job["id"], "-o", "%L"])
    if answer is None or answer[2] != 0:
        return None
    return parse_duration(answer[0].strip().splitlines()[0]) if answer[0].strip() else None


def parse_duration(text: str) -> float | None:
    """Seconds of a duration as queues write it: D-HH:MM:SS, HH:MM:SS, MM:SS; None for UNLIMITED and the like."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _pbs_seconds_left(job_id: str, run: CommandRunner) -> float | None:
    answer = run(["qstat", "-f", job_id])
    if answer is None or answer[2] != 0:
        return None
    fields = dict(re.findall(r"^\s*([\w.]+)\s*=\s*(.*?)\s*$", answer[0], flags=re.MULTILINE))
    limit = parse_duration(fields.get("Resource_List.walltime", ""))
    if limit is None:
        return None
    return limit - (parse_duration(fields.get("resources_used.walltime", "")) or 0.0)


def ended_jobs(jobs: Sequence[tuple[Mapping[str, str], str]], run: CommandRunner = run_command) -> set[str]:
    """Ids of those queue jobs that have certainly ended.

    Parameters
    ----------
    jobs
        each with the user that it is of. Only this machine's own cluster is asked.
    run
        runs a command.
    """
    ended: set[str] = set()
    slurm = [(job, user) for job, user in jobs if job["kind"] == "slurm"]
    if slurm:
        cluster = _slurm_cluster(run)
        for user in sorted({user for _, user in slurm if user}):
            asked = {job["id"] for job, of in slurm if of == user and cluster and job.get("cluster") == cluster}
            ended |= _ended_in_slurm(asked, user, run)
    pbs = {job["id"] for job, _ in jobs if job["kind"] == "pbs"}
    return ended | {job_id for job_id in sorted(pbs) if _ended_in_pbs(job_id, run)}


def job_of_this_queue(job_id: str, run: CommandRunner = run_command) -> dict[str, str]:
    """A job of the queue that this machine's commands ask, in the form of `queue_job`."""
    cluster = _slurm_cluster(run)
    return {"kind": "slurm", "id": job_id, "cluster": cluster} if cluster else {"kind": "pbs", "id": job_id}


def _slurm_cluster(run: CommandRunner) -> str | None:
    answer = run(["scontrol", "show", "config"])
    match = re.search(r"^ClusterName\s*=\s*(\S+)", answer[0], flags=re.MULTILINE) if answer else None
    return match.group(1) if match else None


def _ended_in_slurm(job_ids: set[str], user: str, run: CommandRunner) -> set[str]:
    """A complete list of somebody's jobs without one of them says that it has ended."""
    if not job_ids:
        return set()
    answer = run(["squeue", "-h", "-r", "-u", user, "-o", "%A %T"])
    if answer is None or answer[2] != 0:
        return set()
    states = dict(line.split()[:2] for line in answer[0].splitlines() if len(line.split()) >= 2)
    return {job_id for job_id in job_ids if states.get(job_id, "COMPLETED") in _SLURM_ENDED}


def _ended_in_pbs(job_id: str, run: CommandRunner) -> bool:
    answer = run(["qstat", job_id])
    if answer is None or answer[2] == 0:
        return False
    return re.search(r"unknown job|has finished", answer[1], flags=re.IGNORECASE) is not None


def visible_devices(environ: Mapping[str, str], nvidia: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[str, ...]:
    """The CUDA devices of this process: what the queue gave, one in turn where srun started a task per device.

    Parameters
    ----------
    environ
        of the process.
    nvidia
        the driver's folder with one entry per GPU, for a machine without a queue.
    """
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        devices = tuple(name for name in listed.split(",") if name not in _NO_DEVICE)
    elif environ.get("SLURM_GPUS_ON_NODE", "").isdigit():
        devices = tuple(str(number) for number in range(int(environ["SLURM_GPUS_ON_NODE"])))
    elif environ.get("SLURM_JOB_ID"):
        devices = ()  # what the queue did not give is somebody else's
    else:
        devices = tuple(str(number) for number in range(len(list(nvidia.glob("*")))))
    tasks = _tasks_on_this_node(environ)
    return devices[int(environ["SLURM_LOCALID"]) :: tasks] if tasks > 1 and len(devices) > 1 else devices


def _tasks_on_this_node(environ: Mapping[str, str]) -> int:
    """Of a step that srun started; 1 in a batch script, which has no step."""
    if not environ.get("SLURM_STEP_ID", "").isdigit() or not environ.get("SLURM_LOCALID", "").isdigit():
        return 1
    # "2(x3),1": two tasks on each of three nodes, one on the fourth.
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", environ.get("SLURM_STEP_TASKS_PER_NODE", "1")):
        counts += [int(count)] * int(times or 1)
    node = int(environ.get("SLURM_NODEID", "0") or 0)
    return counts[node] if node < len(counts) else 1


def processors(environ: Mapping[str, str]) -> int:
    """Processors that this process may use: of its queue job, at most those of its affinity."""
    allowed = len(os.sched_getaffinity(0))
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "NCPUS"):
        if environ.get(name, "").isdigit():
            given = int(environ[name])
            tasks = 1 if name != "SLURM_CPUS_ON_NODE" else _tasks_on_this_node(environ)
            return max(1, min(allowed, given // tasks))
    return allowed

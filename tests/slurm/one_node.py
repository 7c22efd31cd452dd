"""A whole SLURM on this machine, of one node with two stand-in GPUs: Debian's own daemons under one folder.

It needs neither root nor systemd nor a GPU. The GPUs are character devices that every Linux has. SLURM counts them,
gives each to one job at a time, and names a job's device in CUDA_VISIBLE_DEVICES.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
# Debian installs daemons where an ordinary user's PATH does not look.
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
GPU_DEVICES = ("/dev/null", "/dev/zero")
CPUS = 8  # claimed, whatever the machine has
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL")

_SLURM_CONF = """\
ClusterName=esen
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock
CredType=cred/munge
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={root}/finished.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=3
MinJobAge=300
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=1:00:00 State=UP
PartitionName=cpu Nodes={host} MaxTime=1:00:00 State=UP
"""


def missing_programs() -> list[str]:
    """Programs that the site needs and this machine does not have."""
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]


def wait_for(what: str, ready: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until a condition holds.

    Raises
    ------
    TimeoutError
        It does not hold after `seconds`.
    """
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)


@dataclass
class SlurmSite:
    """A running SLURM.

    Attributes
    ----------
    root
        Folder of all its files; logs are `slurmctld.log`, `slurmd.log` and `munged.log`.
    """

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a process that talks to this site; variables of a job are left out."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "CUDA_VISIBLE_DEVICES"))}
        return {**inherited, "PATH": SEARCH_PATH, "SLURM_CONF": str(self.root / "slurm.conf")}

    def run(self, *command: str, seconds: float = 60.0, **more: str) -> str:
        """Standard output of a command at this site; `more` are further variables of its environment.

        Raises
        ------
        AssertionError
            The command failed.
        """
        done = subprocess.run(
            command,
            env={**self.environment, **more},
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, *options: str, environment: Mapping[str, str] | None = None) -> str:
        """Submit a script with sbatch; the number of the job."""
        return self.run("sbatch", "--parsable", *options, **(environment or {})).strip()

    def job(self, number: str) -> dict[str, str]:
        """Fields that `scontrol show job` gives for a job."""
        text = self.run("scontrol", "--oneliner", "show", "job", number)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def state(self, number: str) -> str:
        """A job's state, such as PENDING or RUNNING."""
        return self.job(number)["JobState"]

    def wait(self, *numbers: str, seconds: float = 180.0) -> list[str]:
        """The last states of jobs, once all of them have ended."""
        wait_for(f"end of jobs {numbers}", lambda: all(self.state(n) in ENDED for n in numbers), seconds)
        return [self.state(number) for number in numbers]

    def stop(self) -> None:
        """End all jobs and daemons, and remove the folder."""
        try:
            self.run("scancel", "--user", getuser())
            self.run("scancel", "--signal=KILL", "--full", "--user", getuser())
            wait_for("end of all jobs", lambda: not self.run("squeue", "--noheader").strip())
        finally:
            for name in ("slurmd", "slurmctld", "munged"):
                _end(self.root / f"{name}.pid")
            shutil.rmtree(self.root, ignore_errors=True)


def start() -> SlurmSite:
    """Start munged, slurmctld and slurmd, and wait until the node is idle."""
    root = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # the name of munge's socket has to be short
    root.chmod(0o711)  # munged insists that everybody could reach its socket
    site = SlurmSite(root)
    try:
        _configure(root)
        files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log"}
        options = [f"--{name}={root / file}" for name, file in {**files, "seed-file": "munged.seed"}.items()]
        site.run("munged", *options)
        site.run("slurmctld")
        site.run("slurmd", "-N", _host())
        wait_for("an idle node", lambda: _node_state(site) == "idle")
    except BaseException as error:
        for log in sorted(root.glob("*.log")):
            error.add_note(f"{log.name}: {log.read_text()[-2000:]}")
        for name in ("slurmd", "slurmctld", "munged"):
            _end(root / f"{name}.pid")
        shutil.rmtree(root, ignore_errors=True)
        raise
    return site


def _configure(root: Path) -> None:
    ports = _free_ports(2)
    values = {"host": _host(), "user": getuser(), "root": root, "cpus": CPUS, "gpus": len(GPU_DEVICES)}
    text = _SLURM_CONF.format(**values, controller_port=ports[0], node_port=ports[1])
    (root / "slurm.conf").write_text(text)
    (root / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in GPU_DEVICES))
    key = root / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    for name in ("state", "spool"):
        (root / name).mkdir()


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _node_state(site: SlurmSite) -> str:
    shown = subprocess.run(
        ["sinfo", "--noheader", "--format=%T", "--partition=gpu"],
        env=site.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,  # the controller may not answer yet
    )
    return shown.stdout.strip()


def _end(pid_file: Path) -> None:
    """End a daemon by its pid file, if it runs."""
    try:
        process = int(pid_file.read_text())
        os.kill(process, signal.SIGTERM)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return
    with suppress(TimeoutError):
        wait_for(f"end of process {process}", lambda: not _runs(process), 10)
        return
    with suppress(ProcessLookupError):  # it has ended at last
        os.kill(process, signal.SIGKILL)


def _runs(process: int) -> bool:
    """Whether a process is alive; a zombie is not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

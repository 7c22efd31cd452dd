"""A child process of a worker as its supervisor sees it: started for a device, its messages, and the end of its log."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from esen_flows.queue.worker_settings import WorkerSettings
from esen_flows.store.host import Host, ProcessId

_LAST_LINES = 15


@dataclass
class ChildProcess:
    """A running child, with what it last said.

    Attributes
    ----------
    number
        Place among the worker's children, from 0.
    device
        CUDA device that it has to itself; None: it sees what the supervisor sees, "": it sees none.
    process
        The operating system's process.
    identity
        The same in a form that is not mistaken for a later process of the same number.
    pipe
        Its messages, a JSON object a line.
    log
        File of its output.
    work
        Id and name of the firework that it runs; None: none.
    idle_since
        When it first found nothing to do, by `time.monotonic`; None: it has something to do.
    """

    number: int
    device: str | None
    process: "subprocess.Popen[bytes]"
    identity: ProcessId
    pipe: IO[bytes]
    log: Path
    work: tuple[int, str] | None = None
    idle_since: float | None = None

    @classmethod
    def start(cls, settings: WorkerSettings, worker_id: str, number: int, device: str | None) -> "ChildProcess":
        """Start a process that takes fireworks.

        Parameters
        ----------
        settings
            How the worker works.
        worker_id
            Id of the worker's document in `workers`.
        number
            Place among the worker's children, from 0.
        device
            CUDA device, as in the attributes.

        Returns
        -------
        ChildProcess
            The running process.
        """
        reading, writing = os.pipe()
        log = settings.folder / f"{settings.name}_{os.getpid()}_{number}.log"
        command = [sys.executable, "-m", "esen_flows.queue.worker_child"]
        command += [TypeAdapter(WorkerSettings).dump_json(settings).decode(), worker_id, str(writing), str(os.getpid())]
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(writing,),
                    env=_environment(device, settings.threads),
                )
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        return cls(number, device, process, Host().process(process.pid), os.fdopen(reading, "rb"), log)

    def messages(self) -> Iterator[dict[str, Any]]:
        """Messages since the last call.

        Yields
        ------
        dict[str, Any]
            One message.
        """
        for line in self.pipe:
            yield json.loads(line)

    def log_tail(self) -> str:
        """The end of its output.

        Returns
        -------
        str
            At most 15 lines, indented.
        """
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"    {line}" for line in lines[-_LAST_LINES:])

    def remove_empty_log(self) -> None:
        """Remove the file of its output if there was no output."""
        with suppress(FileNotFoundError):
            if self.log.stat().st_size == 0:
                self.log.unlink()


def signal_name(status: int) -> str:
    """Name of the signal that ended a process.

    Parameters
    ----------
    status
        Negative exit status of the process.

    Returns
    -------
    str
        Name such as SIGKILL.
    """
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


def _environment(device: str | None, threads: int) -> dict[str, str]:
    """Environment of a child: settings that have to be there before torch is imported."""
    ours = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    ours["ESEN_FLOWS_THREADS"] = str(threads)
    if device is not None:
        ours["CUDA_VISIBLE_DEVICES"] = device
    # As cli/machine.py tunes a computing command: sleeping threads, and memory that stays with the process.
    tuning = {"OMP_WAIT_POLICY": "passive", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
    return {**tuning, **os.environ, **ours}

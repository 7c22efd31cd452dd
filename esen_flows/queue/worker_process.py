"""A child process of a worker as its supervisor sees it: started for a device, listened to, and read when it died."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from esen_flows.queue.worker_child import Orders
from esen_flows.store.host import Host, ProcessId

_LAST_LINES = 15


@dataclass
class ChildProcess:
    """A running child, with what it last said.

    Attributes
    ----------
    number
        its place among the worker's children.
    device
        that it has to itself; None: it sees what the supervisor sees, "": it sees none.
    process, identity
        of the system.
    pipe
        what it says, a JSON object a line.
    log
        where its output goes.
    work
        id and name of the firework that it runs.
    idle_since
        when it first found nothing to do, by `time.monotonic`.
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
    def start(cls, orders: Orders, number: int, device: str | None, threads: int) -> "ChildProcess":
        """Start a process that works as ordered."""
        reading, writing = os.pipe()
        log = Path(orders.folder) / f"{orders.name}_{os.getpid()}_{number}.log"
        command = [sys.executable, "-m", "esen_flows.queue.worker_child", json.dumps(asdict(orders))]
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [*command, str(writing), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(writing,),
                    env=_environment(device, threads),
                )
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        return cls(number, device, process, Host().process(process.pid), os.fdopen(reading, "rb"), log)

    def said(self) -> Iterator[dict[str, Any]]:
        """What it has said since the last time."""
        for line in self.pipe:
            yield json.loads(line)

    def log_tail(self) -> str:
        """The end of its output, indented."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"    {line}" for line in lines[-_LAST_LINES:])

    def remove_empty_log(self) -> None:
        """Leave nothing behind where nothing was said."""
        with suppress(FileNotFoundError):
            if self.log.stat().st_size == 0:
                self.log.unlink()


def signal_name(status: int) -> str:
    """Of the signal that ended a process, from its negative status."""
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


def _environment(device: str | None, threads: int) -> dict[str, str]:
    """Of a child: what has to be there before torch is imported."""
    ours = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    ours["ESEN_FLOWS_THREADS"] = str(threads)
    if device is not None:
        ours["CUDA_VISIBLE_DEVICES"] = device
    # As cli/machine.py tunes a computing command: sleeping threads, and memory that stays with the process.
    tuning = {"OMP_WAIT_POLICY": "passive", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
    return {**tuning, **os.environ, **ours}

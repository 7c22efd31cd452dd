"""The process that runs fireworks one after the other for `esen-flows worker`; what it loads stays loaded."""

import ctypes
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from fireworks import FWorker

from esen_flows.errors import EsenFlowsError
from esen_flows.queue.fireworks_adapter import Pad, find_ready, run_firework, take
from esen_flows.settings import get_settings
from esen_flows.stopping import ALLOCATION, is_stopping, request_stop, seconds_left, stopping_by_signals
from esen_flows.store.claims import Claims
from esen_flows.store.connection import open_store
from esen_flows.store.server_outages import retry_until_available

# Exit status of a process in which a firework failed. After an error of the GPU whatever follows fails in it too, so
# that one broken process would go through the whole queue; a new one costs a second.
RENEW = 64
_PR_SET_PDEATHSIG = 1
_LOOK = 20  # fireworks at a time: the first ones may be others' a moment later
_FIREWORKS_COPY = "FW.json"  # of what is in the launchpad
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0


@dataclass(frozen=True)
class Orders:
    """What the supervisor says to a child.

    Attributes
    ----------
    name
        of the worker.
    worker_id
        its document in `workers`.
    category
        of fireworks to take; "" for all.
    query
        further conditions, as FireWorks' FWorker takes them.
    deadline
        when to end, by this machine's `time.monotonic`; None: nobody said.
    folder
        for the fireworks' own folders and the child's output.
    """

    name: str
    worker_id: str
    category: str
    query: dict[str, Any]
    deadline: float | None
    folder: str


class Child:
    """Takes fireworks until it has to end."""

    def __init__(self, orders: Orders, report_to: int) -> None:
        self._orders = orders
        self._report_to = report_to
        self._failed = False
        self._store = open_store()
        self._patience = get_settings().spool_after_seconds
        self._pad = Pad(self._store.database, self._patience)
        self._claims = Claims(self._store.database)
        self._query = FWorker(orders.name, orders.category, orders.query).query

    def work(self) -> int:
        """Run what is READY; the supervisor says when there is nothing to wait for any more. The exit status."""
        pause = _SHORTEST_PAUSE
        while not is_stopping():
            if self._run_one():
                if self._failed:
                    return RENEW
                pause = _SHORTEST_PAUSE
                continue
            self._tell("idle")
            until = time.monotonic() + pause
            while time.monotonic() < until and not is_stopping():
                time.sleep(0.1)
            pause = min(1.5 * pause, _LONGEST_PAUSE)
        return 0

    def close(self) -> None:
        """Let the claims go; the heartbeat ends with this process."""
        self._claims.close()
        self._pad.connection.close()

    def _run_one(self) -> bool:
        """Whether there was a firework for us."""
        look = retry_until_available(
            self._store.database, lambda _: find_ready(self._pad, self._query, seconds_left(), _LOOK), self._patience
        )
        for row in look:
            if is_stopping():
                return False
            claim = take(self._claims, row["fw_id"])
            if claim is None:
                continue
            ran = self._run(row["fw_id"], row["name"])
            self._claims.forget(claim)
            if ran:
                return True
        return False

    def _run(self, number: int, name: str) -> bool:
        self._tell("took", fw_id=number, name=name)
        start = time.perf_counter()
        with _folder(Path(self._orders.folder), number):
            ran = run_firework(self._pad, number, self._orders.name, self._orders.worker_id)
        row = retry_until_available(
            self._store.database, lambda _: self._pad.fireworks.find_one({"fw_id": number}), self._patience
        )
        state = str((row or {}).get("state", "deleted"))
        if self._pad.handed_back:
            state = "handed back"
        elif not ran and state != "FIZZLED":  # what cannot be read fizzles without having run
            state = "gone"
        self._failed = state == "FIZZLED"
        self._tell("done", fw_id=number, name=name, state=state, seconds=time.perf_counter() - start)
        return ran

    def _tell(self, event: str, **facts: Any) -> None:
        try:
            os.write(self._report_to, json.dumps({"event": event, **facts}).encode() + b"\n")
        except BrokenPipeError:  # the supervisor is gone
            request_stop()


@contextmanager
def _folder(parent: Path, number: int) -> Iterator[None]:
    """A working folder for a firework, which stays if its job left something there."""
    folder = parent / f"firework_{number}_{datetime.now():%Y-%m-%d-%H-%M-%S-%f}"
    folder.mkdir(parents=True)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(parent)
        if {path.name for path in folder.iterdir()} <= {_FIREWORKS_COPY}:
            (folder / _FIREWORKS_COPY).unlink(missing_ok=True)
            folder.rmdir()


def _end_with(supervisor: int) -> None:
    """Have the kernel ask this process to end when its supervisor dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        request_stop()


def _ask(number: int, frame: FrameType | None) -> None:
    request_stop()


def main() -> None:
    """Work; arguments: the orders as JSON, a file descriptor to report to, the supervisor's process id."""
    orders = Orders(**json.loads(sys.argv[1]))
    with stopping_by_signals():
        signal.signal(signal.SIGINT, _ask)  # a terminal sends it to all processes at once
        _end_with(int(sys.argv[3]))
        ALLOCATION.deadline = orders.deadline
        logging.getLogger("rocket.launcher").addFilter(lambda record: record.levelno >= logging.WARNING)
        try:
            _use_our_job_store()
            child = Child(orders, int(sys.argv[2]))
            status = child.work()
            child.close()
        except EsenFlowsError as error:
            print(f"esen-flows worker: {error}", file=sys.stderr)
            sys.stderr.flush()
            os._exit(1)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # FireWorks' ping thread would keep the process
    sys.stdout.flush()
    sys.exit(status)


def _use_our_job_store() -> None:
    """jobflow stores in our database without a file that would hold the server's password."""
    from jobflow import SETTINGS

    from esen_flows.store.jobflow_store import job_store

    SETTINGS.JOB_STORE = job_store(open_store())


if __name__ == "__main__":
    main()

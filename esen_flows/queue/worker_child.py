"""The process that runs fireworks one after the other for `esen-flows worker`; what it loads stays loaded."""

import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from esen_flows.errors import EsenFlowsError
from esen_flows.makers.force_fields import keeping_force_field
from esen_flows.queue.fireworks_adapter import Pad, run_firework, worker_query
from esen_flows.queue.worker_settings import WorkerSettings
from esen_flows.settings import get_settings
from esen_flows.stopping import SIGNALS, Allocation, allocated, end_with_parent, handling
from esen_flows.store.claims import Claims
from esen_flows.store.connection import open_store
from esen_flows.store.launchpad import claim_key, find_ready, firework_row

# Exit status of a process in which a firework failed. After an error of the GPU every later firework fails in the same
# process, so that one broken process would go through the whole queue. A new process costs a second.
RENEW = 64
_READY_AT_ONCE = 20  # fireworks to look at: others may take the first ones a moment later
_FIREWORKS_COPY = "FW.json"  # FireWorks writes what is in the launchpad into the working folder
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0


class Child:
    """Takes fireworks until it has to end.

    Parameters
    ----------
    settings
        How the worker works.
    worker_id
        Id of the worker's document in `workers`.
    report_to
        File descriptor of the pipe to the supervisor.
    allocation
        Time of this process.
    """

    def __init__(self, settings: WorkerSettings, worker_id: str, report_to: int, allocation: Allocation) -> None:
        self._settings = settings
        self._worker_id = worker_id
        self._allocation = allocation
        self._report_to = report_to
        self._failed = False
        self._database = open_store().database
        self._pad = Pad(self._database, get_settings().spool_after_seconds)
        self._claims = Claims(self._database)
        self._query = worker_query(settings.name, settings.category, settings.query, any_task=settings.any_task)

    def work(self) -> int:
        """Run what is READY until this process is asked to end; the supervisor knows when nothing is left to wait for.

        Returns
        -------
        int
            Exit status: 0, or `RENEW` if a firework failed.
        """
        pause = _SHORTEST_PAUSE
        while not self._allocation.is_stopping:
            if self._run_one():
                if self._failed:
                    return RENEW
                pause = _SHORTEST_PAUSE
                continue
            self._report("idle")
            until = time.monotonic() + pause
            while time.monotonic() < until and not self._allocation.is_stopping:
                time.sleep(0.1)
            pause = min(1.5 * pause, _LONGEST_PAUSE)
        return 0

    def close(self) -> None:
        """Let the claims go; their heartbeat ends with this process."""
        self._claims.close()
        self._pad.connection.close()

    def _run_one(self) -> bool:
        """Whether there was a firework for this process."""
        ready = self._pad.retrying(
            lambda: find_ready(self._database, self._query, self._allocation.seconds_left, _READY_AT_ONCE)
        )
        for row in ready:
            if self._allocation.is_stopping:
                return False
            claim = self._claims.try_claim(claim_key(row["fw_id"]))
            if claim is None:
                continue
            ran = self._run(row["fw_id"], row["name"])
            self._claims.forget(claim)
            if ran:
                return True
        return False

    def _run(self, number: int, name: str) -> bool:
        self._report("took", fw_id=number, name=name)
        start = time.perf_counter()
        with _working_folder(self._settings.folder, number):
            ran = run_firework(self._pad, number, self._settings.name, self._worker_id)
        row = self._pad.retrying(lambda: firework_row(self._database, number))
        state = str((row or {}).get("state", "deleted"))
        if self._pad.handed_back:
            state = "handed back"
        elif not ran and state != "FIZZLED":  # a firework that cannot be read fizzles without having run
            state = "gone"
        self._failed = state == "FIZZLED"
        self._report("done", fw_id=number, name=name, state=state, seconds=time.perf_counter() - start)
        return ran

    def _report(self, event: str, **facts: Any) -> None:
        try:
            os.write(self._report_to, json.dumps({"event": event, **facts}).encode() + b"\n")
        except BrokenPipeError:  # the supervisor is gone
            self._allocation.request_stop()


@contextmanager
def _working_folder(parent: Path, number: int) -> Iterator[None]:
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


def main() -> None:
    """Work as the arguments say: settings, the worker's id, a descriptor to report to, the supervisor's process id."""
    settings = TypeAdapter(WorkerSettings).validate_json(sys.argv[1])
    allocation = Allocation(settings.deadline)
    # A terminal sends SIGINT to all processes at once.
    with allocated(allocation), handling((*SIGNALS, signal.SIGINT), allocation.request_stop), keeping_force_field():
        end_with_parent()
        if os.getppid() != int(sys.argv[4]):  # the supervisor died before the kernel was asked
            allocation.request_stop()
        logging.getLogger("rocket.launcher").addFilter(lambda record: record.levelno >= logging.WARNING)
        try:
            _store_jobs_in_our_database()
            child = Child(settings, sys.argv[2], int(sys.argv[3]), allocation)
            status = child.work()
            child.close()
        except BaseException as error:
            if isinstance(error, EsenFlowsError):
                print(f"esen-flows worker: {error}", file=sys.stderr)
            else:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # FireWorks' ping thread would keep the process alive
    sys.stdout.flush()
    sys.exit(status)


def _store_jobs_in_our_database() -> None:
    """Have jobflow store in our database without a file, which would hold the server's password."""
    from jobflow import SETTINGS

    from esen_flows.store.jobflow_store import job_store

    SETTINGS.JOB_STORE = job_store(open_store())


if __name__ == "__main__":
    main()

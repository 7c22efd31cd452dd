"""What a queue job starts: one child process per device that runs fireworks, and a supervisor that outlives them.

The supervisor imports nothing heavy. It forwards the queue's signals, replaces children that have died, makes READY
what they left RUNNING, and ends when nothing is left to do.
"""

import math
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from esen_flows.errors import ServerUnavailableError
from esen_flows.queue.child_deaths import ChildDeaths
from esen_flows.queue.fireworks_adapter import Pad, worker_query
from esen_flows.queue.recover import LostRunRecovery
from esen_flows.queue.worker_child import RENEW
from esen_flows.queue.worker_process import ChildProcess, signal_name
from esen_flows.queue.worker_settings import WorkDone, WorkerSettings
from esen_flows.settings import get_settings
from esen_flows.stopping import handling
from esen_flows.store.claims import Claims
from esen_flows.store.launchpad import find_ready, ready_tasks
from esen_flows.store.results import Store
from esen_flows.store.workers import WorkerFacts, WorkerRecord

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_BEAT_SECONDS = 10.0  # between two updates of the worker's document, and two looks for lost fireworks
_BUSY_RECOVERY_SECONDS = 60.0  # between two looks for lost fireworks by a worker that has enough to do
_LISTEN_SECONDS = 0.2


class Worker:
    """The supervisor of the child processes.

    Parameters
    ----------
    store
        Store whose database holds the launchpad.
    settings
        How to work.
    tell
        Called with each line for the user.
    """

    def __init__(self, store: Store, settings: WorkerSettings, tell: Callable[[str], None]) -> None:
        self._database = store.database
        self._settings = settings
        self._tell = tell
        self._pad = Pad(store.database, get_settings().spool_after_seconds)
        self._claims = Claims(store.database)
        # A child's own supervisor counts what its fireworks kill; recovery would only know that it is dead.
        self._recovery = LostRunRecovery(store, self._pad, self._claims, is_looked_after=self._is_run_by_a_child)
        devices = tuple(device for device in settings.devices if device)
        facts = WorkerFacts(settings.name, settings.category, devices, settings.queue_job)
        self._record = WorkerRecord(store.database, facts)
        self._children: list[ChildProcess] = []
        self._selector = selectors.DefaultSelector()
        self._done = WorkDone()
        self._foreign: set[str] = set()  # tasks of other packages that the user was told of
        self._deaths = ChildDeaths(self._pad, self._claims, self._done)
        self._end_requested_by: str | None = None
        self._kill_at: float | None = None
        self._next_beat = self._next_recovery = self._next_end = 0.0

    def run(self) -> WorkDone:
        """Work until there is nothing to do, or until a signal or the deadline asks for the end.

        Returns
        -------
        WorkDone
            What was done, and why the worker ended.

        Raises
        ------
        StoreError
            Children die one after the other without finishing anything, or the server stays away.
        """
        self._settings.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as ending:
            ending.callback(self._close)
            for sent in _SIGNALS:  # the loop does the rest
                ending.enter_context(handling((sent,), partial(self._request_end, sent.name)))
            ending.callback(self._end_children)
            # Conditions that the database refuses are reported once, not by every process.
            self._database.call(lambda: self._has_work(math.inf))
            self._tell_of_foreign_tasks()
            self._record.begin()
            for number, device in enumerate(self._settings.devices):
                self._start(number, device)
            while self._children:
                self._step()
            self._done.reason = self._done.reason or "its processes were asked to end"
            self._done.work_left = self._has_work(math.inf)
            self._tell_of_foreign_tasks()
        return self._done

    def _step(self) -> None:
        """Listen for a moment, then look after everything."""
        for key, _ in self._selector.select(_LISTEN_SECONDS):
            self._listen(key.data)
        for child in list(self._children):
            if child.process.poll() is not None:
                self._reap(child)
        self._end_in_time()
        now = time.monotonic()
        # A worker without work looks often for lost fireworks; busy workers look seldom, because they are many.
        is_waiting = any(child.idle_since is not None for child in self._children)
        if now >= self._next_recovery + (0.0 if is_waiting else _BUSY_RECOVERY_SECONDS - _BEAT_SECONDS):
            self._recover_lost()
        if now >= self._next_beat:
            self._beat()
        self._end_when_idle()

    def _start(self, number: int, device: str | None) -> None:
        child = ChildProcess.start(self._settings, self._record.id, number, device)
        self._children.append(child)
        self._selector.register(child.pipe, selectors.EVENT_READ, child)
        if self._end_requested_by is not None:  # while the child was being started
            self._signal_children()

    def _listen(self, child: ChildProcess) -> None:
        """Take in what a child says."""
        for message in child.messages():
            child.idle_since = (child.idle_since or time.monotonic()) if message["event"] == "idle" else None
            if message["event"] == "took":
                child.work = (message["fw_id"], message["name"])
            elif message["event"] == "done":
                child.work = None
                self._count(child, message)

    def _count(self, child: ChildProcess, message: Mapping[str, Any]) -> None:
        state = message["state"]
        if state == "gone":  # another process was faster
            return
        self._deaths.forget()
        name = {"COMPLETED": "completed", "handed back": "handed_back", "FIZZLED": "failed"}.get(state, "withdrawn")
        setattr(self._done, name, getattr(self._done, name) + 1)
        hint = f"see {child.log}" if name == "failed" else ""
        firework = f"firework {message['fw_id']} {message['name']}"
        self._report(child, f"{firework}: {state.lower()} in {message['seconds']:.1f} s {hint}")

    def _reap(self, child: ChildProcess) -> None:
        """Put back the firework of a process that has ended, and start another process in its place."""
        self._listen(child)
        self._selector.unregister(child.pipe)
        child.pipe.close()
        self._children.remove(child)
        child.remove_empty_log()
        status = child.process.returncode
        stopping = self._end_requested_by is not None
        if status == RENEW and not stopping:
            self._start(child.number, child.device)
        if status in (0, RENEW):
            return
        self._done.deaths += not stopping
        how = f"died of {signal_name(status)}" if status < 0 else f"ended with status {status}:\n{child.log_tail()}"
        if not stopping or status > 0:
            self._report(child, f"process {child.process.pid} {how}")
        returned = self._deaths.return_fireworks(child, blame=status < 0 and not stopping)
        for number, words in returned.items():
            if words:
                self._report(child, f"firework {number}: {words}")
        if not stopping:
            self._deaths.limit(child, had_work=bool(returned))
            self._start(child.number, child.device)

    def _is_run_by_a_child(self, number: int) -> bool:
        """Whether a child has this firework, or had it when it died a moment ago."""
        for child in self._children:
            self._listen(child)  # a child says what it takes before it takes it
        return any(child.work is not None and child.work[0] == number for child in self._children)

    def _request_end(self, requested_by: str) -> None:
        if self._end_requested_by is not None and requested_by != "SIGTERM":
            return
        if self._end_requested_by is None:
            self._end_requested_by = requested_by
        now, end = time.monotonic(), self._settings.end
        kill_at = now + self._settings.grace_seconds
        # SIGUSR1 is sent ahead of the end of the allocation, and the deadline is the margin itself: there is more time.
        if requested_by in ("SIGUSR1", "deadline") and end is not None:
            kill_at = max(now, end - min(5.0, 0.2 * self._settings.margin_seconds))
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)
        self._signal_children()

    def _signal_children(self) -> None:
        for child in self._children:
            with suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM)

    def _end_in_time(self) -> None:
        now = time.monotonic()
        if self._end_requested_by is None and self._settings.deadline is not None and now >= self._settings.deadline:
            self._request_end("deadline")
        if self._kill_at is not None and now >= self._kill_at:
            for child in self._children:
                if child.process.poll() is None:
                    self._report(child, f"process {child.process.pid} does not end and is killed")
                    child.process.kill()
                    child.process.wait()
        if self._end_requested_by is not None and not self._done.reason:
            reasons = {
                "deadline": "its time is up",
                "idle": f"there was nothing to do for {self._settings.idle_seconds:g} s",
            }
            self._done.reason = reasons.get(self._end_requested_by, f"{self._end_requested_by} asked for it")
            self._tell(f"ending: {self._done.reason}")

    def _end_when_idle(self) -> None:
        """End if nothing was READY for any child for `idle_seconds`, and nothing lost can be recovered."""
        now = time.monotonic()
        if self._end_requested_by is not None or now < self._next_end or not self._children:
            return
        if all(
            child.idle_since is not None and now - child.idle_since >= self._settings.idle_seconds
            for child in self._children
        ):
            self._next_end = now + 1.0
            self._recover_lost()
            deadline = self._settings.deadline
            if not self._has_work(math.inf if deadline is None else deadline - time.monotonic()):
                self._request_end("idle")

    def _has_work(self, seconds_left: float) -> bool:
        """Whether something is READY for a worker like this one that has `seconds_left` before its end."""
        query = self._query(self._settings.any_task)
        return bool(self._pad.retrying(lambda: find_ready(self._database, query, seconds_left, 1)))

    def _query(self, any_task: bool) -> dict[str, Any]:
        settings = self._settings
        return worker_query(settings.name, settings.category, settings.query, any_task=any_task)

    def _tell_of_foreign_tasks(self) -> None:
        """Name the tasks of other packages whose fireworks are left alone, once for each."""
        if self._settings.any_task:
            return
        known, every = self._query(False), self._query(True)
        found = self._pad.retrying(lambda: ready_tasks(self._database, {"$and": [every, {"$nor": [known]}]}))
        if new := sorted(set(found) - self._foreign):
            self._foreign.update(new)
            self._tell(
                f"left alone: READY fireworks with {', '.join(new)}, which are not jobs of jobflow; whoever wrote them "
                "chose what they run. --any-task runs them too"
            )

    def _recover_lost(self) -> None:
        self._next_recovery = time.monotonic() + _BEAT_SECONDS
        report = self._pad.retrying(self._recovery.look)
        for number, reason in report.reasons.items():
            self._tell(f"firework {number}: {reason}")
        self._done.recovered += len(report.reasons)

    def _beat(self) -> None:
        """Note in the worker's document that it is alive, and what its children do."""
        self._next_beat = time.monotonic() + _BEAT_SECONDS
        fireworks = [child.work[0] for child in self._children if child.work is not None]
        children = [child.identity.as_dict() for child in self._children]
        with suppress(ServerUnavailableError):  # the next beat says it; the children notice an outage themselves
            self._record.seen(fireworks, children, self._done.completed, self._done.failed)

    def _end_children(self) -> None:
        """End children that still run, if `run` ends by an exception."""
        for child in self._children:
            child.process.terminate()
        for child in self._children:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(self._settings.grace_seconds)
            child.process.kill()
            child.process.wait()

    def _close(self) -> None:
        with suppress(ServerUnavailableError):
            self._record.end(self._done.reason, self._done.completed, self._done.failed)
        self._claims.close()
        self._pad.connection.close()

    def _report(self, child: ChildProcess, words: str) -> None:
        place = "" if child.device in (None, "") else f"device {child.device}: "
        self._tell(f"{place}{words}".rstrip())

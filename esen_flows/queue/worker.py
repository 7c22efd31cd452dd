"""What a queue job starts: one child process per device that runs fireworks, and a supervisor that outlives them.

The supervisor imports nothing heavy. It forwards the queue's signals, starts a child again that died, makes READY what
a child left RUNNING, and ends when nothing is left to do.
"""

import math
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from fireworks import FWorker

from esen_flows.errors import ServerUnavailableError, StoreError
from esen_flows.queue.fireworks_adapter import (
    DEATHS,
    MOST_DEATHS,
    READY_AGAIN,
    Pad,
    bring_back,
    claim_key,
    count,
    find_ready,
    fizzle,
    has_ended_launch,
)
from esen_flows.queue.recover import LostRunRecovery
from esen_flows.queue.worker_child import RENEW, Orders
from esen_flows.queue.worker_process import ChildProcess, signal_name
from esen_flows.settings import get_settings
from esen_flows.store.claims import Claims
from esen_flows.store.host import ProcessId
from esen_flows.store.results import Store
from esen_flows.store.server_outages import retry_until_available
from esen_flows.store.workers import WorkerFacts, WorkerRecord

T = TypeVar("T")
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_BUSY_HEAL_SECONDS = 60.0  # between two looks for what the dead left, by a worker that has enough to do
_BEAT_SECONDS = 10.0  # between two updates of the worker's document, and two looks for what the dead left
_LOOK_SECONDS = 0.2
# In a row, of processes that had not even begun with a firework, and of all: a campaign halves a chunk that kills its
# process until the culprit is alone, which takes a dozen of them.
_MOST_DEATHS_WITHOUT_WORK, _MOST_DEATHS_IN_A_ROW = 5, 25


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker works.

    Attributes
    ----------
    name
        as FireWorks knows it.
    category
        of fireworks to take; "" for all.
    devices
        CUDA devices, a child process for each; a None is a child that sees what the supervisor sees, and "" one
        that sees none.
    folder
        where fireworks run and children's output goes.
    query
        further conditions on fireworks, as FireWorks' FWorker takes them.
    threads
        of a child.
    end
        when the allocation ends, by `time.monotonic`; None: unknown.
    margin_seconds
        before that end, when no more work is begun and what runs hands back its rest.
    idle_seconds
        after which a worker without work ends.
    grace_seconds
        for the children to hand back their rest when a signal asks for the end.
    queue_job
        that the worker is part of.
    """

    name: str
    category: str
    devices: tuple[str | None, ...]
    folder: Path
    query: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    end: float | None = None
    margin_seconds: float = 60.0
    idle_seconds: float = 60.0
    grace_seconds: float = 25.0
    queue_job: Mapping[str, str] | None = None

    @property
    def deadline(self) -> float | None:
        """When children stop, by `time.monotonic`."""
        return None if self.end is None else self.end - self.margin_seconds


@dataclass
class WorkDone:
    """What a worker did.

    Attributes
    ----------
    completed, failed, handed_back
        numbers of fireworks.
    withdrawn
        fireworks that somebody defused, archived or deleted while they ran.
    deaths
        of child processes that nobody had asked to end.
    healed
        fireworks of others that were put right.
    reason
        why it ended.
    work_left
        it was asked to end, and there is more to do.
    """

    completed: int = 0
    failed: int = 0
    handed_back: int = 0
    withdrawn: int = 0
    deaths: int = 0
    healed: int = 0
    reason: str = ""
    work_left: bool = False

    def __str__(self) -> str:
        parts = [f"{self.completed} fireworks completed", f"{self.failed} failed"]
        parts += [f"{self.handed_back} handed back"] if self.handed_back else []
        parts += [f"{self.withdrawn} withdrawn by others"] if self.withdrawn else []
        parts += [f"{self.healed} of others put right"] if self.healed else []
        parts += [f"{self.deaths} processes died"] if self.deaths else []
        return f"{', '.join(parts)}; ended because {self.reason}"


class Worker:
    """The supervisor; `run` returns when it has ended."""

    def __init__(self, store: Store, settings: WorkerSettings, tell: Callable[[str], None]) -> None:
        self._store = store
        self._settings = settings
        self._tell = tell
        self._patience = get_settings().spool_after_seconds
        self._pad = Pad(store.database, self._patience)
        self._claims = Claims(store.database)
        self._recovery = LostRunRecovery(store, self._pad, self._claims, is_looked_after=self._is_child)
        devices = tuple(device for device in settings.devices if device)
        facts = WorkerFacts(settings.name, settings.category, devices, settings.queue_job)
        self._record = WorkerRecord(store.database, facts)
        self._children: list[ChildProcess] = []
        self._selector = selectors.DefaultSelector()
        self._done = WorkDone()
        self._deaths_in_a_row = self._deaths_without_work = 0
        self._asked_by: str | None = None
        self._kill_at: float | None = None
        self._next_beat = 0.0
        self._next_heal = self._next_end = 0.0

    def run(self) -> WorkDone:
        """Work until there is nothing to do, or somebody asks for the end.

        Raises
        ------
        StoreError
            children die one after the other without finishing anything, or the server stays away.
        """
        self._settings.folder.mkdir(parents=True, exist_ok=True)
        before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        try:
            # Conditions that the database refuses are told once, not by every process.
            self._store.database.call(lambda: self._has_work(math.inf))
            self._record.begin()
            for number, device in enumerate(self._settings.devices):
                self._start(number, device)
            while self._children:
                self._step()
            self._done.reason = self._done.reason or "its processes were asked to end"
            self._done.work_left = self._has_work(math.inf)
            return self._done
        finally:
            self._end_children()
            for number, handler in before.items():
                signal.signal(number, handler)
            self._close()

    def _step(self) -> None:
        """Listen for a moment, then look after everything."""
        for key, _ in self._selector.select(_LOOK_SECONDS):
            self._hear(key.data)
        for child in list(self._children):
            if child.process.poll() is not None:
                self._reap(child)
        self._end_in_time()
        now = time.monotonic()
        # Whoever waits for work looks often; those who are busy look seldom, as they are many.
        wanted = any(child.idle_since is not None for child in self._children)
        if now >= self._next_heal + (0.0 if wanted else _BUSY_HEAL_SECONDS - _BEAT_SECONDS):
            self._heal()
        if now >= self._next_beat:
            self._beat()
        self._end_when_idle()

    def _start(self, number: int, device: str | None) -> None:
        settings = self._settings
        orders = Orders(
            name=settings.name,
            worker_id=self._record.id,
            category=settings.category,
            query=dict(settings.query),
            deadline=settings.deadline,
            folder=str(settings.folder.resolve()),
        )
        child = ChildProcess.start(orders, number, device, settings.threads)
        self._children.append(child)
        self._selector.register(child.pipe, selectors.EVENT_READ, child)
        if self._asked_by is not None:  # meanwhile
            self._ask_children()

    def _hear(self, child: ChildProcess) -> None:
        """Take in what a child says."""
        for said in child.said():
            child.idle_since = (child.idle_since or time.monotonic()) if said["event"] == "idle" else None
            if said["event"] == "took":
                child.work = (said["fw_id"], said["name"])
            elif said["event"] == "done":
                child.work = None
                self._count(child, said)

    def _count(self, child: ChildProcess, said: Mapping[str, Any]) -> None:
        state = said["state"]
        if state == "gone":  # somebody else was faster
            return
        self._deaths_in_a_row = self._deaths_without_work = 0
        name = {"COMPLETED": "completed", "handed back": "handed_back", "FIZZLED": "failed"}.get(state, "withdrawn")
        setattr(self._done, name, getattr(self._done, name) + 1)
        words = f"see {child.log}" if name == "failed" else ""
        self._line(
            child, f"firework {said['fw_id']} {said['name']}: {state.lower()} in {said['seconds']:.1f} s {words}"
        )

    def _reap(self, child: ChildProcess) -> None:
        """Take leave of a process that has ended; its firework goes back, and another process takes its place."""
        self._hear(child)
        self._selector.unregister(child.pipe)
        child.pipe.close()
        self._children.remove(child)
        child.remove_empty_log()
        status = child.process.returncode
        stopping = self._asked_by is not None
        if status == RENEW and not stopping:
            self._start(child.number, child.device)
        if status in (0, RENEW):
            return
        self._done.deaths += not stopping
        how = f"died of {signal_name(status)}" if status < 0 else f"ended with status {status}:\n{child.log_tail()}"
        if not stopping or status > 0:
            self._line(child, f"process {child.process.pid} {how}")
        fireworks = self._retry_until_available(lambda _: self._fireworks_of(child))
        for number in fireworks:
            self._return(child, number, blame=status < 0 and not stopping)
        if not stopping:
            self._limit_deaths(child, fireworks)
            self._start(child.number, child.device)

    def _is_child(self, process: ProcessId) -> bool:
        """Of this worker, which counts what a firework kills; a healer only knows that it is dead."""
        return any(child.identity == process for child in self._children)

    def _limit_deaths(self, child: ChildProcess, fireworks: Sequence[int]) -> None:
        """End a worker on a machine where nothing can run.

        Raises
        ------
        StoreError
            with what the child said last.
        """
        self._deaths_in_a_row += 1
        self._deaths_without_work = 0 if fireworks else self._deaths_without_work + 1
        if self._deaths_in_a_row >= _MOST_DEATHS_IN_A_ROW or self._deaths_without_work >= _MOST_DEATHS_WITHOUT_WORK:
            raise StoreError(
                f"{self._deaths_in_a_row} processes in a row died before they finished a firework; the last one:\n"
                f"{child.log_tail()}\nthe whole output is in {child.log}"
            )

    def _fireworks_of(self, child: ChildProcess) -> list[int]:
        """What it had claimed; at most one, and none where its claim is let go already."""
        query = {"_id": {"$regex": "^firework:"}, "process.pid": child.identity.pid}
        rows = self._store.database["claims"].find(query)
        mine = [row for row in rows if ProcessId(**row["process"]) == child.identity]
        return [int(row["_id"].partition(":")[2]) for row in mine]

    def _return(self, child: ChildProcess, number: int, blame: bool) -> None:
        """A dead child's firework becomes READY again, or FIZZLED where it has killed too many."""
        claim = self._claims.try_claim(claim_key(number))
        if claim is None:
            return

        def give_back(_: int) -> str:
            fields = dict.fromkeys(("fw_id", "state", "launches", "spec.campaign"), True)
            row = self._pad.fireworks.find_one({"fw_id": number}, fields)
            if row is None or row["state"] not in ("RUNNING", "RESERVED"):
                return ""
            # A campaign's own record isolates the structure that kills; who knows nothing of that is stopped here.
            guilty = blame and "campaign" not in row["spec"] and not has_ended_launch(self._pad, row)
            if guilty and count(self._pad, number, DEATHS) >= MOST_DEATHS:
                fizzle(self._pad, number, f"it killed its process {MOST_DEATHS} times")
                self._done.failed += 1
                return f"FIZZLED: it killed its process {MOST_DEATHS} times"
            words = bring_back(self._pad, row)
            self._done.handed_back += words == READY_AGAIN
            return words

        words = self._retry_until_available(give_back)
        self._claims.forget(claim)
        if words:
            self._line(child, f"firework {number}: {words}")

    def _retry_until_available(self, operation: Callable[[int], T]) -> T:
        return retry_until_available(self._store.database, operation, self._patience)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        """A signal: have the children end; the loop does the rest."""
        self._request(signal.Signals(number).name)

    def _request(self, reason: str) -> None:
        if self._asked_by is not None and reason != "SIGTERM":
            return
        if self._asked_by is None:
            self._asked_by = reason
        now, end = time.monotonic(), self._settings.end
        kill_at = now + self._settings.grace_seconds
        if reason in ("SIGUSR1", "deadline") and end is not None:  # sent ahead of the end, or the margin itself
            kill_at = max(now, end - min(5.0, 0.2 * self._settings.margin_seconds))
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)
        self._ask_children()

    def _ask_children(self) -> None:
        for child in self._children:
            with suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM)

    def _end_in_time(self) -> None:
        now = time.monotonic()
        if self._asked_by is None and self._settings.deadline is not None and now >= self._settings.deadline:
            self._request("deadline")
        if self._kill_at is not None and now >= self._kill_at:
            for child in self._children:
                if child.process.poll() is None:
                    self._line(child, f"process {child.process.pid} does not end and is killed")
                    child.process.kill()
                    child.process.wait()
        if self._asked_by is not None and not self._done.reason:
            words = {
                "deadline": "its time is up",
                "idle": f"there was nothing to do for {self._settings.idle_seconds:g} s",
            }
            self._done.reason = words.get(self._asked_by, f"{self._asked_by} asked for it")
            self._tell(f"ending: {self._done.reason}")

    def _end_when_idle(self) -> None:
        """Nothing was READY for any child for so long."""
        now = time.monotonic()
        since = [child.idle_since for child in self._children]
        if self._asked_by is not None or now < self._next_end or None in since or not since:
            return
        if all(moment is not None and now - moment >= self._settings.idle_seconds for moment in since):
            self._next_end = now + 1.0
            self._heal()
            if not self._has_work(seconds_left=None):
                self._request("idle")

    def _has_work(self, seconds_left: float | None) -> bool:
        """Whether something is READY for such a worker.

        Parameters
        ----------
        seconds_left
            that it would have; None: as many as this one has.
        """
        if seconds_left is None:
            deadline = self._settings.deadline
            seconds_left = math.inf if deadline is None else deadline - time.monotonic()
        query = FWorker(self._settings.name, self._settings.category, dict(self._settings.query)).query
        return bool(self._retry_until_available(lambda _: find_ready(self._pad, query, seconds_left, 1)))

    def _heal(self) -> None:
        self._next_heal = time.monotonic() + _BEAT_SECONDS
        healed = self._retry_until_available(lambda _: self._recovery.look())
        for number, reason in healed.reasons.items():
            self._tell(f"firework {number}: {reason}")
        self._done.healed += len(healed.reasons)

    def _beat(self) -> None:
        self._next_beat = time.monotonic() + _BEAT_SECONDS
        fireworks = [child.work[0] for child in self._children if child.work is not None]
        children = [child.identity.as_dict() for child in self._children]
        with suppress(ServerUnavailableError):  # the next one tells; the children notice an outage themselves
            self._record.seen(fireworks, children, self._done.completed, self._done.failed)

    def _end_children(self) -> None:
        """Where `run` ends by an exception."""
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

    def _line(self, child: ChildProcess, words: str) -> None:
        place = "" if child.device in (None, "") else f"device {child.device}: "
        self._tell(f"{place}{words}".rstrip())

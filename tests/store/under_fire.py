"""Workers that store results while they, their heartbeats, the server and its keeper are killed at random moments."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import SecretStr
from replica_set import ReplicaSet
from result_documents import key_of, large_array

from esen_flows.settings import Settings
from esen_flows.store.connection import open_store
from esen_flows.store.results import Store
from esen_flows.store.server import embedded

Process = subprocess.Popen[str]
WORKER = Path(__file__).with_name("kill_worker.py")
WORKERS = 4
MEGABYTES = 0.25  # of an array
_ENDS = {0, -signal.SIGKILL}  # of a worker


def check_whole(store: Store, names: list[str], megabytes: float = 1.0) -> None:
    """One current document per name with the right arrays; nothing that no document names."""
    database = store.database
    assert database["claims"].count_documents({}) == 0
    assert sorted(database["results"].distinct("key")) == sorted(key_of(name) for name in names)
    assert (
        database["results"].count_documents({"current": True}) == len(names) == database["results"].count_documents({})
    )
    for name in names:
        found = store.get(key_of(name))  # checks every checksum
        assert found is not None
        assert found.output is not None
        np.testing.assert_array_equal(found.output["fc2"], large_array(int(key_of(name)[:8], 16), megabytes))
    named = {sha for row in database["results"].find({}, {"blobs": 1}) for sha in row["blobs"]}
    headers = {row["_id"]: row for row in database["blobs"].find()}
    assert set(headers) == named
    chunks = Counter((row["sha"], row["write"]) for row in database["blob_chunks"].find({}, {"data": 0}))
    assert chunks == Counter({(sha, row["write"]): row["chunks"] for sha, row in headers.items()})


@dataclass
class Fight:
    """Workers on one store, and what becomes of them.

    Attributes
    ----------
    settings
        of the store, with a private server unless `server` is given.
    folder
        for notes.
    names
        of the results to store.
    seconds
        that computing one takes.
    server
        which the test itself has to start again.
    killed
        what was killed how often.
    """

    settings: Settings
    folder: Path
    names: list[str]
    seconds: float
    server: ReplicaSet | None = None
    workers: list[Process] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)
    _started: int = 0

    @property
    def victims(self) -> tuple[str, ...]:
        """In turn; a server that is not private has no keeper."""
        return ("worker", "mongod", "worker", "heartbeat", "keeper" if self.server is None else "mongod")

    def computed(self) -> list[str]:
        """Names, once for every computation that was begun."""
        return _lines(self.folder / "computed")

    def acknowledged(self) -> dict[str, str]:
        """What the workers were told is stored: the noise of each name's result."""
        told: dict[str, str] = {}
        for line in _lines(self.folder / "acknowledged"):
            name, _, noise = line.rpartition(" ")
            assert told.setdefault(name, noise) == noise
        return told

    def start_worker(self) -> Process:
        """One more, with an order of its own."""
        self._started += 1
        notes = [str(self.folder / name) for name in ("computed", "acknowledged")]
        command = [sys.executable, str(WORKER), *notes, str(self._started), str(self.seconds), *self.names]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment(self.settings))

    def rounds(self, count: int, dice: random.Random) -> None:
        """Kill somebody `count` times, never before something was stored since the last time."""
        self.workers = [self.start_worker() for _ in range(WORKERS)]
        stored = 0
        for number in range(count):
            # A server that is killed before it stored anything has nothing to lose.
            while (now := len(_lines(self.folder / "acknowledged"))) < stored + WORKERS:
                assert any(worker.poll() is None for worker in self.workers)
                time.sleep(0.02)
            stored = now
            time.sleep(dice.uniform(0.0, 0.3))
            self._kill(self.victims[number % len(self.victims)], dice)
            self._replace_the_dead()
        assert len(self.acknowledged()) < len(self.names)  # somebody was at work until the last kill

    def end(self) -> None:
        """Let the workers finish, and one more find nothing left to do."""
        self.workers.append(self.start_worker())
        for worker in self.workers:
            worker.communicate(timeout=600)
            assert worker.returncode in _ENDS
        assert self.workers[-1].returncode == 0

    def check(self) -> Store:
        """Every acknowledged result is stored as it was acknowledged, once, whole; nothing else is. The store."""
        store = open_store(self.settings)
        check_whole(store, self.names, MEGABYTES)
        told = self.acknowledged()
        assert set(told) <= set(self.names)  # a worker may be killed between storing a result and telling
        for name, noise in told.items():
            found = store.get(key_of(name), load_arrays=False)
            assert found is not None
            assert found.output is not None
            assert repr(found.output["noise"]) == noise
        return store

    def _kill(self, victim: str, dice: random.Random) -> None:
        if victim == "mongod" and self.server is not None:
            self.server.kill()
            time.sleep(dice.uniform(0.0, 0.5))
            self.server.start()
        else:
            worker = dice.choice([worker for worker in self.workers if worker.poll() is None])
            os.kill(worker.pid if victim == "worker" else self._pid(victim), signal.SIGKILL)
            if victim == "worker":
                worker.wait()
        self.killed[victim] += 1

    def _pid(self, victim: str) -> int:
        """The process to kill, waiting for one that is only just starting; a heartbeat is any of the workers'."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            workers = {worker.pid for worker in self.workers}
            pid = next(_heartbeats(workers), None) if victim == "heartbeat" else self._private_server(victim)
            if pid is not None:
                return pid
            time.sleep(0.05)
        raise AssertionError(f"no {victim} after a minute")

    def _private_server(self, process: str) -> int | None:
        pid: int | None = embedded.status(self.settings).get(f"{process}_pid")
        return pid

    def _replace_the_dead(self) -> None:
        for place, worker in enumerate(self.workers):
            if worker.poll() is not None:
                assert worker.returncode in _ENDS
                worker.communicate()
                self.workers[place] = self.start_worker()


def kill_rounds(
    settings: Settings, folder: Path, rounds: int, *, server: ReplicaSet | None = None, results_per_round: int = 30
) -> Counter[str]:
    """Four workers under fire, and a check of what they leave; what happened how often."""
    names = [f"{rounds}/{n}" for n in range(results_per_round * rounds)]
    fight = Fight(settings, folder, names, seconds=0.1, server=server)
    began = time.monotonic()
    try:
        fight.rounds(rounds, random.Random(rounds))
        fight.end()
    finally:
        for worker in fight.workers:
            worker.kill()
    seconds = time.monotonic() - began
    fight.check().close()
    computed = Counter(fight.computed())
    assert set(computed) == set(names)
    twice = sum(computed.values()) - len(names)
    # Only the dead compute in vain: a killed worker had at most one computation begun and not stored.
    assert twice <= fight.killed["worker"]
    return fight.killed | {"results": len(names), "computed twice": twice, "seconds": round(seconds)}


def _environment(settings: Settings) -> dict[str, str]:
    """That makes `get_settings` of a child give these settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ESEN_FLOWS_")}
    names = ("mongo_uri", "database", "data_dir", "mongod", "mongod_idle_seconds", "server_timeout_seconds")
    values = {f"ESEN_FLOWS_{name.upper()}": getattr(settings, name) for name in names}
    return inherited | {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
        if value is not None
    }


def _heartbeats(workers: set[int]) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in workers and b"esen_flows.store.heartbeat" in (folder / "cmdline").read_bytes():
                yield int(folder.name)


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []

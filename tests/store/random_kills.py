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
from result_documents import key_of, large_array, output_of

from esen_flows.settings import Settings
from esen_flows.store.connection import open_store
from esen_flows.store.results import Store
from esen_flows.store.server import embedded

Process = subprocess.Popen[str]
WORKER = Path(__file__).with_name("kill_worker.py")
WORKERS = 4
MEGABYTES = 0.25  # of an array
_ENDS = {0, -signal.SIGKILL}  # of a worker


def check_store(store: Store, names: list[str], megabytes: float = 1.0) -> None:
    """Check that each name has one document with the right arrays, and that no other documents or arrays are stored."""
    database = store.database
    assert database["claims"].count_documents({}) == 0
    assert sorted(database["results"].distinct("key")) == sorted(key_of(name) for name in names)
    assert (
        database["results"].count_documents({"current": True}) == len(names) == database["results"].count_documents({})
    )
    for name in names:
        output = output_of(store, key_of(name))  # compares every checksum
        np.testing.assert_array_equal(output["fc2"], large_array(int(key_of(name)[:8], 16), megabytes))
    named = {sha for row in database["results"].find({}, {"blobs": 1}) for sha in row["blobs"]}
    headers = {row["_id"]: row for row in database["blobs"].find()}
    assert set(headers) == named
    chunks = Counter((row["sha"], row["write"]) for row in database["blob_chunks"].find({}, {"data": 0}))
    assert chunks == Counter({(sha, row["write"]): row["chunks"] for sha, row in headers.items()})


@dataclass
class RandomKills:
    """Workers on one store, which are killed and replaced.

    Attributes
    ----------
    settings
        Settings of the store; it has a private server unless `server` is given.
    folder
        Folder for notes.
    names
        Names of the results to store.
    seconds
        Computing time of a result.
    server
        Server that is not private, so that it is started again here.
    killed
        Number of kills by kind of process.
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
        """Processes to kill in turn; a server that is not private has no keeper."""
        return ("worker", "mongod", "worker", "heartbeat", "keeper" if self.server is None else "mongod")

    def computed(self) -> list[str]:
        """Names of results, once for every computation that was begun."""
        return _lines(self.folder / "computed")

    def acknowledged(self) -> dict[str, str]:
        """The noise of each result that was acknowledged as stored, by name."""
        acknowledged: dict[str, str] = {}
        for line in _lines(self.folder / "acknowledged"):
            name, _, noise = line.rpartition(" ")
            assert acknowledged.setdefault(name, noise) == noise
        return acknowledged

    def start_worker(self) -> Process:
        """Start one more worker, with another order of the results."""
        self._started += 1
        notes = [str(self.folder / name) for name in ("computed", "acknowledged")]
        command = [sys.executable, str(WORKER), *notes, str(self._started), str(self.seconds), *self.names]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment(self.settings))

    def rounds(self, count: int, dice: random.Random) -> None:
        """Kill `count` processes, each after results were stored since the last kill."""
        self.workers = [self.start_worker() for _ in range(WORKERS)]
        stored = 0
        for number in range(count):
            # A server that has stored nothing has nothing to lose.
            while (now := len(_lines(self.folder / "acknowledged"))) < stored + WORKERS:
                assert any(worker.poll() is None for worker in self.workers)
                time.sleep(0.02)
            stored = now
            time.sleep(dice.uniform(0.0, 0.3))
            self._kill(self.victims[number % len(self.victims)], dice)
            self._replace_dead_workers()
        assert len(self.acknowledged()) < len(self.names)  # workers were busy until the last kill

    def end(self) -> None:
        """Let the workers finish, and start one more, which finds nothing to do."""
        self.workers.append(self.start_worker())
        for worker in self.workers:
            worker.communicate(timeout=600)
            assert worker.returncode in _ENDS
        assert self.workers[-1].returncode == 0

    def check(self) -> Store:
        """Check that the acknowledged results are stored whole, and nothing else, and return the store."""
        store = open_store(self.settings)
        check_store(store, self.names, MEGABYTES)
        acknowledged = self.acknowledged()
        assert set(acknowledged) <= set(self.names)  # a worker may be killed between storing and noting a result
        for name, noise in acknowledged.items():
            found = output_of(store, key_of(name), load_arrays=False)
            assert repr(found["noise"]) == noise
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
        """Number of the process to kill, once it has started; for a heartbeat that of any worker."""
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            workers = {worker.pid for worker in self.workers}
            pid = next(_heartbeats(workers), None) if victim == "heartbeat" else self._private_server(victim)
            if pid is not None:
                return pid
            time.sleep(0.05)
        raise AssertionError(f"no {victim} after ten minutes")

    def _private_server(self, process: str) -> int | None:
        pid: int | None = embedded.status(self.settings).get(f"{process}_pid")
        return pid

    def _replace_dead_workers(self) -> None:
        for place, worker in enumerate(self.workers):
            if worker.poll() is not None:
                assert worker.returncode in _ENDS
                worker.communicate()
                self.workers[place] = self.start_worker()


def kill_rounds(
    settings: Settings, folder: Path, rounds: int, *, server: ReplicaSet | None = None, results_per_round: int = 30
) -> Counter[str]:
    """Kill processes of four workers at random, check the store, and count kills and results."""
    names = [f"{rounds}/{n}" for n in range(results_per_round * rounds)]
    kills = RandomKills(settings, folder, names, seconds=0.1, server=server)
    began = time.monotonic()
    try:
        kills.rounds(rounds, random.Random(rounds))
        kills.end()
    finally:
        for worker in kills.workers:
            worker.kill()
    seconds = time.monotonic() - began
    kills.check().close()
    computed = Counter(kills.computed())
    assert set(computed) == set(names)
    twice = sum(computed.values()) - len(names)
    # Only results of killed workers are computed twice: each had begun at most one that was not stored.
    assert twice <= kills.killed["worker"]
    return kills.killed | {"results": len(names), "computed twice": twice, "seconds": round(seconds)}


def _environment(settings: Settings) -> dict[str, str]:
    """Environment in which a child process has these settings."""
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

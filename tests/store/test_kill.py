"""After kills at random moments every result is stored once and whole, and nothing else is."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from random_kills import RandomKills, check_store, kill_rounds
from replica_set import DATABASE, ReplicaSet
from result_documents import key_of

from esen_flows.settings import Settings
from esen_flows.store.connection import open_store
from esen_flows.store.server import embedded
from esen_flows.store.server.mongod import find_mongod

pytestmark = [pytest.mark.mongod, pytest.mark.slow]
WRITER = Path(__file__).with_name("kill_writer.py")


def writer(settings: Settings, notes: Path, *names: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(WRITER), str(settings.data_dir), str(notes), *names]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "imported\n"
    return process


def finish(process: "subprocess.Popen[str]") -> None:
    assert process.communicate(timeout=600)[0] == "done\n"
    assert process.returncode == 0


def own_server(embedded_settings: Settings, tmp_path: Path) -> Settings:
    return embedded_settings.model_copy(
        update={"data_dir": tmp_path, "mongod_idle_seconds": 120.0, "server_timeout_seconds": 120.0}
    )


def test_killed_during_the_first_start(embedded_settings: Settings, tmp_path: Path) -> None:
    """Writer, server or keeper is killed while the server starts for the first time."""
    settings, notes, dice = own_server(embedded_settings, tmp_path), tmp_path / "notes", random.Random(20261121)
    names = [f"round {n}" for n in range(4)]
    for n, name in enumerate(names):
        process = writer(settings, notes, *names[max(0, n - 1) : n], name)
        time.sleep(dice.uniform(0.0, 1.0 if n < 3 else 0.35))
        victim = ("keeper", "mongod", "writer")[n % 3]
        pid = None if victim == "writer" else embedded.status(settings).get(f"{victim}_pid")
        if pid is None:  # it does not run yet
            process.kill()
            process.communicate()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            finish(process)  # a writer survives a kill of its server
    finish(writer(settings, notes, *names))
    store = open_store(settings)
    check_store(store, names)
    store.close()
    embedded.stop(settings)


def test_killed_while_writing_arrays(embedded_settings: Settings, tmp_path: Path) -> None:
    """Writers are killed until some kills came between the first chunk and the document."""
    settings, notes, dice = own_server(embedded_settings, tmp_path), tmp_path / "notes", random.Random(7)
    store = open_store(settings)
    names, orphans = ["array 0"], 0
    while orphans < 2:
        assert len(names) < 20
        before = store.database["blob_chunks"].count_documents({})
        process = writer(settings, notes, names[-1])
        while process.poll() is None and store.database["blob_chunks"].count_documents({}) <= before:
            time.sleep(0.001)
        time.sleep(dice.uniform(0.0, 0.02))
        process.kill()
        process.communicate()
        if store.get(key_of(names[-1]), load_arrays=False) is not None:
            names.append(f"array {len(names)}")
        elif store.database["blob_chunks"].count_documents({}):
            orphans += 1
    finish(writer(settings, notes, *names))
    check_store(store, names)
    store.close()
    embedded.stop(settings)


def test_eight_processes_compute_each_of_200_results_once(embedded_settings: Settings, tmp_path: Path) -> None:
    settings = own_server(embedded_settings, tmp_path)
    kills = RandomKills(settings, tmp_path, [f"of 200: {n}" for n in range(200)], seconds=0.01)
    open_store(settings).close()
    processes = [kills.start_worker() for _ in range(8)]
    for process in processes:
        assert process.communicate(timeout=600)[0] == "ready\ndone\n"
    assert sorted(kills.computed()) == sorted(kills.names)
    kills.check().close()
    embedded.stop(settings)


def test_four_workers_survive_random_kills(embedded_settings: Settings, tmp_path: Path) -> None:
    """Fifty rounds: python tests/store/test_kill.py (benchmarks/results/store_kill.json)."""
    settings = own_server(embedded_settings, tmp_path)
    killed = kill_rounds(settings, tmp_path, rounds=5)
    assert all(killed[victim] > 0 for victim in ("worker", "mongod", "heartbeat", "keeper"))
    embedded.stop(settings)


def test_four_workers_survive_random_kills_on_a_replica_set(embedded_settings: Settings, tmp_path: Path) -> None:
    server = ReplicaSet(tmp_path / "server", find_mongod(embedded_settings.mongod).binary)
    try:
        killed = kill_rounds(remote(server, tmp_path), tmp_path, rounds=4, server=server)
    finally:
        server.kill()
    assert all(killed[victim] > 0 for victim in ("worker", "mongod", "heartbeat"))


def remote(server: ReplicaSet, folder: Path) -> Settings:
    return Settings(mongo_uri=server.writer, data_dir=folder, database=DATABASE, server_timeout_seconds=120.0)  # type: ignore[arg-type]


def main(rounds: int) -> None:
    """Kill in rounds on both kinds of server, and print the counts as JSON."""
    results = {}
    for kind in ("private server", "replica set with users"):
        with tempfile.TemporaryDirectory() as made:
            folder, server = Path(made), None
            settings = Settings(mongo_uri=None, data_dir=folder, server_timeout_seconds=120.0)
            if kind != "private server":
                server = ReplicaSet(folder / "server", find_mongod(None).binary)
                settings = remote(server, folder)
            try:
                results[kind] = {"rounds": rounds, **kill_rounds(settings, folder, rounds, server=server)}
            finally:
                server.kill() if server else embedded.stop(settings, force=True)
        results[kind]["load_average"] = os.getloadavg()
    versions = {"mongod": find_mongod(None).version, "pymongo": version("pymongo")}
    print(json.dumps({**results, "cpus": os.cpu_count(), "versions": versions}, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)

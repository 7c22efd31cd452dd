"""kill -9 at random moments: every result is there once, whole, and nothing else is."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from result_documents import key_of, large_array

from esen_flows.settings import Settings
from esen_flows.store import embedded
from esen_flows.store.connection import open_store
from esen_flows.store.results import Store

pytestmark = [pytest.mark.mongod, pytest.mark.slow]
WRITER = Path(__file__).with_name("kill_writer.py")


def writer(settings: Settings, notes: Path, *names: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(WRITER), str(settings.data_dir), str(notes), *names]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "imported\n"
    return process


def finish(process: "subprocess.Popen[str]") -> None:
    assert process.communicate(timeout=120)[0] == "done\n"
    assert process.returncode == 0


def check_whole(store: Store, names: list[str]) -> None:
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
        np.testing.assert_array_equal(found.output["fc2"], large_array(int(key_of(name)[:8], 16)))
    named = {sha for row in database["results"].find({}, {"blobs": 1}) for sha in row["blobs"]}
    headers = {row["_id"]: row for row in database["blobs"].find()}
    assert set(headers) == named
    chunks = Counter((row["sha"], row["write"]) for row in database["blob_chunks"].find({}, {"data": 0}))
    assert chunks == Counter({(sha, row["write"]): row["chunks"] for sha, row in headers.items()})


def own_server(embedded_settings: Settings, tmp_path: Path) -> Settings:
    return embedded_settings.model_copy(update={"data_dir": tmp_path, "mongod_idle_seconds": 120.0})


def test_writers_servers_and_keepers_killed(embedded_settings: Settings, tmp_path: Path) -> None:
    """Fifteen rounds; the first ones fall into the first start of the server."""
    settings, notes, dice = own_server(embedded_settings, tmp_path), tmp_path / "notes", random.Random(20261121)
    names = [f"round {n}" for n in range(15)]
    killed: Counter[str] = Counter()
    for n, name in enumerate(names):
        process = writer(settings, notes, *names[max(0, n - 1) : n], name)
        time.sleep(dice.uniform(0.0, 1.2 if n < 4 else 0.35))
        victim = dice.choice(["writer", "writer", "mongod", "keeper"])
        pids = embedded.status(settings)
        pid = process.pid if victim == "writer" else pids.get(f"{victim}_pid") or process.pid
        killed[victim] += 1
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            killed["too late"] += 1
        if pid == process.pid:
            process.communicate()
        else:
            finish(process)  # a writer outlives its server
    assert {"writer", "mongod", "keeper"} <= set(killed)
    finish(writer(settings, notes, *names))
    store = open_store(settings)
    check_whole(store, names)
    store.close()
    embedded.stop(settings)


def test_killed_while_writing_arrays(embedded_settings: Settings, tmp_path: Path) -> None:
    """Killed again and again between its chunks; the next name only when one came through."""
    settings, notes, dice = own_server(embedded_settings, tmp_path), tmp_path / "notes", random.Random(7)
    store = open_store(settings)
    names, debris = ["array 0"], 0
    for _ in range(12):
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
            debris += 1
    assert debris > 0  # some kills did fall between the first chunk and the document
    finish(writer(settings, notes, *names))
    check_whole(store, names)
    store.close()
    embedded.stop(settings)


def test_processes_that_ask_for_the_same_compute_once(embedded_settings: Settings, tmp_path: Path) -> None:
    settings, notes = own_server(embedded_settings, tmp_path), tmp_path / "notes"
    names = [f"shared {n}" for n in range(12)]
    processes = [writer(settings, notes, *names) for _ in range(3)]
    for process in processes:
        finish(process)
    assert sorted(notes.read_text().split("\n")[:-1]) == sorted(names)
    store = open_store(settings)
    check_whole(store, names)
    store.close()
    embedded.stop(settings)

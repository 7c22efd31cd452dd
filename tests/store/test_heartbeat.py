"""The heartbeat renews claims during native calls, ends with its worker, and does not expose the password."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from other_processes import RemoteProcess

from esen_flows.store.claims import Claims
from esen_flows.store.heartbeat import Heartbeat

if TYPE_CHECKING:
    from esen_flows.store.results import Store

KEY = "ab" * 32
NOWHERE = {"uri": "mongodb://ann:geheim@127.0.0.1:9/", "options": {"serverSelectionTimeoutMS": 100}, "database": "x"}


def ends_within(pid: int, seconds: float = 20.0) -> bool:
    """Whether a process ends (or is a zombie) within that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def await_renewal(store: "Store", key: str = KEY) -> None:
    """Wait until the heartbeat has started, which is slow on a busy machine, and renews a claim."""
    first = store.database["claims"].find_one({"_id": key})
    assert first is not None
    deadline = time.monotonic() + 60
    while store.database["claims"].find_one({"_id": key, "expires_at": {"$gt": first["expires_at"]}}) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.mongod
def test_a_native_call_that_holds_the_interpreter_lock_does_not_stop_it(store: "Store") -> None:
    claims = Claims(store.database, host=RemoteProcess(), lifetime_seconds=2.0, heartbeat_seconds=0.2)
    assert claims.try_claim(KEY) is not None
    await_renewal(store)
    ctypes.PyDLL(None).sleep(3)  # PyDLL keeps the lock, so that no thread of this process runs
    assert Claims(store.database).try_claim(KEY) is None
    claims.close()


@pytest.mark.mongod
def test_dropped_claims_are_renewed_no_more(store: "Store") -> None:
    claims = Claims(store.database, host=RemoteProcess(), lifetime_seconds=2.0, heartbeat_seconds=0.2)
    held, dropped = claims.try_claim_many(["aa" * 32, "bb" * 32])
    await_renewal(store, dropped.key)
    claims.stop_renewing([dropped])
    time.sleep(2.5)
    assert Claims(store.database).dead() == [dropped.key]
    claims.close()
    assert store.database["claims"].find_one({"_id": held.key}) is not None


WORKER = """
import sys, time
from esen_flows.settings import Settings
from esen_flows.store.claims import Claims
from esen_flows.store.database import connect
from other_processes import RemoteProcess
database = connect(Settings(mongo_uri=sys.argv[1], database=sys.argv[2]))
claims = Claims(database, host=RemoteProcess(), lifetime_seconds=2.0, heartbeat_seconds=0.2)
claims.try_claim(sys.argv[3])
print(claims.heartbeat_pid, flush=True)
time.sleep(60)
"""


@pytest.mark.mongod
def test_it_ends_with_a_killed_worker_whose_claim_expires(store: "Store") -> None:
    command = [sys.executable, "-c", WORKER, store.database.uri, store.database.database_name, KEY]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert worker.stdout is not None
    pid = int(worker.stdout.readline())
    await_renewal(store)
    time.sleep(2.2)
    here = Claims(store.database)
    assert here.try_claim(KEY) is None  # renewed for longer than its lifetime
    worker.kill()
    worker.communicate()
    assert ends_within(pid)
    time.sleep(2.1)
    assert here.try_claim(KEY) is not None
    here.close()


def test_the_password_is_not_in_arguments_or_environment() -> None:
    beat = Heartbeat(1000, 0.2)
    beat.hold(["t"], NOWHERE)
    time.sleep(0.1)
    for name in ("cmdline", "environ"):
        assert b"geheim" not in Path(f"/proc/{beat.pid}/{name}").read_bytes()
    beat.close()


def test_signals_for_a_whole_job_do_not_stop_it_and_a_killed_one_is_replaced() -> None:
    beat = Heartbeat(1000, 60.0)
    beat.hold(["t"], NOWHERE)
    first = beat.pid
    assert first is not None
    time.sleep(1.0)  # until it has started
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(first, number)
    assert not ends_within(first, 0.3)
    os.kill(first, signal.SIGKILL)
    assert ends_within(first)
    time.sleep(0.3)  # until its second thread, which shares the pipe, has ended too
    beat.hold(["u"], NOWHERE)
    second = beat.pid
    assert second not in (None, first)
    beat.close()
    assert beat.pid is None
    assert ends_within(second or 0, 0.1)


def test_a_forked_child_of_the_worker_does_not_keep_it_alive() -> None:
    """The child keeps the pipe open, as processes of data loaders do."""
    code = (
        "import os, time\n"
        "from esen_flows.store.heartbeat import Heartbeat\n"
        f"beat = Heartbeat(1000, 0.3); beat.hold(['t'], {NOWHERE!r})\n"
        "child = os.fork()\n"
        "if child: print(beat.pid, child, flush=True)\n"
        "time.sleep(60)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pid, child = map(int, worker.stdout.readline().split())
    time.sleep(0.5)
    worker.kill()
    try:
        assert ends_within(pid)
    finally:
        os.kill(child, signal.SIGKILL)
        worker.communicate()

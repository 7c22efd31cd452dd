"""The heartbeat renews claims during native calls, ends with its worker, and does not expose the password."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from other_processes import RemoteProcess

from esen_flows.store.claims import Claims
from esen_flows.store.heartbeat import Heartbeat

if TYPE_CHECKING:
    from esen_flows.store.results import Store

KEY = "ab" * 32
NOWHERE = {"uri": "mongodb://ann:geheim@127.0.0.1:9/", "options": {"serverSelectionTimeoutMS": 100}, "database": "x"}


def ends_within(pid: int, seconds: float = 600.0) -> bool:
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


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait as long as a busy machine may need."""
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def expires_at(store: "Store", key: str = KEY) -> datetime:
    row = store.database["claims"].find_one({"_id": key})
    assert row is not None
    return row["expires_at"]


def await_renewal(store: "Store", key: str = KEY) -> None:
    """Wait until the heartbeat has started and renews a claim."""
    first = expires_at(store, key)
    wait_for(lambda: expires_at(store, key) > first)


def expire(store: "Store", key: str = KEY) -> None:
    """Let a claim that is not renewed any more expire now."""
    earlier = {"$subtract": ["$$NOW", 1000]}
    store.database["claims"].update_one({"_id": key}, [{"$set": {"expires_at": earlier}}])


@pytest.mark.mongod
def test_a_native_call_that_holds_the_interpreter_lock_does_not_stop_it(store: "Store") -> None:
    claims = Claims(store.database, host=RemoteProcess(), lifetime_seconds=600.0, heartbeat_seconds=0.2)
    assert claims.try_claim(KEY) is not None
    await_renewal(store)

    def is_renewed_meanwhile() -> bool:
        begun = datetime.now(UTC)
        ctypes.PyDLL(None).sleep(1)  # PyDLL keeps the lock, so that no thread of this process runs
        ended = datetime.now(UTC)
        renewed = expires_at(store).replace(tzinfo=UTC) - timedelta(seconds=600.0)
        margin = timedelta(seconds=0.05)
        return begun + margin < renewed < ended - margin

    wait_for(is_renewed_meanwhile)
    claims.close()


@pytest.mark.mongod
def test_dropped_claims_are_renewed_no_more(store: "Store") -> None:
    claims = Claims(store.database, host=RemoteProcess(), lifetime_seconds=600.0, heartbeat_seconds=0.2)
    held, dropped = claims.try_claim_many(["aa" * 32, "bb" * 32])
    await_renewal(store, dropped.key)
    claims.stop_renewing([dropped])
    await_renewal(store, held.key)  # one that was on its way
    last = expires_at(store, dropped.key)
    await_renewal(store, held.key)
    assert expires_at(store, dropped.key) == last
    expire(store, dropped.key)
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
claims = Claims(database, host=RemoteProcess(), lifetime_seconds=600.0, heartbeat_seconds=0.2)
claims.try_claim(sys.argv[3])
print(claims.heartbeat_pid, flush=True)
time.sleep(600)
"""


@pytest.mark.mongod
def test_it_ends_with_a_killed_worker_whose_claim_expires(store: "Store") -> None:
    command = [sys.executable, "-c", WORKER, store.database.uri, store.database.database_name, KEY]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert worker.stdout is not None
    pid = int(worker.stdout.readline())
    await_renewal(store)
    await_renewal(store)
    here = Claims(store.database)
    assert here.try_claim(KEY) is None
    worker.kill()
    worker.communicate()
    assert ends_within(pid)
    expire(store)
    assert here.try_claim(KEY) is not None
    here.close()


def test_the_password_is_not_in_arguments_or_environment() -> None:
    beat = Heartbeat(1000, 0.2)
    beat.hold(["t"], NOWHERE)
    time.sleep(0.1)
    for name in ("cmdline", "environ"):
        assert b"geheim" not in Path(f"/proc/{beat.pid}/{name}").read_bytes()
    beat.close()


def is_ignored(pid: int, number: int) -> bool:
    """Whether a process ignores a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    return bool(ignored >> (number - 1) & 1)


def test_signals_for_a_whole_job_do_not_stop_it_and_a_killed_one_is_replaced() -> None:
    beat = Heartbeat(1000, 60.0)
    beat.hold(["t"], NOWHERE)
    first = beat.pid
    assert first is not None
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # All of them: some may be ignored from the start, such as SIGHUP under nohup.
    wait_for(lambda: all(is_ignored(first, number) for number in signals))
    for number in signals:
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
    assert ends_within(second or 0)


def test_a_forked_child_of_the_worker_does_not_keep_it_alive() -> None:
    """The child keeps the pipe open, as processes of data loaders do."""
    code = (
        "import os, time\n"
        "from esen_flows.store.heartbeat import Heartbeat\n"
        f"beat = Heartbeat(1000, 0.3); beat.hold(['t'], {NOWHERE!r})\n"
        "child = os.fork()\n"
        "if child: print(beat.pid, child, flush=True)\n"
        "time.sleep(600)\n"
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

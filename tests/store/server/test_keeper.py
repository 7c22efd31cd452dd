"""The keeper survives kills, crashes and removed folders."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import server_client

from esen_flows.store.host import Host
from esen_flows.store.server.embedded import EmbeddedServer, Lease
from esen_flows.store.server.keeper import answers
from esen_flows.store.server.layout import Layout, Owner

pytestmark = pytest.mark.mongod


@pytest.fixture(autouse=True)
def none_is_left(server: EmbeddedServer) -> Iterator[None]:
    yield
    server.stop(force=True)
    assert servers_of(server) == []


def servers_of(server: EmbeddedServer) -> list[int]:
    """Process numbers of all mongods on the data of a server, from /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"--dbpath" in line and os.fsencode(server.layout.data) in line:
                found.append(int(entry.name))
    return found


def end(pid: int) -> None:
    """Kill a process unless it has ended by itself, and wait until it has ended."""
    with suppress(ProcessLookupError):
        process = Host().process(pid)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: Host().is_dead(process))  # its number may remain: not every init reaps zombies


def wait_for(condition: Callable[[], bool], seconds: float = 600.0) -> float:
    """Seconds until the condition holds; fails if that takes too long."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(0.02)
    return time.monotonic() - began


def test_an_idle_server_stops(server: EmbeddedServer) -> None:
    server = replace(server, idle_seconds=1.0)
    lease = server.connect()
    keeper = Host().process(server.status()["keeper_pid"])
    time.sleep(2.5)
    assert server.status()["running"]  # a client holds it
    lease.close()
    assert wait_for(lambda: Host().is_dead(keeper)) > 0.5
    assert server.status()["state"] == "stopped"
    assert servers_of(server) == []


def test_short_visits_count_as_use(server: EmbeddedServer) -> None:
    server = replace(server, idle_seconds=4.0)
    server.connect().close()
    pid = server.status()["mongod_pid"]
    for _ in range(2):
        time.sleep(2.2)  # twice is longer than the idle time, once much shorter
        server.connect().close()
    assert server.status()["mongod_pid"] == pid


def test_a_killed_client_does_not_keep_the_server_running(server: EmbeddedServer, tmp_path: Path) -> None:
    server = replace(server, idle_seconds=1.0)
    command = [sys.executable, server_client.__file__, str(tmp_path), "1.0"]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    client.stdout.readline()
    client.kill()
    client.communicate()
    wait_for(lambda: server.status()["state"] == "stopped")


def test_a_killed_mongod_is_started_again(server: EmbeddedServer, lease: Lease) -> None:
    before = server.status()
    os.kill(before["mongod_pid"], signal.SIGKILL)
    wait_for(lambda: server.status().get("mongod_pid", before["mongod_pid"]) != before["mongod_pid"])
    lease.ensure()
    after = server.status()
    assert after["keeper_pid"] == before["keeper_pid"]
    assert servers_of(server) == [after["mongod_pid"]]


def test_mongod_ends_with_its_killed_keeper(server: EmbeddedServer, lease: Lease) -> None:
    before = server.status()
    end(before["keeper_pid"])
    lease.ensure()  # at once: the old mongod may still be about to die
    after = server.status()
    assert after["keeper_pid"] != before["keeper_pid"]
    assert servers_of(server) == [after["mongod_pid"]]


@pytest.mark.slow
def test_an_orphaned_mongod_that_ignores_sigterm_is_killed(server: EmbeddedServer, lease: Lease) -> None:
    """A stopped process does not react to SIGTERM; a second server beside it would damage the data."""
    before = server.status()
    os.kill(before["mongod_pid"], signal.SIGSTOP)
    end(before["keeper_pid"])
    began = time.monotonic()
    lease.ensure()
    assert time.monotonic() - began > 5
    assert servers_of(server) == [server.status()["mongod_pid"]]


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.3, 0.5])
def test_killed_while_starting_for_the_first_time(server: EmbeddedServer, tmp_path: Path, delay: float) -> None:
    """After a first start that was interrupted at any moment, the next one succeeds."""
    client = subprocess.Popen([sys.executable, server_client.__file__, str(tmp_path), "60.0"], stdin=subprocess.PIPE)
    wait_for(server.layout.owner.exists)
    time.sleep(delay)
    client.kill()
    client.wait()
    for pid in servers_of(server):
        end(pid)
    owner = Owner.read(server.layout)
    end(owner.keeper.pid)
    lease = server.connect()
    assert servers_of(server) == [server.status()["mongod_pid"]]
    lease.close()


def test_data_from_which_no_server_ever_answered_are_replaced(server: EmbeddedServer) -> None:
    server.layout.data.mkdir(parents=True)
    (server.layout.data / "WiredTiger.turtle").write_text("half")
    lease = server.connect()
    assert server.layout.initialised.read_text() == server.status()["version"] + "\n"
    lease.close()


def test_a_removed_runtime_folder_is_made_again(server: EmbeddedServer, lease: Lease) -> None:
    """$XDG_RUNTIME_DIR is removed with the last logout."""
    before = server.status()["mongod_pid"]
    shutil.rmtree(Path(lease.socket).parent)
    wait_for(lambda: server.status().get("mongod_pid", before) != before)
    assert answers(Path(lease.ensure()))
    assert servers_of(server) == [server.status()["mongod_pid"]]


def test_a_mongod_that_keeps_crashing_is_not_started_again(tmp_path: Path) -> None:
    """This mongod answers, then ends."""
    fake = tmp_path / "mongod"
    fake.write_text(
        f"#!{sys.executable}\n"
        "import socket, sys, time\n"
        "if '--version' in sys.argv:\n"
        "    print('db version v6.0.5'); sys.exit()\n"
        "path = sys.argv[sys.argv.index('--bind_ip') + 1]\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen(); time.sleep(0.2)\n"
    )
    fake.chmod(0o755)
    server = EmbeddedServer(Layout.of(tmp_path / "home"), 60.0, fake)
    lease = server.connect()
    wait_for(lambda: server.status()["state"] == "failed")
    assert "mongod ended 6 times" in server.status()["message"]
    lease.close()

"""The private server as its clients see it."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import server_client

from esen_flows.errors import ServerUnavailableError, StoreError
from esen_flows.settings import Settings
from esen_flows.store.host import Host
from esen_flows.store.server import embedded, mongod
from esen_flows.store.server.embedded import EmbeddedServer, Lease
from esen_flows.store.server.layout import Layout, Owner


def with_proc(tmp_path: Path, server: EmbeddedServer, **files: str) -> EmbeddedServer:
    """The server on a machine with other files in /proc."""
    proc = tmp_path / "proc"
    (proc / "sys/kernel/random").mkdir(parents=True)
    (proc / "sys/kernel/random/boot_id").write_text(Host().boot_id())
    texts = {"mounts": Path("/proc/mounts").read_text(), "cpuinfo": Path("/proc/cpuinfo").read_text()} | files
    for name, text in texts.items():
        (proc / name).write_text(text)
    (proc / str(os.getpid())).mkdir()
    (proc / str(os.getpid()) / "stat").write_text(Path("/proc/self/stat").read_text())
    return replace(server, host=Host(proc=proc))


def no_files(server: EmbeddedServer) -> bool:
    return not server.layout.data.exists() and not server.layout.owner.exists()


@pytest.mark.mongod
def test_start_status_stop(embedded_settings: Settings, tmp_path: Path) -> None:
    settings = embedded_settings.model_copy(update={"data_dir": tmp_path})
    assert embedded.status(settings)["running"] is False
    assert not embedded.stop(settings)
    assert list(tmp_path.iterdir()) == []  # neither has made a file
    facts = embedded.start(settings)
    assert facts["running"]
    assert facts["state"] == "ready"
    assert embedded.start(settings)["mongod_pid"] == facts["mongod_pid"]
    socket = Path(facts["socket"])
    assert socket.stat().st_mode & 0o777 == 0o600
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert embedded.stop(settings)
    assert embedded.status(settings)["state"] == "stopped"
    assert not socket.parent.exists()


@pytest.mark.mongod
def test_mongod_listens_only_on_its_sockets(server: EmbeddedServer, lease: Lease) -> None:
    pid = server.status()["mongod_pid"]
    links = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # mongod closes files all the time
            links.append(os.readlink(entry.path))
    inodes = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    tcp = "".join(Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6", "udp", "udp6"))
    unix = Path(f"/proc/{pid}/net/unix").read_text()
    assert not [line for line in tcp.splitlines() if line.split()[9] in inodes]
    listening = [line.split() for line in unix.splitlines()[1:] if line.split()[6] in inodes and len(line.split()) > 7]
    assert {Path(fields[7]).parent for fields in listening} == {Path(lease.socket).parent}


@pytest.mark.mongod
def test_the_licence_is_named_once(server: EmbeddedServer, caplog: pytest.LogCaptureFixture) -> None:
    server.connect().close()
    server.stop(force=True)
    server.connect().close()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "SSPL" in messages[0]
    assert str(server.layout.data) in messages[0]


@pytest.mark.mongod
def test_many_processes_at_once_get_one_server(server: EmbeddedServer, tmp_path: Path) -> None:
    clients = [
        subprocess.Popen(
            [sys.executable, server_client.__file__, str(tmp_path), "60"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    answers = {client.stdout.readline() for client in clients if client.stdout}
    for client in clients:
        client.communicate("\n", timeout=600)
    assert len(answers) == 1
    assert answers.pop().startswith("/")


@pytest.mark.mongod
def test_a_server_in_use_is_not_stopped(server: EmbeddedServer, lease: Lease) -> None:
    with pytest.raises(StoreError, match=r"in use.*--force"):
        server.stop()
    lease.close()
    assert server.stop()


@pytest.mark.mongod
def test_a_client_that_connects_while_the_server_stops_gets_a_new_server(server: EmbeddedServer) -> None:
    first = server.connect()
    before = server.status()["mongod_pid"]
    first.close()
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    time.sleep(0.02)
    lease = server.connect()
    stopper.join()
    # If the client was first, its server has been stopped, and the lease starts another one.
    lease.ensure()
    status = server.status()
    assert status["running"]
    assert status["mongod_pid"] != before
    lease.close()


@pytest.mark.mongod
def test_a_failed_start_tells_the_reason(server: EmbeddedServer) -> None:
    server.connect().close()
    server.stop()
    (server.layout.data / "WiredTiger.turtle").write_text("not a turtle")
    (server.layout.data / "WiredTiger.wt").write_bytes(b"\0" * 4096)
    with pytest.raises(ServerUnavailableError, match=r"mongod .* ended at its start with status .*mongod\.log"):
        server.connect()
    status = server.status()
    assert (status["running"], status["state"]) == (False, "failed")
    assert "ended at its start" in status["message"]


def test_network_file_systems_are_refused(tmp_path: Path) -> None:
    server = EmbeddedServer(Layout.of(tmp_path / "home"))
    server = with_proc(tmp_path, server, mounts=f"server:/x {tmp_path / 'home'} nfs4 rw 0 0\n")
    with pytest.raises(ServerUnavailableError, match=r"network file system \(nfs4, .*ESEN_FLOWS_DATA_DIR.*MONGO_URI"):
        server.connect()
    assert not (tmp_path / "home").exists()


def test_processors_without_avx_are_refused(tmp_path: Path) -> None:
    server = with_proc(tmp_path, EmbeddedServer(Layout.of(tmp_path / "home")), cpuinfo="flags : fpu sse2\n")
    with pytest.raises(ServerUnavailableError, match=r"no AVX.*ESEN_FLOWS_MONGO_URI"):
        server.connect()
    assert no_files(server)


def test_data_of_another_machine_is_refused(tmp_path: Path) -> None:
    server = EmbeddedServer(Layout.of(tmp_path))
    server.layout.root.mkdir()
    here = Host().process()
    theirs = replace(here, host="node17", boot_id="another")
    Owner("ready", theirs, theirs, "/usr/bin/mongod", "6.0.5", "/tmp/x", "2026-11-21T10:00:00+00:00").write(
        server.layout
    )
    with pytest.raises(ServerUnavailableError, match=r"server on node17 .*db stop.*ESEN_FLOWS_DATA_DIR.*owner\.json"):
        server.connect()
    # Its processes cannot be seen from here: they are neither signalled nor taken for dead.
    with pytest.raises(StoreError, match=r"process \d+ of node17; stop it there"):
        server.stop()


def test_a_server_in_another_container_is_refused(tmp_path: Path) -> None:
    """On one kernel the locks are shared, but neither the processes nor the socket can be seen."""
    server = EmbeddedServer(Layout.of(tmp_path))
    server.layout.root.mkdir()
    theirs = replace(Host().process(), host="container", namespace="pid:[1]")
    Owner("ready", theirs, None, "mongod", "6.0.5", str(tmp_path / "gone"), "now").write(server.layout)
    lock = embedded.FileLock(server.layout.keeper_lock)
    assert lock.try_exclusive()
    with pytest.raises(ServerUnavailableError, match=r"another container \(container\)"):
        server.connect()
    lock.close()


def test_no_mongod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongod, "_from_wheel", lambda: None)
    monkeypatch.setenv("PATH", "/nowhere")
    server = EmbeddedServer(Layout.of(tmp_path))
    with pytest.raises(ServerUnavailableError, match="no mongod found"):
        server.connect()
    assert no_files(server)


@pytest.mark.mongod
def test_long_runtime_folder(server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("r" * 90)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(ServerUnavailableError, match=r"has \d+ bytes.*XDG_RUNTIME_DIR"):
        server.connect()
    assert no_files(server)
    assert list(long.iterdir()) == []


def test_a_place_that_cannot_be_written() -> None:
    with pytest.raises(ServerUnavailableError, match=r"cannot make the folder /proc/.*ESEN_FLOWS_DATA_DIR"):
        EmbeddedServer(Layout(Path("/proc/nowhere/mongodb"))).connect()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ServerUnavailableError, match="Permission denied"):
        EmbeddedServer(Layout.of(tmp_path)).connect()


@pytest.mark.mongod
def test_a_link_in_the_place_of_the_runtime_folder_is_refused(server: EmbeddedServer, tmp_path: Path) -> None:
    """Every user can write to /tmp, so a link there may lead anywhere."""
    (tmp_path / "trap").mkdir()
    runtime = server.layout.runtime_dir()
    runtime.symlink_to(tmp_path / "trap")
    try:
        with pytest.raises(ServerUnavailableError, match=r"is not a folder of user.*XDG_RUNTIME_DIR"):
            server.connect()
        assert list((tmp_path / "trap").iterdir()) == []
    finally:
        runtime.unlink()


def test_a_keeper_that_ends_without_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "mongod"
    binary.write_text("#!/bin/sh\necho 'db version v6.0.5'\n")
    binary.chmod(0o755)
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(ServerUnavailableError, match=r"ended 3 times without a report; see .*keeper\.log"):
        EmbeddedServer(Layout.of(tmp_path / "home"), mongod=binary).connect()

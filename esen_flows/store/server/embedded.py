"""The embedded default: a private mongod of this user, shared by all of their processes, reached by a socket alone.

A client holds `clients.lock` shared for as long as it may use the server; the keeper stops the server only while it
holds that lock alone. So whoever has the lock either finds a server that stays, or starts one.
"""

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from esen_flows.errors import ServerUnavailableError, StoreError
from esen_flows.settings import Settings, get_settings
from esen_flows.store.host import Host
from esen_flows.store.server.keeper import READY_SECONDS, STOP_SECONDS, answers
from esen_flows.store.server.layout import Layout, Owner, check_socket_path, make_private
from esen_flows.store.server.locks import FileLock
from esen_flows.store.server.mongod import LICENCE_NOTICE, Mongod, find_mongod

logger = logging.getLogger(__name__)

# Longest first: an orphan to end, a recovery, and another client's attempt before ours.
_PATIENCE_SECONDS = READY_SECONDS + 2 * STOP_SECONDS
_ATTEMPTS = 3


@dataclass(frozen=True)
class EmbeddedServer:
    """The private server of one data directory, as its clients see it."""

    layout: Layout
    idle_seconds: float = 600.0
    mongod: Path | None = None
    host: Host = field(default_factory=Host)
    search_path: str | None = None  # instead of PATH

    @classmethod
    def of(cls, settings: Settings) -> "EmbeddedServer":
        """The server that these settings mean."""
        return cls(Layout.of(settings.data_dir), settings.mongod_idle_seconds, settings.mongod)

    def connect(self) -> "Lease":
        """A running server, started if need be, that stays until the lease is closed.

        Raises
        ------
        ServerUnavailableError
            with the one reason and its remedy.
        """
        self._check_place()
        lease = Lease(self, FileLock(self.layout.clients_lock))
        try:
            lease.ensure()
        except BaseException:
            lease.close()
            raise
        return lease

    def stop(self, force: bool = False) -> bool:
        """Stop the server; False when none was running.

        Raises
        ------
        StoreError
            processes use it and `force` was not given, or it does not stop.
        """
        owner = Owner.read(self.layout)
        if owner is None or not owner.is_alive(self.host):
            return False
        if not self.host.sees(owner.keeper):
            raise StoreError(f"the server is run by process {owner.keeper.pid} of {owner.keeper.host}; stop it there")
        if not force and self._in_use():
            raise StoreError("the server is in use; end the processes that use it, or stop it with --force")
        os.kill(owner.keeper.pid, signal.SIGTERM)
        deadline = time.monotonic() + 2 * STOP_SECONDS
        while not self.host.is_dead(owner.keeper):
            if time.monotonic() > deadline:
                raise StoreError(f"the server's keeper (process {owner.keeper.pid}) does not stop; kill it")
            time.sleep(0.02)
        return True

    def status(self) -> dict[str, Any]:
        """What is known about the server, without starting or changing anything."""
        owner = Owner.read(self.layout)
        running = owner is not None and owner.is_running(self.host) and answers(Path(owner.socket))
        facts: dict[str, Any] = {"running": running, "data": str(self.layout.data), "log": str(self.layout.server_log)}
        if owner is not None:
            state = owner.state if owner.is_alive(self.host) or owner.state in ("stopped", "failed") else "dead"
            facts |= {"state": state, "version": owner.version, "binary": owner.binary, "message": owner.message}
        if owner is not None and running:
            facts |= {
                "socket": owner.socket,
                "started": owner.started,
                "host": owner.keeper.host,
                "keeper_pid": owner.keeper.pid,
                "mongod_pid": owner.mongod.pid if owner.mongod else None,
                "in_use": self._in_use(),
            }
        return facts

    def _in_use(self) -> bool:
        lock = FileLock(self.layout.clients_lock)
        try:
            return not lock.try_exclusive()
        finally:
            lock.close()

    def _check_place(self) -> None:
        """Everything that makes a data directory unusable, before anything is made in it that matters."""
        root = self.layout.root
        network = self.host.network_file_system(root)
        if network is not None:
            raise ServerUnavailableError(
                f"{root} is on a network file system ({network[0]}, mounted at {network[1]}), where a database loses "
                "data; set ESEN_FLOWS_DATA_DIR to a local folder, or use a server through ESEN_FLOWS_MONGO_URI"
            )
        make_private(root, parents=True)
        if not os.access(root, os.W_OK | os.X_OK):
            raise ServerUnavailableError(f"{root} is not writable; set ESEN_FLOWS_DATA_DIR to a folder of your own")
        owner = Owner.read(self.layout)
        if owner is not None and owner.is_foreign(self.host):
            raise ServerUnavailableError(
                f"{root} is in use by a server on {owner.keeper.host} (since {owner.started}); run this there, or stop "
                f"it there with `esen-flows db stop`, or use another ESEN_FLOWS_DATA_DIR. If that machine is gone or "
                f"this one was renamed, remove {self.layout.owner}"
            )

    def spawn(self, lock: FileLock, deadline: float) -> Owner | None:
        """Start a keeper that takes over `lock`; None when it was killed before it could say anything."""
        if self.host.lacks_avx():
            raise ServerUnavailableError(
                "this processor has no AVX, without which mongod 5 and later cannot run; use a server on another "
                "machine through ESEN_FLOWS_MONGO_URI"
            )
        mongod = find_mongod(self.mongod, self.search_path)
        socket = self.layout.runtime_dir() / "mongod.sock"
        check_socket_path(socket)
        self._name_licence(mongod)
        process = self._launch(mongod, socket, lock)
        lock.close()  # the keeper has its own descriptor of it now
        answer = _first_line(process, deadline)
        process.wait()
        if answer is None:
            return None
        if "error" in answer:
            raise ServerUnavailableError(answer["error"])
        return Owner.read(self.layout)

    def check_visible(self, owner: Owner) -> None:
        """Refuse a server that runs beside us but whose socket is elsewhere.

        Raises
        ------
        ServerUnavailableError
            another container on this kernel has the data directory.
        """
        if not self.host.sees(owner.keeper):
            raise ServerUnavailableError(
                f"{self.layout.root} is served from another container ({owner.keeper.host}), whose socket "
                f"{owner.socket} is not reachable here; run this there, or use another ESEN_FLOWS_DATA_DIR"
            )

    def _launch(self, mongod: Mongod, socket: Path, lock: FileLock) -> "subprocess.Popen[bytes]":
        package_parent = str(Path(__file__).resolve().parents[3])
        search = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
        descriptor = lock.descriptor
        with self.layout.keeper_log.open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable, "-m", "esen_flows.store.server.keeper",
                    "--root", str(self.layout.root), "--socket", str(socket),
                    "--binary", str(mongod.binary), "--version", mongod.version,
                    "--idle-seconds", str(self.idle_seconds), "--lock-descriptor", str(descriptor),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
                pass_fds=(descriptor,),
                start_new_session=True,  # no Ctrl-C of the terminal reaches it
            )  # fmt: skip

    def _name_licence(self, mongod: Mongod) -> None:
        """Say once, at the first start, whose server this is."""
        notice = LICENCE_NOTICE.format(version=mongod.version, binary=mongod.binary)
        try:
            with (self.layout.root / "LICENCE-NOTICE.txt").open("x") as file:
                file.write(notice + "\n")
        except FileExistsError:
            return
        logger.warning("%s; its data will be in %s", notice, self.layout.data)


class Lease:
    """The right to a running server. While it is held, the keeper does not go idle."""

    def __init__(self, server: EmbeddedServer, clients: FileLock) -> None:
        self.server = server
        self._clients = clients
        self.socket = ""

    @property
    def uri(self) -> str:
        """For pymongo: the socket's path with its slashes escaped."""
        return "mongodb://" + quote(self.socket, safe="")

    def ensure(self) -> str:
        """Make sure that a server runs, also after keeper or server were killed; its socket.

        Raises
        ------
        ServerUnavailableError
            it cannot be started.
        """
        layout = self.server.layout
        deadline = time.monotonic() + _PATIENCE_SECONDS
        if not self._clients.shared(_PATIENCE_SECONDS):
            raise ServerUnavailableError(f"the server is stopping and does not end; see {layout.keeper_log}")
        started = 0
        while time.monotonic() < deadline:
            lock = FileLock(layout.keeper_lock)
            try:
                owner = None
                if not lock.try_exclusive():
                    owner = Owner.read(layout)
                elif started < _ATTEMPTS:
                    started += 1
                    owner = self.server.spawn(lock, deadline)
                else:
                    raise ServerUnavailableError(
                        f"the server's keeper ended {started} times without a word; see {layout.keeper_log}"
                    )
            finally:
                lock.close()
            if owner is not None and owner.is_running(self.server.host):
                if answers(Path(owner.socket)):
                    self.socket = owner.socket
                    return self.socket
                self.server.check_visible(owner)
            time.sleep(0.02)
        raise ServerUnavailableError(
            f"the server is not ready after {_PATIENCE_SECONDS:.0f} s; see {layout.keeper_log}"
        )

    def close(self) -> None:
        """Give up the right; the keeper stops the server when it has been alone for long enough."""
        with contextlib.suppress(OSError):
            os.utime(self.server.layout.clients_lock)  # the time of the last use
        self._clients.close()


def start(settings: Settings | None = None) -> dict[str, Any]:
    """Start the private server, or find it running; its status.

    Raises
    ------
    ServerUnavailableError
        it cannot be started.
    """
    server = EmbeddedServer.of(settings or get_settings())
    lease = server.connect()
    try:
        return server.status()
    finally:
        lease.close()


def stop(settings: Settings | None = None, force: bool = False) -> bool:
    """Stop the private server; False when none was running.

    Raises
    ------
    StoreError
        processes use it and `force` was not given.
    """
    return EmbeddedServer.of(settings or get_settings()).stop(force)


def status(settings: Settings | None = None) -> dict[str, Any]:
    """What is known about the private server: `running`, `data`, `log`, and once started `version`, `socket`, pids."""
    return EmbeddedServer.of(settings or get_settings()).status()


def _first_line(process: "subprocess.Popen[bytes]", deadline: float) -> dict[str, str] | None:
    """The keeper's one line of JSON; None when it ended without it."""
    assert process.stdout is not None
    with process.stdout as pipe:
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise ServerUnavailableError(f"the server's keeper says nothing after {_PATIENCE_SECONDS:.0f} s")
        line = pipe.readline()
    return json.loads(line) if line.endswith(b"\n") else None

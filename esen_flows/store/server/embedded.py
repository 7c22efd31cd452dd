"""The embedded default: a private mongod of this user, shared by all processes of the user, reached only by a socket.

A client holds `clients.lock` shared as long as it may use the server, and the keeper stops the server only while it
holds that lock exclusively. A client with the lock therefore either finds a server that keeps running, or starts one.
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
from esen_flows.files import written_whole
from esen_flows.settings import Settings, get_settings
from esen_flows.store.host import Host
from esen_flows.store.server.keeper import READY_SECONDS, STOP_SECONDS, answers
from esen_flows.store.server.layout import Layout, Owner, check_socket_path, full_disk, make_private
from esen_flows.store.server.locks import FileLock
from esen_flows.store.server.mongod import LICENCE_NOTICE, Mongod, find_mongod

logger = logging.getLogger(__name__)

# Longest case: a leftover server has to be ended, the data recovered, and another client tries before this one.
_PATIENCE_SECONDS = READY_SECONDS + 2 * STOP_SECONDS
_ATTEMPTS = 3


@dataclass(frozen=True)
class EmbeddedServer:
    """The private server of one data directory, as its clients see it.

    Attributes
    ----------
    layout
        Paths of the server.
    idle_seconds
        Time without a client after which the server stops.
    mongod
        Binary to run; None: the first one that is found.
    host
        This machine.
    """

    layout: Layout
    idle_seconds: float = 600.0
    mongod: Path | None = None
    host: Host = field(default_factory=Host)

    @classmethod
    def of(cls, settings: Settings) -> "EmbeddedServer":
        """The server of some settings.

        Parameters
        ----------
        settings
            Settings of this process.

        Returns
        -------
        EmbeddedServer
            The server, not started.
        """
        return cls(Layout.of(settings.data_dir), settings.mongod_idle_seconds, settings.mongod)

    def connect(self) -> "Lease":
        """Start the server unless it runs.

        Returns
        -------
        Lease
            The server keeps running until the lease is closed.

        Raises
        ------
        ServerUnavailableError
            The server cannot be started; the message tells the reason and the remedy.
        """
        self._check_place()
        lease = Lease(self)
        try:
            lease.ensure()
        except BaseException:
            lease.close()
            raise
        return lease

    def stop(self, force: bool = False) -> bool:
        """Stop the server.

        Parameters
        ----------
        force
            Whether to stop it while processes use it.

        Returns
        -------
        bool
            Whether a server was running.

        Raises
        ------
        StoreError
            Processes use the server and `force` is False, the server runs elsewhere, or it does not stop.
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
        """What is known about the server; nothing is started or changed.

        Returns
        -------
        dict
            `running`, `data` and `log`. Once a server was started also `state`, `version`, `binary` and `message`.
            While it runs also `socket`, `started`, `host`, `keeper_pid`, `mongod_pid` and `in_use`.
        """
        owner = Owner.read(self.layout)
        facts: dict[str, Any] = {
            "running": owner is not None and owner.is_running(self.host) and answers(Path(owner.socket)),
            "data": str(self.layout.data),
            "log": str(self.layout.server_log),
        }
        if owner is None:
            return facts
        state = owner.state if owner.is_alive(self.host) or owner.state in ("stopped", "failed") else "dead"
        facts |= {"state": state, "version": owner.version, "binary": owner.binary, "message": owner.message}
        if facts["running"]:
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
        with contextlib.closing(FileLock(self.layout.clients_lock)) as lock:
            return not lock.try_exclusive()

    def _check_place(self) -> None:
        """Refuse an unusable data directory before any file of a server is made in it."""
        root = self.layout.root
        network = self.host.network_file_system(root)
        if network is not None:
            raise ServerUnavailableError(
                f"{root} is on a network file system ({network[0]}, mounted at {network[1]}), where a database loses "
                "data; set ESEN_FLOWS_DATA_DIR to a local folder, or use a server through ESEN_FLOWS_MONGO_URI"
            )
        owner = Owner.read(self.layout)
        runs = owner is not None and owner.is_running(self.host)  # a running server says by itself what it lacks
        if not runs and (lack := full_disk(self.layout)) is not None:
            raise ServerUnavailableError(lack)
        make_private(root, parents=True)
        if not os.access(root, os.W_OK | os.X_OK):
            raise ServerUnavailableError(f"{root} is not writable; set ESEN_FLOWS_DATA_DIR to a folder of your own")
        if owner is not None and owner.is_foreign(self.host):
            raise ServerUnavailableError(
                f"{root} is in use by a server on {owner.keeper.host} (since {owner.started}); run this there, or stop "
                f"it there with `esen-flows db stop`, or use another ESEN_FLOWS_DATA_DIR. If that machine is gone or "
                f"this one was renamed, remove {self.layout.owner}"
            )

    def _spawn(self, lock: FileLock, deadline: float) -> Owner | None:
        """Start a keeper that takes over `lock`; None when the keeper was killed before it reported."""
        if self.host.lacks_avx():
            raise ServerUnavailableError(
                "this processor has no AVX, without which mongod 5 and later cannot run; use a server on another "
                "machine through ESEN_FLOWS_MONGO_URI"
            )
        mongod = find_mongod(self.mongod)
        socket = self.layout.runtime_dir() / "mongod.sock"
        check_socket_path(socket)
        self._name_licence(mongod)
        process = self._launch(mongod, socket, lock)
        lock.close()  # the keeper has inherited a descriptor of its own
        report = _report_of(process, deadline)
        process.wait()
        if report is None:
            return None
        if "error" in report:
            raise ServerUnavailableError(report["error"])
        return Owner.read(self.layout)

    def _launch(self, mongod: Mongod, socket: Path, lock: FileLock) -> "subprocess.Popen[bytes]":
        package_parent = str(Path(__file__).resolve().parents[3])
        search = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
        with self.layout.keeper_log.open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable, "-m", "esen_flows.store.server.keeper",
                    self.layout.root, socket, mongod.binary, mongod.version, str(self.idle_seconds),
                    str(lock.descriptor),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
                pass_fds=(lock.descriptor,),
                start_new_session=True,  # Ctrl-C in the terminal does not reach the keeper
            )  # fmt: skip

    def _name_licence(self, mongod: Mongod) -> None:
        """Tell the licence of the server once, at its first start."""
        notice = LICENCE_NOTICE.format(version=mongod.version, binary=mongod.binary)
        path = self.layout.root / "LICENCE-NOTICE.txt"
        if path.exists() and path.stat().st_size:
            return
        with written_whole(path) as temporary:
            temporary.write_text(notice + "\n")
        logger.warning("%s; its data will be in %s", notice, self.layout.data)


class Lease:
    """The use of a running server by one client. The keeper does not stop the server while it is open.

    Parameters
    ----------
    server
        Server to use.
    """

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self._clients = FileLock(server.layout.clients_lock)
        self.socket = ""

    @property
    def uri(self) -> str:
        """URI for pymongo: the path of the socket with escaped slashes."""
        return "mongodb://" + quote(self.socket, safe="")

    def ensure(self) -> str:
        """Wait until the server answers, and start it if necessary, for example after keeper or server were killed.

        Returns
        -------
        str
            Path of the socket.

        Raises
        ------
        ServerUnavailableError
            The server cannot be started.
        """
        layout = self.server.layout
        deadline = time.monotonic() + _PATIENCE_SECONDS
        if not self._clients.shared(_PATIENCE_SECONDS):
            raise ServerUnavailableError(f"the server is stopping and does not end; see {layout.keeper_log}")
        started = 0
        while time.monotonic() < deadline:
            with contextlib.closing(FileLock(layout.keeper_lock)) as lock:
                if not lock.try_exclusive():
                    owner = Owner.read(layout)
                elif started < _ATTEMPTS:
                    started += 1
                    owner = self.server._spawn(lock, deadline)
                else:
                    raise ServerUnavailableError(
                        f"the server's keeper ended {started} times without a report; see {layout.keeper_log}"
                    )
            if owner is not None and owner.is_running(self.server.host):
                if answers(Path(owner.socket)):
                    self.socket = owner.socket
                    return self.socket
                if not self.server.host.sees(owner.keeper):  # its socket cannot be reached
                    raise ServerUnavailableError(
                        f"{layout.root} is served from another container ({owner.keeper.host}), whose socket "
                        f"{owner.socket} is not reachable here; run this there, or use another ESEN_FLOWS_DATA_DIR"
                    )
            time.sleep(0.02)
        raise ServerUnavailableError(
            f"the server is not ready after {_PATIENCE_SECONDS:.0f} s; see {layout.keeper_log}"
        )

    def close(self) -> None:
        """End the use; the keeper stops the server when nobody has used it for its idle time."""
        with contextlib.suppress(OSError):
            os.utime(self.server.layout.clients_lock)  # the time of the last use
        self._clients.close()


def start(settings: Settings | None = None) -> dict[str, Any]:
    """Start the private server unless it runs.

    Parameters
    ----------
    settings
        Settings; None: those of the environment.

    Returns
    -------
    dict
        Status of the server, as from `status`.

    Raises
    ------
    ServerUnavailableError
        The server cannot be started.
    """
    server = EmbeddedServer.of(settings or get_settings())
    with contextlib.closing(server.connect()):
        return server.status()


def stop(settings: Settings | None = None, force: bool = False) -> bool:
    """Stop the private server.

    Parameters
    ----------
    settings
        Settings; None: those of the environment.
    force
        Whether to stop it while processes use it.

    Returns
    -------
    bool
        Whether a server was running.

    Raises
    ------
    StoreError
        Processes use the server and `force` is False, or it does not stop.
    """
    return EmbeddedServer.of(settings or get_settings()).stop(force)


def status(settings: Settings | None = None) -> dict[str, Any]:
    """What is known about the private server; nothing is started or changed.

    Parameters
    ----------
    settings
        Settings; None: those of the environment.

    Returns
    -------
    dict
        Facts as from `EmbeddedServer.status`.
    """
    return EmbeddedServer.of(settings or get_settings()).status()


def _report_of(process: "subprocess.Popen[bytes]", deadline: float) -> dict[str, str] | None:
    """The keeper's report, one line of JSON; None when the keeper ended without one."""
    assert process.stdout is not None
    with process.stdout as pipe:
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise ServerUnavailableError(f"the server's keeper has not reported after {_PATIENCE_SECONDS:.0f} s")
        line = pipe.readline()
    return json.loads(line) if line.endswith(b"\n") else None

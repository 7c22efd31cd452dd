"""The keeper: a detached process that runs one mongod for one user and stops it when no client needs it.

`esen_flows.store.server.embedded` starts it as `python -m esen_flows.store.server.keeper`. Only the standard library is
imported here, so that the process starts at once and stays small. It holds `keeper.lock` as long as it lives: the
client that starts it takes the lock and hands over the open descriptor, so that at no moment there are two keepers or
the lock is free in between.
"""

import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from esen_flows.errors import ServerUnavailableError
from esen_flows.files import is_full_disk, written_whole
from esen_flows.store.host import Host
from esen_flows.store.server.layout import Layout, Owner, full_disk, make_private
from esen_flows.store.server.locks import FileLock
from esen_flows.store.server.mongod import command_line, log_reason

READY_SECONDS = 120.0  # recovery after a kill takes about a second; a big journal on a slow disk takes longer
STOP_SECONDS = 30.0
CRASHES_ALLOWED = 5  # within CRASH_WINDOW_SECONDS; after more crashes another start would not help
CRASH_WINDOW_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class _StopRequestedError(Exception):
    """A signal came while the server was starting."""


@dataclass
class Keeper:
    """Starts, watches and stops the server.

    Attributes
    ----------
    layout
        Paths of the server.
    socket
        Path of its socket.
    binary
        Path of mongod.
    version
        Version of mongod.
    idle_seconds
        Time without a client after which the server stops.
    host
        This machine.
    """

    layout: Layout
    socket: Path
    binary: Path
    version: str
    idle_seconds: float
    host: Host

    def __post_init__(self) -> None:
        self.clients = FileLock(self.layout.clients_lock)
        self.server: subprocess.Popen[bytes] | None = None
        self.owner = Owner(
            state="starting",
            keeper=self.host.process(),
            mongod=None,
            binary=str(self.binary),
            version=self.version,
            socket=str(self.socket),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def run(self, announce: Callable[[], None]) -> None:
        """Serve until the server is idle or a signal asks to stop.

        Parameters
        ----------
        announce
            Called when the server answers for the first time.

        Raises
        ------
        ServerUnavailableError
            Mongod does not start or keeps crashing.
        """
        crashes: list[float] = []
        self._start()
        announce()
        while True:
            event = self._watch()
            if event == "crashed":
                crashes = [t for t in crashes if time.monotonic() - t < CRASH_WINDOW_SECONDS] + [time.monotonic()]
                if len(crashes) > CRASHES_ALLOWED:
                    raise ServerUnavailableError(f"mongod ended {len(crashes)} times: {log_reason(self.layout)}")
                _log(f"mongod ended with status {self.server and self.server.returncode}; starting it again")
            self.stop()
            if event == "done":
                return
            self._start()

    def stop(self) -> None:
        """Stop mongod: by a signal, and by a kill when it does not react."""
        if self.server is not None:
            self._write(state="stopping")
            self.server.terminate()
            try:
                self.server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
        with contextlib.suppress(OSError):
            for name in (self.socket.name, "mongodb-27017.sock"):  # mongod makes a second one under its default name
                (self.socket.parent / name).unlink(missing_ok=True)
            self.socket.parent.rmdir()
        self._write(state="stopped", mongod=None)

    def fail(self, message: str) -> None:
        """Stop, and record why there is no server.

        Parameters
        ----------
        message
            Reason for the clients.
        """
        self.stop()
        self._write(state="failed", message=message)

    def _start(self) -> None:
        """Start mongod and wait until it answers."""
        self._end_orphan()
        if (lack := full_disk(self.layout)) is not None:
            raise ServerUnavailableError(lack)
        if self.layout.data.exists() and not self.layout.initialised.exists():
            # Killed before it ever answered: no client can have stored anything, and mongod may fail on partial files.
            shutil.rmtree(self.layout.data)
        make_private(self.layout.data)
        make_private(self.socket.parent)
        self._write(state="starting", mongod=None)
        if self.layout.server_log.exists():
            self.layout.server_log.replace(self.layout.server_log.with_suffix(".log.1"))
        self.server = subprocess.Popen(
            command_line(self.binary, self.layout, self.socket),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_ending_with(os.getpid()),
        )
        with contextlib.suppress(ProcessLookupError):  # it has ended already: `_await_answer` tells why
            self._write(mongod=self.host.process(self.server.pid))
        self._await_answer(self.server)
        if not self.layout.initialised.exists():
            # Without the mark the next start removes the data, so a power failure must not undo it.
            with written_whole(self.layout.initialised, durable=True) as temporary:
                temporary.write_text(self.version + "\n")
        os.utime(self.layout.clients_lock)  # idle time counts from here: the client that asked may be gone already
        self._write(state="ready")

    def _watch(self) -> str:
        """Sleep until something happens: "done" when idle or asked to stop, "crashed", "unreachable"."""
        assert self.server is not None
        tick = min(1.0, self.idle_seconds / 4)
        while True:
            if _stop_requested(tick):
                return "done"
            if self.server.poll() is not None:
                return "crashed"
            if not self.socket.exists():  # the runtime folder of a session is removed with its last logout
                return "unreachable"
            if self._is_idle():
                return "done"

    def _write(self, **changes: object) -> None:
        self.owner = replace(self.owner, **changes)  # type: ignore[arg-type]
        try:
            self.owner.write(self.layout)
        except OSError as error:
            if not is_full_disk(error):
                raise
            # A record of another state would make clients wait for this one; without any they start a keeper.
            self.layout.owner.unlink(missing_ok=True)
            _log(f"the record {self.layout.owner} cannot be written: the disk is full")

    def _is_idle(self) -> bool:
        """Whether the idle time is over; if so, the lock that clients need stays taken until this process ends."""
        if not self.clients.try_exclusive():
            os.utime(self.layout.clients_lock)
            return False
        # Clients touch the file when they leave, so short visits between two looks count as use.
        if time.time() - self.layout.clients_lock.stat().st_mtime >= self.idle_seconds:
            return True
        self.clients.unlock()
        return False

    def _await_answer(self, server: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not answers(self.socket):
            if server.poll() is not None:
                raise ServerUnavailableError(
                    f"mongod {self.version} ended at its start with status {server.returncode}: "
                    f"{log_reason(self.layout)}"
                )
            if time.monotonic() > deadline:
                raise ServerUnavailableError(
                    f"mongod does not answer after {READY_SECONDS:.0f} s; see {self.layout.server_log}"
                )
            if _stop_requested(0.02):
                raise _StopRequestedError

    def _end_orphan(self) -> None:
        """End the mongod of a killed keeper. It should have ended with its keeper; two would damage the data."""
        lock_file = self.layout.data / "mongod.lock"
        if not lock_file.exists():
            return
        last = Owner.read(self.layout)
        began = time.monotonic()
        with contextlib.closing(FileLock(lock_file)) as lock:
            while not lock.try_exclusive():
                waited = time.monotonic() - began
                if last is not None and last.mongod is not None and not self.host.is_dead(last.mongod):
                    os.kill(last.mongod.pid, signal.SIGTERM if waited < STOP_SECONDS / 3 else signal.SIGKILL)
                if waited > STOP_SECONDS:
                    raise ServerUnavailableError(
                        f"another mongod (process {lock_file.read_text().strip() or 'unknown'}) has {self.layout.data} "
                        "open and is not ours; stop it"
                    )
                time.sleep(0.1)


def answers(path: Path) -> bool:
    """Whether a process listens on a Unix socket.

    Parameters
    ----------
    path
        Path of the socket.

    Returns
    -------
    bool
        Whether a connection succeeds within a second.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def main() -> None:
    """Detach, serve, and report on standard output, in one line of JSON, whether the server answers.

    The arguments of the process are the root of the layout, the path of the socket, the path and the version of mongod,
    the idle time in seconds, and the open descriptor that holds keeper.lock.
    """
    root, socket_path, binary, version, idle_seconds, lock_descriptor = sys.argv[1:]
    if os.fork():  # the client waits for this process alone; the orphaned child never becomes a zombie of the client
        os._exit(0)
    os.setsid()
    os.set_inheritable(int(lock_descriptor), False)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    keeper = Keeper(Layout(Path(root)), Path(socket_path), Path(binary), version, float(idle_seconds), Host())
    try:
        keeper.run(announce=lambda: _report({"socket": socket_path}))
    except _StopRequestedError:
        keeper.stop()
    except (ServerUnavailableError, OSError) as error:
        keeper.fail(str(error))
        _log(str(error))
        _report({"error": str(error)})


def _stop_requested(seconds: float) -> bool:
    """Wait for a signal, at most this long; whether it asks to stop. SIGCHLD only ends the wait."""
    arrived = signal.sigtimedwait(_SIGNALS, seconds)
    return arrived is not None and arrived.si_signo != signal.SIGCHLD


def _ending_with(keeper_pid: int) -> Callable[[], None]:
    """A function for the child before it becomes mongod, so that mongod ends with its keeper, even after a kill."""
    libc = ctypes.CDLL(None, use_errno=True)  # loaded here: little is allowed between fork and exec
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != keeper_pid:  # the keeper was killed before the line above
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 64000)), hard))

    return prepare


def _report(outcome: dict[str, str]) -> None:
    """Write one line to the client, which may be gone; then standard output is closed for good."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(outcome).encode() + b"\n")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _log(message: str) -> None:
    print(datetime.now(UTC).isoformat(timespec="seconds"), message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

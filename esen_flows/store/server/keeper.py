"""The keeper: a detached process that runs one mongod for one user and stops it when nobody needs it.

Started by `esen_flows.store.server.embedded` as `python -m esen_flows.store.server.keeper`; only the standard library
is imported here, so that it starts at once and stays small. It holds `keeper.lock` for all its life: the starter takes
the lock and hands over the open descriptor, so that there is never a moment with two keepers or with a free lock in
between.
"""

import argparse
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
from esen_flows.store.host import Host
from esen_flows.store.server.layout import Layout, Owner, make_private
from esen_flows.store.server.locks import FileLock
from esen_flows.store.server.mongod import command_line, log_reason

READY_SECONDS = 120.0  # recovery after a kill takes about a second; a big journal on a slow disk takes longer
STOP_SECONDS = 30.0
CRASHES_ALLOWED = 5  # within CRASH_WINDOW_SECONDS, then it is not worth another try
CRASH_WINDOW_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class _ToldToStopError(Exception):
    """A signal came while the server was starting."""


@dataclass
class Keeper:
    """Starts, watches and stops the server."""

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
        """Serve until idle or told to stop; `announce` is called when the server first answers.

        Raises
        ------
        ServerUnavailableError
            mongod does not start or keeps crashing.
        """
        crashes: list[float] = []
        self.start()
        announce()
        while True:
            why = self.watch()
            if why == "crashed":
                crashes = [t for t in crashes if time.monotonic() - t < CRASH_WINDOW_SECONDS] + [time.monotonic()]
                if len(crashes) > CRASHES_ALLOWED:
                    raise ServerUnavailableError(f"mongod ended {len(crashes)} times: {log_reason(self.layout)}")
                _log(f"mongod ended with status {self.server and self.server.returncode}; starting it again")
            self.stop()
            if why == "done":
                return
            self.start()

    def start(self) -> None:
        """Start mongod and wait until it answers."""
        self._end_orphan()
        if self.layout.data.exists() and not self.layout.initialised.exists():
            # Killed before it ever answered: nobody can have stored anything, and mongod may choke on the remains.
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
            preexec_fn=_die_with(os.getpid()),
        )
        with contextlib.suppress(ProcessLookupError):  # ended already: the next line tells why
            self._write(mongod=self.host.process(self.server.pid))
        self._await_answer(self.server)
        if not self.layout.initialised.exists():
            _write_durably(self.layout.initialised, self.version + "\n")
        os.utime(self.layout.clients_lock)  # who asked for it may be gone, but shall find it
        self._write(state="ready")

    def watch(self) -> str:
        """Sleep until something happens: "done" when idle or told to stop, "crashed", "unreachable"."""
        assert self.server is not None
        tick = min(1.0, self.idle_seconds / 4)
        while True:
            arrived = signal.sigtimedwait(_SIGNALS, tick)
            if arrived is not None and arrived.si_signo != signal.SIGCHLD:
                return "done"
            if self.server.poll() is not None:
                return "crashed"
            if not self.socket.exists():  # a session's runtime folder goes with its last logout
                return "unreachable"
            if self._is_idle():
                return "done"

    def stop(self) -> None:
        """Stop mongod: cleanly, or by force when it does not listen."""
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
        """Leave word of why there is no server."""
        self.stop()
        self._write(state="failed", message=message)

    def _write(self, **changes: object) -> None:
        self.owner = replace(self.owner, **changes)  # type: ignore[arg-type]
        self.owner.write(self.layout)

    def _is_idle(self) -> bool:
        """Whether nobody has been here for long enough; if so, the door stays locked until this process has ended."""
        if not self.clients.try_exclusive():
            os.utime(self.layout.clients_lock)
            return False
        # Parting clients touch the file, so those that came and went between two looks count too.
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
            arrived = signal.sigtimedwait(_SIGNALS, 0.02)
            if arrived is not None and arrived.si_signo != signal.SIGCHLD:
                raise _ToldToStopError

    def _end_orphan(self) -> None:
        """End the server of a keeper that was killed: it was told to die with it, this makes sure."""
        lock_file = self.layout.data / "mongod.lock"
        if not lock_file.exists():
            return
        lock = FileLock(lock_file)
        last = Owner.read(self.layout)
        began = time.monotonic()
        try:
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
        finally:
            lock.close()


def answers(path: Path) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def main(arguments: list[str] | None = None) -> None:
    """Detach, serve, and tell the starter on standard output how it went: one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m esen_flows.store.server.keeper", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the server's files")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--binary", type=Path, required=True, help="mongod")
    parser.add_argument("--version", required=True, help="of mongod")
    parser.add_argument("--idle-seconds", type=float, required=True)
    parser.add_argument("--lock-descriptor", type=int, required=True, help="open descriptor that holds keeper.lock")
    options = parser.parse_args(arguments)
    layout = Layout(options.root)
    if os.fork():  # the starter waits for its child only; the grandchild is nobody's zombie
        os._exit(0)
    os.setsid()
    os.set_inheritable(options.lock_descriptor, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    keeper = Keeper(layout, options.socket, options.binary, options.version, options.idle_seconds, Host())
    try:
        keeper.run(announce=lambda: _tell({"socket": str(options.socket)}))
    except _ToldToStopError:
        keeper.stop()
    except ServerUnavailableError as error:
        keeper.fail(str(error))
        _log(str(error))
        _tell({"error": str(error)})


def _die_with(keeper_pid: int) -> Callable[[], None]:
    """What the child does before it becomes mongod: tie its life to ours, even if we are killed."""
    libc = ctypes.CDLL(None, use_errno=True)  # loaded here: little is allowed between fork and exec
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != keeper_pid:  # killed before the line above
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 64000)), hard))

    return prepare


def _write_durably(path: Path, text: str) -> None:
    """Write a file that survives a power cut as certainly as the data beside it."""
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _tell(answer: dict[str, str]) -> None:
    """One line to the starter, who may be gone; then standard output is closed for good."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(answer).encode() + b"\n")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _log(message: str) -> None:
    print(datetime.now(UTC).isoformat(timespec="seconds"), message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""The heartbeat of claims: a small process beside its worker, which no long native call of the worker can starve.

A thread would stand still while a native call holds the interpreter's lock, and its claims would expire under work that
goes on. The process reads from a pipe what to renew; it ends with the worker, however the worker ends: the pipe closes,
and where a forked child of the worker keeps it open, the changed parent is noticed before the next renewal. Until the
first renewal is due it holds the standard library alone, so that short work costs next to nothing.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_END_SECONDS = 5.0


class Heartbeat:
    """Renews claims of this process; the process that does it starts with the first claim.

    Parameters
    ----------
    lifetime_ms
        how long a claim lives after a renewal, by the server's clock.
    beat_seconds
        between two renewals.
    """

    def __init__(self, lifetime_ms: int, beat_seconds: float) -> None:
        self._times = {"lifetime_ms": lifetime_ms, "beat_seconds": beat_seconds}
        self._held: set[str] = set()
        self._server: Mapping[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Of the process that renews, None before the first claim."""
        return None if self._process is None else self._process.pid

    def hold(self, tokens: Iterable[str], server: Mapping[str, Any]) -> None:
        """Renew these claims from now on.

        Parameters
        ----------
        tokens
            of the claims.
        server
            uri, options (of the client) and database; it goes through the pipe, where nobody sees the password.
        """
        new = list(tokens)
        with self._lock:
            self._held.update(new)
            moved = dict(server) != self._server
            self._server = dict(server)
            if self._process is None or moved or not self._tell({"hold": new}):
                self._start()

    def drop(self, tokens: Iterable[str]) -> None:
        """Renew these no more."""
        old = list(tokens)
        with self._lock:
            self._held.difference_update(old)
            if self._process is not None and not self._tell({"drop": old}) and self._held:
                self._start()

    def close(self) -> None:
        """Renew nothing any more."""
        with self._lock:
            self._held.clear()
            self._end()

    def _start(self) -> None:
        self._end()
        search = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "esen_flows.store.heartbeat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
            start_new_session=True,  # no Ctrl-C of the terminal reaches it
        )
        self._tell({"parent": os.getpid(), **self._times, **self._server})
        self._tell({"hold": sorted(self._held)})

    def _tell(self, message: Mapping[str, Any]) -> bool:
        """Whether the process could be told; False when somebody killed it."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Pulse:
    """The other side: renews what it was told to."""

    def __init__(self, orders: Mapping[str, Any]) -> None:
        self.orders = orders
        self.tokens: set[str] = set()
        self.lock = threading.Lock()
        self.client: Any = None

    def run(self) -> None:
        """Renew at every beat for as long as the worker lives."""
        pause = threading.Event()
        while not pause.wait(self.orders["beat_seconds"]):
            if os.getppid() != self.orders["parent"]:
                os._exit(0)
            with self.lock:
                tokens = sorted(self.tokens)
            if tokens:
                self.renew(tokens)

    def renew(self, tokens: list[str]) -> None:
        """Move the expiry; a lost beat is what the lifetime allows for, and the worker itself reports a lost server."""
        from pymongo import MongoClient
        from pymongo.errors import PyMongoError

        # The index is on `tokens`, which holds `token` too.
        query = {"tokens": {"$in": tokens}, "token": {"$in": tokens}}
        renewal = [{"$set": {"expires_at": {"$add": ["$$NOW", self.orders["lifetime_ms"]]}}}]
        with contextlib.suppress(PyMongoError):
            if self.client is None:
                self.client = MongoClient(self.orders["uri"], **self.orders["options"])
            self.client[self.orders["database"]]["claims"].update_many(query, renewal)


def main() -> None:
    """Read orders from standard input, one JSON object a line, until it closes."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # a queue signals a whole job; the worker decides when it ends
    first = sys.stdin.buffer.readline()
    if not first:
        return
    pulse = _Pulse(json.loads(first))
    threading.Thread(target=pulse.run, daemon=True).start()
    for line in sys.stdin.buffer:
        order = json.loads(line)
        with pulse.lock:
            pulse.tokens.update(order.get("hold", ()))
            pulse.tokens.difference_update(order.get("drop", ()))
    os._exit(0)


if __name__ == "__main__":
    main()

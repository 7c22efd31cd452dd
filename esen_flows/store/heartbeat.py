"""The heartbeat of claims: a small process that renews the claims of its worker.

A thread would not do: it stands still while a native call of the worker holds the interpreter's lock, and claims would
expire during such a call. The process reads from a pipe what to renew. It ends with the worker, however the worker
ends, because the pipe closes then. A forked child of the worker may keep the pipe open, so the process also checks that
its parent is the same before each renewal. Until the first renewal is due it imports only the standard library, so
that short work is hardly slower.
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
    """Renews claims of this process; the process that renews them starts with the first claim.

    Parameters
    ----------
    lifetime_ms
        Time in milliseconds after which a renewed claim expires, by the server's clock.
    beat_seconds
        Time in seconds between renewals.
    """

    def __init__(self, lifetime_ms: int, beat_seconds: float) -> None:
        self._times = {"lifetime_ms": lifetime_ms, "beat_seconds": beat_seconds}
        self._held: set[str] = set()
        self._server: Mapping[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Id of the process that renews; None before the first claim."""
        return None if self._process is None else self._process.pid

    def hold(self, tokens: Iterable[str], server: Mapping[str, Any]) -> None:
        """Renew claims from now on.

        Parameters
        ----------
        tokens
            Tokens of the claims.
        server
            `uri`, `options` (of the client) and `database`. They go through the pipe, because other users can read the
            arguments and the environment of a process, and the URI may hold a password.
        """
        new = list(tokens)
        with self._lock:
            self._held.update(new)
            moved = dict(server) != self._server
            self._server = dict(server)
            if self._process is None or moved or not self._tell({"hold": new}):
                self._start()

    def drop(self, tokens: Iterable[str]) -> None:
        """Stop renewing claims.

        Parameters
        ----------
        tokens
            Tokens of the claims.
        """
        old = list(tokens)
        with self._lock:
            self._held.difference_update(old)
            if self._process is not None and not self._tell({"drop": old}) and self._held:
                self._start()

    def close(self) -> None:
        """Stop renewing any claim, and end the process."""
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
            start_new_session=True,  # so that Ctrl-C in the terminal does not reach it
        )
        self._tell({"parent": os.getpid(), **self._times, **self._server})
        self._tell({"hold": sorted(self._held)})

    def _tell(self, message: Mapping[str, Any]) -> bool:
        """Send a message to the process; False if the process was killed."""
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


def _renew(orders: Mapping[str, Any], tokens: set[str], lock: threading.Lock) -> None:
    """Renew the claims in regular intervals for as long as the worker lives."""
    client: Any = None
    pause = threading.Event()
    while not pause.wait(orders["beat_seconds"]):
        if os.getppid() != orders["parent"]:
            os._exit(0)
        with lock:
            held = sorted(tokens)
        if not held:
            continue
        from pymongo import MongoClient
        from pymongo.errors import PyMongoError

        query = {"tokens": {"$in": held}, "token": {"$in": held}}  # the index is on `tokens`, which contains `token`
        renewal = [{"$set": {"expires_at": {"$add": ["$$NOW", orders["lifetime_ms"]]}}}]
        # Errors are ignored: claims outlive a few lost renewals, and the worker itself reports an outage.
        with contextlib.suppress(PyMongoError):
            client = client or MongoClient(orders["uri"], **orders["options"])
            client[orders["database"]]["claims"].update_many(query, renewal)


def _main() -> None:
    """Read orders from standard input, one JSON object a line, until it closes."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # a queue signals all processes of a job; the worker decides when to end
    first = sys.stdin.buffer.readline()
    if not first:
        return
    tokens, lock = set[str](), threading.Lock()
    threading.Thread(target=_renew, args=(json.loads(first), tokens, lock), daemon=True).start()
    for line in sys.stdin.buffer:
        order = json.loads(line)
        with lock:
            tokens.update(order.get("hold", ()))
            tokens.difference_update(order.get("drop", ()))
    os._exit(0)


if __name__ == "__main__":
    _main()

"""The child process in which another package evaluates structures: started, asked within a time limit, and ended."""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import IO, Any

from esen_flows.errors import CalculatorDiedError, ModelError
from esen_flows.forcefield.third_party.calculator_child import Arrays, ProtocolError, pack, unpack

_STDERR_BYTES = 20_000
_PIECE_BYTES = 1 << 20
_SECONDS_TO_DIE = 2.0
# To import a package from a busy network disk, to read a checkpoint and to compile takes minutes.
_SECONDS_TO_START = 1800.0


class CalculatorProcess:
    """A child that keeps one calculator, started at the first question and again after a crash.

    Parameters
    ----------
    command
        Program and arguments of the child.
    recipe
        First message, from which the child builds its calculator.
    environment
        Environment variables of the child.
    label
        Name of the force field, for messages.
    time_limit_seconds
        Time within which the child has to be done with each structure.
    """

    def __init__(
        self,
        command: Sequence[str],
        recipe: Mapping[str, Any],
        *,
        environment: Mapping[str, str],
        label: str,
        time_limit_seconds: float,
    ) -> None:
        self._command, self._recipe, self._environment = list(command), dict(recipe), dict(environment)
        self._label, self._limit = label, time_limit_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # process that started the child: one that was forked off must not read its answers
        self._stderr = bytearray()
        self._deadline = 0.0
        self._answers = 0  # of this child to batches
        self._description: dict[str, Any] = {}

    @property
    def pid(self) -> int | None:
        """Number of the child's process; None while there is none."""
        return None if self._process is None else self._process.pid

    def description(self) -> dict[str, Any]:
        """Version of the package, of Python and of all distributions in the child's environment.

        Returns
        -------
        dict[str, Any]
            `version`, `python` and `versions`.

        Raises
        ------
        ModelError
            The child cannot be started, or cannot build its calculator.
        """
        with self._lock:
            self._ensure_started()
            return self._description

    def ask(self, arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Answer of the child to a batch of structures.

        A child that has answered before and then ends is started again and asked once more. It may be worn out, and the
        batch not at fault: JAX keeps what it compiles for each shape, until the process has all the memory mappings
        that the kernel allows.

        Parameters
        ----------
        arrays
            Arrays as `calculator_child.evaluate` takes them.

        Returns
        -------
        dict[str, Any]
            Header, as it returns it: results, or an error of the calculator.
        Arrays
            Arrays, as it returns them; neither shapes nor values are checked here.

        Raises
        ------
        CalculatorDiedError
            The child died, hung or answered with anything that is not a message.
        ModelError
            The child cannot be started.
        """
        with self._lock:
            self._ensure_started()
            answer = self._exchange({"kind": "evaluate"}, arrays, self._limit, again=self._answers > 0)
            self._answers += 1
            return answer

    def reject(self, reason: str) -> CalculatorDiedError:
        """End a child whose answer is unusable.

        Parameters
        ----------
        reason
            Fault of the answer.

        Returns
        -------
        CalculatorDiedError
            Error to raise.
        """
        with self._lock:
            return self._died(reason)

    def close(self) -> None:
        """End the child and everything that it started; the next question starts another one."""
        process, self._process = self._process, None
        if process is not None:
            self._finalizer()  # and not `_end`: a finalizer that waits would keep every process that was replaced

    @property
    def _pipes(self) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
        """Standard input, output and error of the child."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None or process.stderr is None:
            raise EOFError
        return process.stdin, process.stdout, process.stderr

    def _ensure_started(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            return
        self._stderr, self._answers = bytearray(), 0
        try:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # so that it can be ended with all that it starts; it ends itself with us
            )
        except OSError as error:
            raise ModelError(f"{self._label!r}: {self._command[0]} cannot be run: {error.strerror}") from error
        self._owner = os.getpid()
        self._finalizer = weakref.finalize(self, _end_own, self._process, self._owner)
        stdin, _, stderr = self._pipes
        threading.Thread(target=_keep_tail, args=(stderr, self._stderr), daemon=True).start()
        os.set_blocking(stdin.fileno(), False)
        try:
            header, _ = self._exchange({"kind": "build", **self._recipe}, {}, _SECONDS_TO_START)
        except CalculatorDiedError as error:
            raise ModelError(f"{error}. The environment may be damaged: esen-flows models check MODEL") from error
        if header["kind"] != "ready":
            self.close()
            trace = str(header.get("traceback", "")).strip()
            raise ModelError(f"{self._label!r} cannot be built in its environment: {header.get('message')}\n{trace}")
        self._description = header

    def _exchange(
        self, header: Mapping[str, Any], arrays: Arrays, limit: float, *, again: bool = False
    ) -> tuple[dict[str, Any], Arrays]:
        """Send a message, and wait for the answer to it, with a time limit in seconds between signs of life.

        With `again`, another child is asked if this one ends.
        """
        try:
            self._deadline = time.monotonic() + limit
            self._write(pack(header, arrays))
            while True:
                self._deadline = time.monotonic() + limit
                answer = unpack(self._read)
                if answer[0]["kind"] != "alive":
                    return answer
        except TimeoutError:
            raise self._died(f"gave no sign of life for {limit:g} s") from None
        except ProtocolError as error:
            raise self._died(f"answered with something that is not a message ({error})") from None
        except (EOFError, BrokenPipeError, ConnectionError):
            died = self._died("ended")
            if not again:
                raise died from None
        except BaseException:  # interrupted: its answer would be taken for that to the next question
            self.close()
            raise
        self._ensure_started()
        return self._exchange(header, arrays, limit)

    def _write(self, data: bytes) -> None:
        descriptor, rest = self._pipes[0].fileno(), memoryview(data)
        while rest:
            self._wait(descriptor, select.POLLOUT)
            rest = rest[os.write(descriptor, rest[:_PIECE_BYTES]) :]

    def _read(self, count: int) -> bytes:
        descriptor, found = self._pipes[1].fileno(), bytearray()
        while len(found) < count:
            self._wait(descriptor, select.POLLIN)
            piece = os.read(descriptor, min(count - len(found), _PIECE_BYTES))
            if not piece:
                raise EOFError
            found += piece
        return bytes(found)

    def _wait(self, descriptor: int, event: int) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(max(0.0, 1000.0 * (self._deadline - time.monotonic()))):
            raise TimeoutError

    def _died(self, reason: str) -> CalculatorDiedError:
        process = self._process
        ending = ""
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # its last words and its exit status
                ending = f" ({_ending(process.wait(0.5 if reason == 'ended' else 0.0))})"
        self.close()
        words = self._stderr.decode(errors="replace").strip()
        last = f"; its last words: {words[-2000:]}" if words else ""
        return CalculatorDiedError(f"the process of {self._label!r} {reason}{ending}{last}")


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-status).name}"
    return f"signal {-status}"


def _keep_tail(stream: IO[bytes], tail: bytearray) -> None:
    """Read standard error to its end, and keep the last of it."""
    with stream, contextlib.suppress(OSError, ValueError):
        while piece := os.read(stream.fileno(), 1 << 16):
            tail += piece
            del tail[:-_STDERR_BYTES]


def _end_own(process: "subprocess.Popen[bytes]", owner: int) -> None:
    if owner == os.getpid():
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a child with its process group, unless it has ended and was waited for: its number may be another's then."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_DIE)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()

"""Jobs of another package, for workers in processes of their own."""

import os
import signal
import time
from pathlib import Path

from jobflow import Response, job
from pymongo.errors import ServerSelectionTimeoutError


def note(file: str, words: str) -> None:
    """Append a line in one write, so that lines of several processes are not mixed."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{words}\n".encode())
    os.close(descriptor)


@job
def add(a: float, b: float, file: str) -> float:
    """Return a sum; note the process, its devices and its threads."""
    note(file, f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')} {os.environ['OMP_NUM_THREADS']}")
    return a + b


@job
def wait(file: str, seconds: float, gate: str = "") -> str:
    """Note that it began, and wait for some seconds or until the gate exists."""
    note(file, "began")
    until = time.monotonic() + seconds
    while time.monotonic() < until and not (gate and Path(gate).exists()):
        time.sleep(0.02)
    note(file, "ended")
    return file


@job
def obey(file: str) -> Response:
    """Wait until its process has to end, and hand on the rest as chunks do."""
    from esen_flows.stopping import is_stopping

    note(file, "began")
    while not is_stopping():
        time.sleep(0.02)
    note(file, "handed on")
    return Response(output=1, detour=add(1, 1, file))


@job
def break_off(file: str) -> None:
    """Wait until its process has to end, without handing on the rest."""
    from esen_flows.stopping import raise_if_stopping

    note(file, "began")
    while True:
        raise_if_stopping()
        time.sleep(0.02)


@job
def ignore(file: str) -> None:
    """Never end, and never look whether the process has to."""
    note(file, "began")
    time.sleep(3600)


@job
def crash(file: str) -> None:
    """Crash the process."""
    note(file, "crash")
    os.kill(os.getpid(), signal.SIGSEGV)


@job
def crash_once(file: str) -> str:
    """Crash the process, the first time."""
    note(file, "crash")
    if len(Path(file).read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    return "done"


@job
def fail(file: str) -> None:
    """Raise an error."""
    note(file, f"{os.getpid()} fails")
    raise ValueError("no such thing")


@job
def lose_a_server() -> None:
    """Use another server, which does not answer."""
    raise ServerSelectionTimeoutError("elsewhere:27017: timed out")


@job
def leave() -> None:
    """End the process, like a program that handles signals itself."""
    raise SystemExit(1)

"""When a process has to end: a queue's signal, or the end of its allocation. Work asks, and hands back what is left."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

# What a queue sends ahead of the end of a job, and at it.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(BaseException):  # no error: as KeyboardInterrupt it passes by what handles errors
    """Work was broken off because its process has to end; it says nothing about the work."""


@dataclass
class Allocation:
    """The time that this process has.

    Attributes
    ----------
    deadline
        when it ends, by `time.monotonic`; None: nobody said.
    requested
        somebody asked the process to end.
    """

    deadline: float | None = None
    requested: bool = False


ALLOCATION = Allocation()


def request_stop() -> None:
    """Ask what runs in this process to hand back the rest of its work."""
    ALLOCATION.requested = True


def seconds_left() -> float:
    """Until the end of the allocation; infinity where nobody said when that is."""
    return math.inf if ALLOCATION.deadline is None else ALLOCATION.deadline - time.monotonic()


def is_stopping() -> bool:
    """Whether the process was asked to end, or its time is up."""
    return ALLOCATION.requested or seconds_left() <= 0


def raise_if_stopping() -> None:
    """Break off, where that loses little.

    Raises
    ------
    Stopped
        the process was asked to end, or its time is up.
    """
    if is_stopping():
        raise Stopped


@contextmanager
def stopping_by_signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGUSR1 ask for the end of the work instead of killing the process.

    Only Python's main thread can do this; call it there.
    """

    def ask(number: int, frame: FrameType | None) -> None:
        request_stop()

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

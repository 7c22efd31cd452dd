"""When a process has to end: at a signal of its queue, or at the end of its time.

Long computations ask in between, and hand back the work that is left.
"""

import ctypes
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType

# Queues send these shortly before the end of a job, and at its end.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


class Stopped(BaseException):  # not an Exception: like KeyboardInterrupt, it passes code that handles errors
    """Work was broken off because its process has to end. It says nothing about the work itself."""


@dataclass
class Allocation:
    """The time that a process has.

    Attributes
    ----------
    deadline
        End of the time, by `time.monotonic` in seconds; None: not known.
    requested
        Whether the process was asked to end.

    Examples
    --------
    >>> with allocated(Allocation()) as allocation:
    ...     before = is_stopping()
    ...     allocation.request_stop()  # what a signal handler calls
    ...     before, is_stopping()
    (False, True)
    """

    deadline: float | None = None
    requested: bool = False

    def request_stop(self) -> None:
        """Ask the work in this process to hand back what is left of it."""
        self.requested = True

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline; infinite without one."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    @property
    def is_stopping(self) -> bool:
        """Whether the process was asked to end, or its time is up."""
        return self.requested or self.seconds_left <= 0


# Set by the entry point of a process. Its threads and signal handlers do not see the context of the main thread: they
# are given the object.
_current: ContextVar[Allocation | None] = ContextVar("allocation", default=None)


@contextmanager
def allocated(allocation: Allocation) -> Iterator[Allocation]:
    """Have the functions of this module answer by `allocation` inside the `with` block.

    Parameters
    ----------
    allocation
        Time of this process.

    Yields
    ------
    Allocation
        The same object.
    """
    token = _current.set(allocation)
    try:
        yield allocation
    finally:
        _current.reset(token)


def seconds_left() -> float:
    """Seconds until the end of the allocation.

    Returns
    -------
    float
        Infinite where the end is not known.
    """
    return (_current.get() or Allocation()).seconds_left


def is_stopping() -> bool:
    """Whether the process was asked to end, or its time is up.

    Returns
    -------
    bool
        False where the process has no allocation.
    """
    return (_current.get() or Allocation()).is_stopping


def raise_if_stopping() -> None:
    """Break off, at a point where little is lost.

    Raises
    ------
    Stopped
        The process was asked to end, or its time is up.
    """
    if is_stopping():
        raise Stopped


@dataclass(frozen=True)
class _Reaction:
    """A handler of `handling` that also calls the one that it replaced, if that is of `handling` too."""

    react: Callable[[], object]
    outer: object

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.react()
        if isinstance(self.outer, _Reaction):
            self.outer(number, frame)


@contextmanager
def handling(signals: Iterable[int], react: Callable[[], object]) -> Iterator[None]:
    """Have signals call a function inside the `with` block, instead of ending the process.

    Inside of another such block the functions of both are called, so that a signal which arrives at the end of a part
    of the work also stops the rest. Python handles signals in its main thread alone: in another thread this changes
    nothing, and the main thread goes on to handle them.

    Parameters
    ----------
    signals
        Numbers of the signals.
    react
        Called once for each signal that arrives, such as `Allocation.request_stop`.

    Yields
    ------
    None
        Nothing.
    """
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in signals:
            previous[number] = signal.getsignal(number)
            signal.signal(number, _Reaction(react, previous[number]))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, in whatever way."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

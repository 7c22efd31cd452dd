"""How a job tells the process around it how far it is.

The listener never travels with a job: a worker on another machine has none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# (kind of the step, done, total or None where it is not known, a remark such as "fmax 0.012")
Listener = Callable[[str, int, int | None, str], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have `listener` called by the jobs that run inside the `with` block.

    Parameters
    ----------
    listener
        Takes kind, done, total and remark of `report`. What it raises ends the job.

    Yields
    ------
    None
        Nothing.

    Examples
    --------
    >>> with listening(lambda kind, done, total, remark: print(kind, done, total, remark)):
    ...     report("forces", 3, 12, "3 of 12")
    forces 3 12 3 of 12
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def report(kind: str, done: int, total: int | None = None, remark: str = "") -> None:
    """Tell the listener, if there is one.

    Parameters
    ----------
    kind
        Kind of the step: "relax", "forces", "training", ...
    done, total
        How many units of work are done, and of how many; None: not known.
    remark
        A few words for people.
    """
    listener = _listener.get()
    if listener is not None:
        listener(kind, done, total, remark)

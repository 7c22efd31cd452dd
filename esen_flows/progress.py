"""How a job that runs in this process tells somebody how far it is.

The listener never travels with a job: a worker on another machine simply has none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

# (step kind, done, total or None where the end is not known, a few words such as "fmax 0.012")
Listener = Callable[[str, int, int | None, str], None]

_listener: Listener | None = None


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have `listener` called by the jobs that run inside the `with` block."""
    global _listener
    previous, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = previous


def report(kind: str, done: int, total: int | None = None, words: str = "") -> None:
    """Tell the listener, if there is one."""
    if _listener is not None:
        _listener(kind, done, total, words)

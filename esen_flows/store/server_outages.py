"""Outages of the server during calls of other libraries: recognising one, and waiting until the server is back."""

import time
from collections.abc import Callable
from typing import TypeVar

from esen_flows.errors import ServerUnavailableError
from esen_flows.store.database import Database, is_away
from esen_flows.store.reading import find_one

T = TypeVar("T")


def is_outage(error: BaseException | None) -> bool:
    """Whether an error means that the server did not answer.

    Parameters
    ----------
    error
        Error from another library, which may have replaced the error of pymongo.

    Returns
    -------
    bool
        True if the error, or one that led to it, comes from a server that did not answer.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if is_away(error) or isinstance(error, ServerUnavailableError):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def retry_until_available(database: Database, operation: Callable[[int], T], seconds: float) -> T:
    """The result of an operation of another library, which is repeated if the server was away during it.

    Parameters
    ----------
    database
        Database on the same server.
    operation
        Function of the number of earlier failures. It has to clean up what a failure left half done.
    seconds
        Time in seconds to wait for the server after each failure.

    Returns
    -------
    T
        Result of the operation.

    Raises
    ------
    ServerUnavailableError
        The server stays away for longer.
    """
    failures = 0
    while True:
        try:
            return operation(failures)
        except Exception as error:
            if not is_outage(error):
                raise
            failures += 1
            _wait_for_server(database, seconds)


def _wait_for_server(database: Database, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            find_one(database, "fw_id_assigner", {}, {"_id": True})
        except ServerUnavailableError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)
        else:
            return

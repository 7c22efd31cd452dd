"""A server that is away for a while: how it looks from other libraries' code, and waiting until it is back."""

import time
from collections.abc import Callable
from typing import TypeVar

from pymongo.errors import AutoReconnect

from esen_flows.errors import ServerUnavailableError
from esen_flows.store.database import Database

T = TypeVar("T")


def is_outage(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from or while handling, is that the server did not answer."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, AutoReconnect | ServerUnavailableError):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def retry_until_available(database: Database, operation: Callable[[int], T], seconds: float) -> T:
    """What an operation of another library returns, repeated when the server was away during it.

    Parameters
    ----------
    operation
        takes how often it failed before; what it left half done is its own to put right.
    seconds
        how long the server may stay away.

    Raises
    ------
    ServerUnavailableError
        it stays away for longer.
    """
    failures = 0
    while True:
        try:
            return operation(failures)
        except Exception as error:
            if not is_outage(error):
                raise
            failures += 1
            wait_for_server(database, seconds)


def wait_for_server(database: Database, seconds: float) -> None:
    """Return as soon as the server answers.

    Raises
    ------
    ServerUnavailableError
        it does not for so long.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            database.call(lambda: database["fw_id_assigner"].find_one({}, {"_id": True}))
        except ServerUnavailableError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)
        else:
            return

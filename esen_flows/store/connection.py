"""Opening the store."""

import os
from typing import Any

from esen_flows.settings import Settings, get_settings
from esen_flows.store.database import connect
from esen_flows.store.results import Store

_opened: dict[tuple[Any, ...], Store] = {}


def open_store(settings: Settings | None = None) -> Store:
    """The store that the settings mean: a MongoDB server by URI, or else this user's private one, started if need be.

    One per process and settings: asking again gives the same object until it is closed. Opening clears away what
    killed processes left.

    Raises
    ------
    ServerUnavailableError, StoreError : with the one reason and its remedy.
    """
    chosen = settings or get_settings()
    uri = chosen.mongo_uri.get_secret_value() if chosen.mongo_uri else None
    # The process is part of the name: a connection does not survive a fork.
    name = (os.getpid(), uri, chosen.database, chosen.data_dir)
    store = _opened.get(name)
    if store is None or store.closed:
        database = connect(chosen)
        try:
            database.make_indexes()
        except BaseException:
            database.close()
            raise
        store = _opened[name] = Store(database)
        store.sweep()
    return store

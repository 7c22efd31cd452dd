"""Opening the store."""

import os
from typing import Any

from esen_flows.errors import InputError, ServerUnavailableError
from esen_flows.settings import Settings, get_settings
from esen_flows.store.database import Database, connect
from esen_flows.store.exchange.spool import SpoolWriter
from esen_flows.store.exchange.spool_store import SpoolStore
from esen_flows.store.read_only import ReadOnlyDatabase
from esen_flows.store.results import Store

_opened: dict[tuple[Any, ...], Store] = {}


def open_store(settings: Settings | None = None) -> Store:
    """The store that the settings mean: a MongoDB server by URI, or else this user's private one, started if need be.

    One per process and settings: asking again gives the same object until it is closed. Opening clears away what
    killed processes left. With `spool` set there is no server, and results are kept in files; with `read_only` set
    nothing is written at all.

    Raises
    ------
    ServerUnavailableError, StoreError
        with the one reason and its remedy.
    """
    chosen = settings or get_settings()
    uri = chosen.mongo_uri.get_secret_value() if chosen.mongo_uri else None
    # The process is part of the name: a connection does not survive a fork.
    how = (chosen.read_only, chosen.spool, chosen.spool_folder)
    name = (os.getpid(), uri, chosen.database, chosen.data_dir, *how)
    store = _opened.get(name)
    if store is None or store.closed:
        store = _opened[name] = _open(chosen)
    return store


def _reach(database: Database) -> None:
    """First contact with the server: nothing is computed yet, so this is the time to say that it is not there."""
    try:
        database.make_indexes()
    except ServerUnavailableError as error:
        raise ServerUnavailableError(f"{error}; or compute without a server: ESEN_FLOWS_SPOOL=1") from None


def _open(settings: Settings) -> Store:
    if settings.spool and settings.read_only:
        raise InputError("ESEN_FLOWS_SPOOL and ESEN_FLOWS_READ_ONLY are both set; unset one of them")
    if settings.spool:
        return SpoolStore(settings.spool_folder)
    database = connect(settings)
    if settings.read_only:
        return Store(ReadOnlyDatabase(database))
    try:
        _reach(database)
        store = Store(database, spool_fallback=SpoolWriter(settings.spool_folder, settings.spool_after_seconds))
        store.sweep()
    except BaseException:
        database.close()
        raise
    return store

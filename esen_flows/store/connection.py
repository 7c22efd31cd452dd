"""Opening the store."""

import os
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from esen_flows.errors import InputError, ServerUnavailableError
from esen_flows.settings import Settings, get_settings
from esen_flows.store.database import connect
from esen_flows.store.exchange.spool import SpoolWriter
from esen_flows.store.exchange.spool_store import SpoolStore
from esen_flows.store.read_only import ReadOnlyDatabase
from esen_flows.store.results import Store

SPOOL_HERE = "esen_flows_spool"  # folder of spools that do not fit on the disk of the data folder
_opened: dict[tuple[Any, ...], Store] = {}


def open_store(settings: Settings | None = None) -> Store:
    """The store of the settings: on a MongoDB server, or else on this user's private server, which is started.

    Each process has one store for the same settings, until it is closed. Opening removes what killed processes left.
    With `spool` set there is no server and results are kept in files. With `read_only` set nothing is written.

    Parameters
    ----------
    settings
        URI, database, folders and modes; None: from environment variables and their defaults.

    Returns
    -------
    Store
        The open store.

    Raises
    ------
    InputError
        `spool` and `read_only` are both set, or the name of the database is not valid.
    ServerUnavailableError
        The server does not answer, or the private one does not start.
    StoreError
        The server refuses, or the private one cannot run on this machine.

    Examples
    --------
    A store of files in a folder, for machines without a server:

    >>> from pathlib import Path
    >>> from esen_flows.settings import Settings
    >>> store = open_store(Settings(spool=True, spool_dir=Path("spool")))
    >>> store.get("0" * 64) is None
    True
    >>> store.close()
    """
    chosen = settings or get_settings()
    uri = chosen.mongo_uri.get_secret_value() if chosen.mongo_uri else None
    # The process is part of the name, because a connection does not survive a fork.
    name = (
        os.getpid(), uri, chosen.database, chosen.data_dir, chosen.read_only, chosen.spool, chosen.spool_folder,
    )  # fmt: skip
    store = _opened.get(name)
    if store is None or store.closed:
        store = _opened[name] = _open(chosen)
    return store


def _open(settings: Settings) -> Store:
    if settings.spool and settings.read_only:
        raise InputError("ESEN_FLOWS_SPOOL and ESEN_FLOWS_READ_ONLY are both set; unset one of them")
    if settings.spool:
        return SpoolStore(settings.spool_folder)
    database = connect(settings)
    if settings.read_only:
        return Store(ReadOnlyDatabase(database))
    try:
        try:
            database.make_indexes()  # the first contact with the server
        except ServerUnavailableError as error:
            # Nothing is computed yet, so the user may still choose to do without a server.
            raise ServerUnavailableError(f"{error}; or compute without a server: ESEN_FLOWS_SPOOL=1") from None
        # Where no folder was chosen, the spool is on the disk of the server, whose being full may be why it is lost.
        elsewhere = [] if settings.spool_dir else [Path(SPOOL_HERE).absolute(), Path(gettempdir()) / SPOOL_HERE]
        spool = SpoolWriter(settings.spool_folder, settings.spool_after_seconds, elsewhere)
        store = Store(database, spool_fallback=spool)
        store.sweep()
    except BaseException:
        database.close()
        raise
    return store

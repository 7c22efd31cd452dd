"""The store of the settings, for commands."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esen_flows.store.results import Store


def open_store() -> "Store":
    """Open the store that the settings name.

    pymongo is imported here, on first use, because it would lengthen the start of every command by 0.15 s.

    Returns
    -------
    Store
        The store; the private server is started if the settings name no other server.

    Raises
    ------
    StoreError
        The database cannot be reached or used.
    """
    from esen_flows.store import connection

    return connection.open_store()


def existing_store() -> "Store | None":
    """Open the store that the settings name, unless it is a private one that nothing was ever stored in.

    Returns
    -------
    Store | None
        The store; None where there is none yet, or results are kept in files.

    Raises
    ------
    StoreError
        The database cannot be reached or used.
    """
    from esen_flows.settings import get_settings
    from esen_flows.store.server.layout import Layout

    settings = get_settings()
    if settings.spool or (settings.mongo_uri is None and not Layout.of(settings.data_dir).initialised.exists()):
        return None
    return open_store()

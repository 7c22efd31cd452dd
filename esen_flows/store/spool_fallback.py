"""Results go into the spool when the database server stays away for too long."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from esen_flows.errors import ServerUnavailableError
from esen_flows.store.database import Database, Row

logger = logging.getLogger(__name__)


class Spool(Protocol):
    """Files that keep results while there is no server.

    Attributes
    ----------
    patience_seconds
        Time in seconds to wait for the server before results are written here.
    folder
        Folder of the files, for messages.
    """

    patience_seconds: float
    folder: Path

    def keep(self, row: Row, large: dict[str, np.ndarray], forced: bool) -> object:
        """Write a packed result and its arrays to the disk.

        Parameters
        ----------
        row
            Packed result.
        large
            Its large arrays by content key.
        forced
            Whether the result becomes a further attempt even if a result is stored already.

        Returns
        -------
        object
            Not used here.
        """


class SpoolFallback:
    """How long to wait for a lost server, and what happens to results after that time.

    Parameters
    ----------
    spool
        Where results go; None: waiting ends with the error of the server.
    database
        Database of the server.
    """

    def __init__(self, spool: Spool | None, database: Database) -> None:
        self._spool = spool
        self._database = database
        self._lost_at: float | None = None

    def server_answered(self) -> None:
        """Note that the server is there, so that the next outage is a new one with the full time to wait."""
        self._lost_at = None

    def gives_up_waiting(self, error: ServerUnavailableError) -> bool:
        """Whether a lost server has been away for so long that results go into the spool; waits a moment if not.

        Parameters
        ----------
        error
            Error of the operation that found the server lost.

        Returns
        -------
        bool
            False if the operation is to be tried again.

        Raises
        ------
        ServerUnavailableError
            There is no spool; this is `error`.
        """
        if self._spool is None:
            raise error
        patience = self._spool.patience_seconds
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now - self._database.timeout_seconds  # the operation that failed has waited that long
            logger.warning("the database server is away; waiting %.0f s for it to come back", patience)
        if now - self._lost_at >= patience:
            return True
        time.sleep(min(1.0, patience))
        return False

    def keep(self, results: Sequence[tuple[Row, dict[str, np.ndarray], bool]]) -> None:
        """Write results to the spool.

        Parameters
        ----------
        results
            Packed result, large arrays and `forced` of each, as `Spool.keep` takes them.
        """
        assert self._spool is not None  # otherwise `gives_up_waiting` raises
        for row, large, forced in results:
            self._spool.keep(row, large, forced)
        subject = f"result {results[0][0]['key']} is" if len(results) == 1 else f"{len(results)} results are"
        logger.warning(
            "the database server is still away; %s kept in %s; merge it later with: esen-flows db ingest %s",
            subject, self._spool.folder, self._spool.folder,
        )  # fmt: skip

"""What there is of a result that takes long, so that work that was broken off goes on from there.

One document per result key in `unfinished`, written as the work proceeds and gone with the result; the server forgets
what nobody has touched for a month. Where there is no server nothing is kept, and such work begins anew.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np
from pymongo.collection import Collection

from esen_flows.errors import StoreError
from esen_flows.store.blobs import pack, unpack
from esen_flows.store.database import Row
from esen_flows.store.results import Store

COLLECTION = "unfinished"
INTERVAL_SECONDS = 30.0  # between two writes
MOST_BYTES = 12_000_000  # a BSON document holds 16 MB
T = TypeVar("T")
logger = logging.getLogger(__name__)


class PartialResult:
    """The array that a result in the making has come to; nothing that goes wrong here ends the work itself.

    A context: what is left early leaves the array for the next one, what is left in order needs it no more.
    """

    def __init__(self, store: Store, key: str, source: str) -> None:
        """Look after one result.

        Parameters
        ----------
        key
            of the result.
        source
            names what it is made from beyond the key; what was kept of another source is of no use.
        """
        self._store, self._key, self._source = store, key, source
        self._latest: np.ndarray | None = None
        self._written_at = time.monotonic()
        self._stored = False

    def __enter__(self) -> "PartialResult":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self._write()
        elif self._stored:
            self._call(lambda rows: rows.delete_one({"_id": self._key}))

    def load(self) -> np.ndarray | None:
        """What was kept; None if nothing was."""
        row = self._call(lambda rows: rows.find_one({"_id": self._key}))
        self._stored = row is not None
        return None if row is None or row["source"] != self._source else np.asarray(unpack(row["array"]))

    def keep(self, array: np.ndarray) -> None:
        """Note how far it is; written every half minute, and at an early end."""
        self._latest = array
        if time.monotonic() - self._written_at >= INTERVAL_SECONDS:
            self._write()

    def _write(self) -> None:
        latest, self._latest = self._latest, None
        if latest is None or latest.nbytes > MOST_BYTES:
            return
        row: Row = {"source": self._source, "array": pack(latest, path=COLLECTION), "updated_at": datetime.now(UTC)}
        self._call(lambda rows: rows.replace_one({"_id": self._key}, row, upsert=True))
        self._stored, self._written_at = True, time.monotonic()

    def _call(self, operation: Callable[[Collection[Row]], T]) -> T | None:
        try:
            database = self._store.database
            return database.call(lambda: operation(database[COLLECTION]))
        except StoreError as error:  # also in a spool, which has no database
            logger.info("what there is of %s is not kept: %s", self._key[:12], error)
            return None

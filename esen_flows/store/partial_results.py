"""Partial results of long computations, so that an interrupted computation continues where it stopped.

The collection `unfinished` holds one document per result key, or several of a growing result. They are written during
the computation and deleted at its end; the server deletes documents that were not written for a month. Without a server
nothing is kept, and an interrupted computation starts again.
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
MOST_BYTES = 12_000_000  # MongoDB accepts documents of up to 16 MB
T = TypeVar("T")
logger = logging.getLogger(__name__)


class PartialResult:
    """The array that a computation has reached so far, as a context around the computation.

    After an error the array is kept for the next computation, after success it is deleted. An error of the store is
    logged and does not end the computation.

    Parameters
    ----------
    store
        Open store.
    key
        Result key.
    source
        Name of the input of the computation beyond the key. An array that was kept with another source is not used.
    """

    def __init__(self, store: Store, key: str, source: str) -> None:
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
        """The array of an interrupted computation.

        Returns
        -------
        np.ndarray | None
            The array; None if none is kept.
        """
        row = self._call(lambda rows: rows.find_one({"_id": self._key}))
        self._stored = row is not None
        return None if row is None or row["source"] != self._source else np.asarray(unpack(row["array"]))

    def keep(self, array: np.ndarray) -> None:
        """Take note of the progress; it is written every half minute and after an error.

        Parameters
        ----------
        array
            The array that the computation has reached.
        """
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
        return _called(self._store, self._key, operation)


class PartialSeries:
    """A growing result in pieces, such as a trajectory, as a context around the computation.

    After an error the pieces are kept for the next computation, after success they are deleted.

    Parameters
    ----------
    store
        Open store.
    key
        Result key.
    source
        Name of the input of the computation beyond the key. Pieces that were kept with another source are not used.
    """

    def __init__(self, store: Store, key: str, source: str) -> None:
        self._store, self._key, self._source = store, key, source
        self._written_at = time.monotonic()
        self._pieces = 0
        self._refused = False  # the last piece was not kept

    def __enter__(self) -> "PartialSeries":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.delete()

    def load(self) -> list[np.ndarray]:
        """The pieces of an interrupted computation.

        Returns
        -------
        list[np.ndarray]
            The pieces in their order; none if none are kept.
        """
        found = self._call(lambda rows: list(rows.find(self._mine()).sort("n", 1))) or []
        if any(row["source"] != self._source or row["n"] != n for n, row in enumerate(found)):
            self.delete()
            return []
        self._pieces = len(found)
        return [np.asarray(unpack(row["array"])) for row in found]

    def due(self, n_bytes: int) -> bool:
        """Whether a piece should be kept now: every half minute, and before it is too large for a document.

        Parameters
        ----------
        n_bytes
            Size of the piece.

        Returns
        -------
        bool
            True if so. After a piece that was not kept, half a minute has to pass in any case.
        """
        is_large = n_bytes > MOST_BYTES // 2 and not self._refused
        return is_large or time.monotonic() - self._written_at >= INTERVAL_SECONDS

    def append(self, piece: np.ndarray) -> bool:
        """Keep one more piece.

        Parameters
        ----------
        piece
            The piece.

        Returns
        -------
        bool
            False if it is too large or the server is away; then the next piece has to hold this one too.
        """
        self._written_at, self._refused = time.monotonic(), True
        if piece.nbytes > MOST_BYTES:
            logger.warning("the partial result of %s has become too large to be kept", self._key[:12])
            return False
        packed = pack(piece, path=COLLECTION)
        row: Row = {"series": self._key, "n": self._pieces, "source": self._source, "array": packed}
        row["updated_at"] = datetime.now(UTC)
        name = {"_id": f"{self._key}:{self._pieces:06d}"}
        if self._call(lambda rows: rows.replace_one(name, row, upsert=True)) is None:
            return False
        self._pieces += 1
        self._refused = False
        return True

    def delete(self) -> None:
        """Delete all pieces."""
        self._call(lambda rows: rows.delete_many(self._mine()))
        self._pieces = 0

    def _mine(self) -> Row:
        return {"_id": {"$gte": f"{self._key}:", "$lt": f"{self._key};"}}

    def _call(self, operation: Callable[[Collection[Row]], T]) -> T | None:
        return _called(self._store, self._key, operation)


def _called(store: Store, key: str, operation: Callable[[Collection[Row]], T]) -> T | None:
    try:
        database = store.database
        return database.call(lambda: operation(database[COLLECTION]))
    except StoreError as error:  # also from a spool, which has no database
        logger.info("the partial result of %s is not kept: %s", key[:12], error)
        return None

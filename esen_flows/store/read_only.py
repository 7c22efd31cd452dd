"""A database that can only be read: queries work, and an operation that would write is refused before it starts."""

from typing import Any, NoReturn, cast

from pymongo.collection import Collection

from esen_flows.errors import StoreError
from esen_flows.store.database import Database, Row

_READS = frozenset({"count_documents", "distinct", "estimated_document_count", "find", "find_one", "index_information"})


class ReadOnlyDatabase(Database):
    """A `Database` whose collections refuse to write.

    Parameters
    ----------
    database
        Open database, whose connection this one takes over.

    Raises
    ------
    StoreError
        An operation would write.
    """

    def __init__(self, database: Database) -> None:
        vars(self).update(vars(database))

    def __getitem__(self, collection: str) -> Collection[Row]:
        return cast("Collection[Row]", _ReadOnlyCollection(super().__getitem__(collection)))

    def make_indexes(self) -> None:
        """Do nothing; the next process that may write creates missing indexes."""

    def drop(self) -> None:
        """Refuse.

        Raises
        ------
        StoreError
            Always.
        """
        _refuse("delete the database")


class _ReadOnlyCollection:
    """Passes on operations that read. Allowed operations are listed, so that a new operation of pymongo is refused."""

    def __init__(self, collection: Collection[Row]) -> None:
        self._collection = collection

    def __getattr__(self, name: str) -> Any:
        if name not in _READS:
            _refuse(f"{self._collection.name}.{name}")
        return getattr(self._collection, name)

    def aggregate(self, pipeline: list[Row], *arguments: Any, **options: Any) -> Any:
        """As in pymongo, except that a pipeline that writes its result is refused."""
        if any(stage.keys() & {"$out", "$merge"} for stage in pipeline):
            _refuse(f"{self._collection.name}.aggregate")
        return self._collection.aggregate(pipeline, *arguments, **options)


def _refuse(operation: str) -> NoReturn:
    raise StoreError(
        f"ESEN_FLOWS_READ_ONLY is set, so nothing is written or computed (refused: {operation}); unset it to do that"
    )

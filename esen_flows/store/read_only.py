"""A database that can only be read: queries work, and whatever would write says so before it does anything."""

from typing import Any, NoReturn, cast

from pymongo.collection import Collection

from esen_flows.errors import StoreError
from esen_flows.store.database import Database, Row

_READS = frozenset({"count_documents", "distinct", "estimated_document_count", "find", "find_one", "index_information"})


class ReadOnlyDatabase(Database):
    """As `Database`, without its writes.

    Raises
    ------
    StoreError
        whatever would write.
    """

    def __init__(self, database: Database) -> None:
        vars(self).update(vars(database))  # its connection is ours now

    def __getitem__(self, collection: str) -> Collection[Row]:
        return cast("Collection[Row]", _ReadOnlyCollection(super().__getitem__(collection)))

    def make_indexes(self) -> None:
        """Nothing: what is missing is made by those who write."""

    def drop(self) -> None:
        """Refused."""
        _refuse("delete the database")


class _ReadOnlyCollection:
    """Passes on what reads; a list of what is allowed, so that nothing new slips through."""

    def __init__(self, collection: Collection[Row]) -> None:
        self._collection = collection

    def __getattr__(self, name: str) -> Any:
        if name not in _READS:
            _refuse(f"{self._collection.name}.{name}")
        return getattr(self._collection, name)

    def aggregate(self, pipeline: list[Row], *arguments: Any, **options: Any) -> Any:
        """As in pymongo, unless it would write its result."""
        if any(stage.keys() & {"$out", "$merge"} for stage in pipeline):
            _refuse(f"{self._collection.name}.aggregate")
        return self._collection.aggregate(pipeline, *arguments, **options)


def _refuse(what: str) -> NoReturn:
    raise StoreError(
        f"ESEN_FLOWS_READ_ONLY is set, so nothing is written or computed (asked for: {what}); unset it to do that"
    )

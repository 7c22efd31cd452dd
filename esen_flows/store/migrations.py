"""Older documents: read as if they were of today, and rewritten when somebody asks for it.

A document says with `schema_version` by which version of its schema it was written. When a schema changes, its
SCHEMA_VERSION is raised, one function that takes a row of the version before it to it is added to MIGRATIONS, and a
document of that older version to tests/data. Nothing has to be rewritten before it can be read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pymongo import ReplaceOne

from esen_flows.errors import StoreError
from esen_flows.schemas.documents import SCHEMA_VERSION
from esen_flows.store.database import Database, Row

FIRST_VERSION = 1  # of documents that do not say
_BATCH = 500

# collection: {version: the function that makes a row of version + 1 of a row of this version}. A row may come without
# its `output`, as queries read it. The function sets neither `schema_version` nor `_id`.
MIGRATIONS: dict[str, dict[int, Callable[[Row], Row]]] = {
    "results": {},
    "structures": {},
    "models": {},
    "datasets": {},
}


@dataclass(frozen=True)
class MigrationReport:
    """What `migrate` found in one collection.

    Attributes
    ----------
    collection
        its name.
    current
        documents of the current version.
    older
        number of documents by older version.
    newer
        number of documents by newer version, which this package cannot read.
    migrated
        how many older ones were rewritten; 0 in a dry run.
    """

    collection: str
    current: int
    older: dict[int, int]
    newer: dict[int, int]
    migrated: int


def version_of(row: Row) -> int:
    """The schema version of a document."""
    return int(row.get("schema_version", FIRST_VERSION))


def upgraded(collection: str, row: Row) -> Row:
    """A document of this or an older version in the form of this version; what was read is not changed.

    Raises
    ------
    StoreError
        it is of a newer version of this package, or of one that this package has forgotten.
    """
    version = version_of(row)
    if version > SCHEMA_VERSION:
        name = f"{collection.removesuffix('s')} {row.get('key', row.get('_id'))}"
        raise StoreError(f"{name} has schema version {version}, newer than {SCHEMA_VERSION}; upgrade esen_flows")
    for step in range(version, SCHEMA_VERSION):
        migration = MIGRATIONS[collection].get(step)
        if migration is None:
            raise StoreError(f"no way from schema version {step} of {collection} to {step + 1}; upgrade esen_flows")
        row = {**migration(dict(row)), "schema_version": step + 1}
    return row


def migrate(database: Database, *, apply: bool) -> list[MigrationReport]:
    """Rewrite older documents in the current form, beside live readers and writers; may be interrupted and repeated.

    Parameters
    ----------
    database
        of a store.
    apply
        False counts, and tries every migration without writing.

    Raises
    ------
    StoreError
        a document cannot be migrated.
    """
    return [_migrate_collection(database, name, apply) for name in MIGRATIONS]


def _migrate_collection(database: Database, collection: str, apply: bool) -> MigrationReport:
    group = [{"$group": {"_id": {"$ifNull": ["$schema_version", FIRST_VERSION]}, "n": {"$sum": 1}}}]
    rows = database.call(lambda: list(database[collection].aggregate(group)))
    counts = {int(row["_id"]): int(row["n"]) for row in sorted(rows, key=lambda row: row["_id"])}
    migrated = 0
    for batch in _older(database, collection):
        new = [(row, upgraded(collection, row)) for row in batch]
        if apply:
            # Replaced only as it was read: whoever changed it meanwhile (another attempt became the current one, a
            # label was added) is not undone, and it is migrated the next time.
            changes = [ReplaceOne(_unchanged(row), after) for row, after in new]
            migrated += database.call(
                lambda changes=changes: database[collection].bulk_write(changes, ordered=False).modified_count  # type: ignore[misc]
            )
    return MigrationReport(
        collection,
        current=counts.get(SCHEMA_VERSION, 0),
        older={version: n for version, n in counts.items() if version < SCHEMA_VERSION},
        newer={version: n for version, n in counts.items() if version > SCHEMA_VERSION},
        migrated=migrated,
    )


def _unchanged(row: Row) -> Row:
    mutable = ("_id", "schema_version", "current", "material_ids", "tags", "labels", "names")
    return {name: row.get(name, {"$exists": False}) for name in mutable}


def _older(database: Database, collection: str) -> Iterator[list[Row]]:
    """Batches of older documents, in the order of their ids, so that a repeated operation misses none."""
    last: list[Row] = []
    while True:
        older: Row = {"$nor": [{"schema_version": {"$gte": SCHEMA_VERSION}}]}  # also those that do not say
        if last:
            older["_id"] = {"$gt": last[-1]["_id"]}
        last = database.call(
            lambda older=older: list(database[collection].find(older).sort("_id", 1).limit(_BATCH))  # type: ignore[misc]
        )
        if not last:
            return
        yield last

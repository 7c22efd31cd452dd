"""Documents of older versions: they are read in the current form, and rewritten on request.

`schema_version` of a document is the version of its schema. For a change of a schema, raise SCHEMA_VERSION, add to
MIGRATIONS one function that converts a row of the previous version, and add a document of that version to tests/data.
No document has to be rewritten before it can be read.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pymongo import ReplaceOne

from esen_flows.errors import StoreError
from esen_flows.schemas.documents import SCHEMA_VERSION
from esen_flows.store.database import Database, Row
from esen_flows.store.reading import in_batches

FIRST_VERSION = 1  # of documents without `schema_version`
_BATCH = 500
_MUTABLE = ("_id", "schema_version", "current", "material_ids", "tags", "labels", "names")  # fields that writers change

# collection: {version: function that converts a row of this version to the next one}. A row may lack its `output`,
# because queries leave it out. The function sets neither `schema_version` nor `_id`.
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
        Name of the collection.
    current
        Number of documents of the current version.
    older
        Number of documents for each older version.
    newer
        Number of documents for each newer version, which this package cannot read.
    migrated
        Number of older documents that were rewritten; 0 in a dry run.
    """

    collection: str
    current: int
    older: dict[int, int]
    newer: dict[int, int]
    migrated: int


def upgraded(collection: str, row: Row) -> Row:
    """A document of this or an older version in the form of this version.

    Parameters
    ----------
    collection
        Collection of the document.
    row
        The document, which is not changed.

    Returns
    -------
    Row
        The document in the current form.

    Raises
    ------
    StoreError
        The document is of a newer version of this package, or of one that this package can no longer read.
    """
    version = row.get("schema_version", FIRST_VERSION)
    if not isinstance(version, int) or version < FIRST_VERSION:
        name = f"{collection.removesuffix('s')} {row.get('key', row.get('_id'))}"
        raise StoreError(f"{name} has schema version {version!r}, which no version of esen_flows wrote; it is damaged")
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
    """Rewrite older documents in the current form, while others read and write; may be interrupted and repeated.

    Parameters
    ----------
    database
        Database of a store.
    apply
        Whether to write; False counts the documents and tries every migration.

    Returns
    -------
    list of MigrationReport
        One report for each collection.

    Raises
    ------
    StoreError
        A document cannot be migrated.
    """
    return [_migrate_collection(database, name, apply) for name in MIGRATIONS]


def _migrate_collection(database: Database, collection: str, apply: bool) -> MigrationReport:
    group = [{"$group": {"_id": {"$ifNull": ["$schema_version", FIRST_VERSION]}, "n": {"$sum": 1}}}]
    rows = database.call(lambda: list(database[collection].aggregate(group)))
    counts = {int(row["_id"]): int(row["n"]) for row in sorted(rows, key=lambda row: row["_id"])}
    migrated = 0
    older: Row = {"$nor": [{"schema_version": {"$gte": SCHEMA_VERSION}}]}  # also documents without `schema_version`
    for batch in in_batches(database, collection, {}, older, _BATCH):
        new = [(row, upgraded(collection, row)) for row in batch]
        if apply:
            # A document is replaced only if it is as it was read. One that was changed meanwhile (another attempt
            # became the current one, a label was added) keeps the change, and is migrated the next time.
            changes = [
                ReplaceOne({name: row.get(name, {"$exists": False}) for name in _MUTABLE}, after) for row, after in new
            ]
            migrated += database.call(
                lambda: database[collection].bulk_write(changes, ordered=False).modified_count  # noqa: B023
            )
    return MigrationReport(
        collection,
        current=counts.get(SCHEMA_VERSION, 0),
        older={version: n for version, n in counts.items() if version < SCHEMA_VERSION},
        newer={version: n for version, n in counts.items() if version > SCHEMA_VERSION},
        migrated=migrated,
    )

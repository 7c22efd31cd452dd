"""Whether the store is undamaged: documents are readable, references resolve, keys and checksums hold."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError

from esen_flows.errors import EsenFlowsError, StoreError
from esen_flows.schemas.keys import result_key, structure_key
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.schemas.protocols import NumericSettings
from esen_flows.schemas.requests import parents_key
from esen_flows.store.blobs import BlobReference, BlobStore, unpack
from esen_flows.store.database import Database, Row
from esen_flows.store.datasets import dataset_problems, keys_of_datasets
from esen_flows.store.migrations import upgraded
from esen_flows.store.models import model_problems
from esen_flows.store.reading import distinct, find_all, in_batches
from esen_flows.store.results import Store
from esen_flows.store.rows import Identity, parents_of, structure_of

_BATCH = 100  # whole results, which may have megabytes of inline arrays
_UNREADABLE = (
    EsenFlowsError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
)  # what reading a damaged document raises


@dataclass
class Verification:
    """What `verify` has read and found.

    Attributes
    ----------
    checked
        Numbers of results, structures, datasets and arrays that were read.
    problems
        One line for each problem; empty for an undamaged store.
    """

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def verify(store: Store) -> Verification:
    """Read and check every document and array; nothing is changed, and live writers may go on.

    A result has to be readable, its key has to follow from its own fields, its parent and its structure or dataset have
    to exist, and it has to list the arrays that it refers to. A structure has to be the one of its key. An array that a
    document lists has to exist and to match its key. Numbers inside a document have no checksum, and the folder of a
    large dataset is not read.

    Parameters
    ----------
    store
        Open store.

    Returns
    -------
    Verification
        What was read, and the problems.
    """
    database, blobs, report = store.database, BlobStore(store.database), Verification()

    def counted(collection: str, name: str, fields: Row) -> Iterator[Row]:
        for rows in in_batches(database, collection, fields, length=_BATCH):
            report.checked[name] += len(rows)
            yield from rows

    for rows in in_batches(database, "results", {}, length=_BATCH):
        report.checked["results"] += len(rows)
        readable = []
        for row in rows:
            problems = list(result_problems(store, row))
            report.problems += problems
            readable += [] if problems else [row]
        report.problems += _unresolved(database, readable)
    for row in counted("structures", "structures", {}):
        report.problems += structure_problems(row)
    for rows in in_batches(database, "models", {}):
        report.problems += [problem for row in rows for problem in model_problems(row)]
    for row in counted("datasets", "datasets", {}):
        report.problems += [*dataset_problems(row), *_missing_arrays(database, row)]
    for row in counted("blobs", "arrays", {"dtype": 1, "shape": 1}):
        report.problems += _blob_problems(database, blobs, row)
    return report


def result_problems(store: Store, row: Row) -> Iterator[str]:
    """Problems of a stored result that it shows by itself; its arrays are not read.

    Parameters
    ----------
    store
        Store that reads the result.
    row
        Document of the `results` collection.

    Yields
    ------
    str
        One line for each problem.
    """
    name = f"result {row.get('key')} (attempt {row.get('attempt')})"
    try:
        document = store.read(row, load_arrays=False)
        numeric = NumericSettings(**document.numeric).key_fields()
        listed = sorted(row["blobs"])
    except _UNREADABLE as error:
        yield f"{name} cannot be read: {_first_line(error)}"
        return
    request = (document.protocol_hash, document.parent_key, document.model_key, numeric, document.numerics_revision)
    if document.parents and parents_key(document.parents) != document.parent_key:
        yield f"{name} does not have the parent key that follows from its parents"
    if result_key(document.kind, *request) != document.key:
        yield f"{name} does not have the key that follows from its protocol, parent, model and numeric settings"
    if sorted({reference.sha for reference in references(document.output)}) != listed:
        yield f"{name} refers to other large arrays than it lists"


def structure_problems(row: Row) -> Iterator[str]:
    """Problems of a stored structure that it shows by itself.

    Parameters
    ----------
    row
        Document of the `structures` collection.

    Yields
    ------
    str
        One line for each problem.
    """
    name = f"structure {row.get('_id')}"
    try:
        row = upgraded("structures", row)
        data = structure_of(row["structure"])
        arrays = (data.numbers, data.positions_angstrom, data.cell_angstrom, data.pbc)
        charge, spin = float(row["charge"]), float(row["spin"])
        key = structure_key(*arrays, charge=charge, spin=spin, properties=data.properties.fields())
        Identity.model_validate({field: row[field] for field in Identity.model_fields if field in row})
        if not isinstance(row["created_at"], datetime):
            raise StoreError(f"created_at is {row['created_at']!r}")
    except _UNREADABLE as error:
        yield f"{name} cannot be read: {_first_line(error)}"
        return
    if key != row["_id"]:
        yield f"{name} is not the structure of its key"


def references(value: object) -> Iterator[BlobReference]:
    """The references to large arrays inside an unpacked output.

    Parameters
    ----------
    value
        Nested dictionaries and lists.

    Yields
    ------
    BlobReference
        A reference, as often as it occurs.
    """
    if isinstance(value, BlobReference):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from references(item)


def _unresolved(database: Database, rows: list[Row]) -> Iterator[str]:
    """References of readable results to structures, results, datasets and arrays that the store does not have."""
    keys = {"$in": sorted({key for row in rows for key in (*parents_of(row), row["structure_key"])})}
    named = {"$in": sorted({key for row in rows for key in keys_of_datasets(row)})}
    datasets = distinct(database, "datasets", "_id", {"_id": named})
    structures = datasets | distinct(database, "structures", "_id", {"_id": keys})
    results = distinct(database, "results", "key", {"key": keys})
    shas = {"$in": sorted({sha for row in rows for sha in row["blobs"]})}
    headers = find_all(database, "blobs", {"_id": shas}, {"dtype": 1, "shape": 1})
    arrays = {header["_id"]: (header["dtype"], tuple(header["shape"])) for header in headers}
    for row in rows:
        name = f"result {row['key']}"
        if entry_of(row["kind"]).subject == "structure" and row["structure_key"] not in structures:
            yield f"{name}: its structure {row['structure_key']} is not stored"
        if row["kind"] != "labelling" and entry_of(row["kind"]).subject != "model":
            lost = [key for key in parents_of(row) if key not in structures | results]
            yield from (f"{name}: its parent {key} is not stored" for key in lost)
        for key in sorted(keys_of_datasets(row) - datasets):
            yield f"{name}: its dataset {key} is not stored"
        for reference in references(unpack(row["output"])):
            found = arrays.get(reference.sha)
            if found is None and _is_stored(database, "results", row):
                yield f"{name}: its array {reference.sha} is missing"
            elif found not in (None, (reference.dtype, reference.shape)):
                yield f"{name}: its array {reference.sha} has another type or shape than the result says"


def _missing_arrays(database: Database, row: Row) -> Iterator[str]:
    """Arrays that a dataset lists and the store does not have."""
    shas = row.get("blobs") or []
    found = distinct(database, "blobs", "_id", {"_id": {"$in": shas}})
    yield from (f"dataset {row['_id']}: its array {sha} is missing" for sha in shas if sha not in found)


def _is_stored(database: Database, collection: str, row: Row) -> bool:
    """Whether a document still exists; `db gc` may have removed it since it was read."""
    return database.call(lambda: database[collection].find_one({"_id": row["_id"]}, {"_id": 1})) is not None


def _blob_problems(database: Database, blobs: BlobStore, row: Row) -> Iterator[str]:
    try:
        blobs.get(BlobReference(row["_id"], row["dtype"], tuple(row["shape"])))
    except (EsenFlowsError, ValueError, TypeError) as error:
        if _is_stored(database, "blobs", row):
            yield _first_line(error)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:300] if not isinstance(error, ValidationError) else " ".join(lines[:3])[:300]

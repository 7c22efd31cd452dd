"""Whether the store is whole: documents can be read, references resolve, keys and checksums hold."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError

from esen_flows.errors import EsenFlowsError
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.keys import result_key, structure_key
from esen_flows.schemas.protocols import NumericSettings
from esen_flows.store.blobs import BlobReference, BlobStore, unpack
from esen_flows.store.database import Database, Row
from esen_flows.store.datasets import dataset_problems, keys_of_datasets
from esen_flows.store.migrations import upgraded
from esen_flows.store.models import model_problems
from esen_flows.store.queries.crystals import OF_DATASETS
from esen_flows.store.results import Store
from esen_flows.store.upkeep.maintenance import ids_after

_BATCH = 100  # whole results, which may have megabytes of inline arrays


@dataclass
class Verification:
    """What `verify` looked at, and what was wrong.

    Attributes
    ----------
    checked
        how many of which: results, structures, datasets, arrays.
    problems
        one line each; empty for a whole store.
    """

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def verify(store: Store) -> Verification:
    """Read everything and check it; changes nothing, and may run beside live writers.

    Checked is that every result can be read, that its key follows from what it says was asked, that its parent and its
    structure or dataset exist, that it names the arrays that it refers to; that a structure is the one of its key; that
    an array that somebody names is there and is what its key says. Numbers inside a document have no checksum, nor is
    the folder of a large dataset read.
    """
    database, report = store.database, Verification()
    for rows in ids_after(database, "results", {}, length=_BATCH):
        report.checked["results"] += len(rows)
        readable = []
        for row in rows:
            problems = list(result_problems(store, row))
            report.problems += problems
            readable += [] if problems else [row]
        report.problems += _unresolved(database, readable)
    for rows in ids_after(database, "structures", {}):
        report.checked["structures"] += len(rows)
        for row in rows:
            report.problems += structure_problems(row)
    for rows in ids_after(database, "models", {}):
        report.problems += [problem for row in rows for problem in model_problems(row)]
    for rows in ids_after(database, "datasets", {}, length=_BATCH):
        report.checked["datasets"] += len(rows)
        for row in rows:
            report.problems += [*dataset_problems(row), *_missing_arrays(database, row)]
    blobs = BlobStore(database)
    for rows in ids_after(database, "blobs", {"dtype": 1, "shape": 1}):
        report.checked["arrays"] += len(rows)
        for row in rows:
            report.problems += _blob_problems(database, blobs, row)
    return report


def result_problems(store: Store, row: Row) -> Iterator[str]:
    """What is wrong with a stored result by itself; its arrays are not read."""
    name = f"result {row.get('key')} (attempt {row.get('attempt')})"
    try:
        document = store.read(row, load_arrays=False)
        numeric = NumericSettings(**document.numeric).key_fields()
        listed = sorted(row["blobs"])
    except (EsenFlowsError, ValidationError, ValueError, KeyError, TypeError) as error:
        yield f"{name} cannot be read: {_first_line(error)}"
        return
    asked = (document.protocol_hash, document.parent_key, document.model_key, numeric, document.numerics_revision)
    if result_key(document.kind, *asked) != document.key:
        yield f"{name} does not have the key of what it says was asked"
    named = sorted({reference.sha for reference in references(document.output)})
    if named != listed:
        yield f"{name} refers to other large arrays than it lists"


def structure_problems(row: Row) -> Iterator[str]:
    """What is wrong with a stored structure by itself."""
    name = f"structure {row.get('_id')}"
    try:
        row = upgraded("structures", row)
        data = StructureData(**unpack(row["structure"]))
        arrays = (data.numbers, data.positions_angstrom, data.cell_angstrom, data.pbc)
        key = structure_key(*arrays, charge=row["charge"], spin=row["spin"])
    except (EsenFlowsError, ValidationError, ValueError, KeyError, TypeError) as error:
        yield f"{name} cannot be read: {_first_line(error)}"
        return
    if key != row["_id"]:
        yield f"{name} is not the structure of its key"


def references(value: object) -> Iterator[BlobReference]:
    """The references to large arrays inside an unpacked output."""
    if isinstance(value, BlobReference):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def _unresolved(database: Database, rows: list[Row]) -> Iterator[str]:
    """What these results, which can be read, refer to and the store does not have."""
    keys = {"$in": sorted({key for row in rows for key in (row["parent_key"], row["structure_key"])})}
    named = {"$in": sorted({key for row in rows for key in keys_of_datasets(row)})}
    datasets = set(database.call(lambda: database["datasets"].distinct("_id", {"_id": named})))
    structures = datasets | set(database.call(lambda: database["structures"].distinct("_id", {"_id": keys})))
    results = set(database.call(lambda: database["results"].distinct("key", {"key": keys})))
    shas = {"$in": sorted({sha for row in rows for sha in row["blobs"]})}
    headers = database.call(lambda: list(database["blobs"].find({"_id": shas}, {"dtype": 1, "shape": 1})))
    arrays = {header["_id"]: (header["dtype"], tuple(header["shape"])) for header in headers}
    for row in rows:
        name = f"result {row['key']}"
        of_structure = row["kind"] not in OF_DATASETS
        if of_structure and row["structure_key"] not in structures:
            yield f"{name}: its structure {row['structure_key']} is not stored"
        if row["kind"] != "labelling" and row["parent_key"] not in structures | results:
            yield f"{name}: its parent {row['parent_key']} is not stored"
        for key in sorted(keys_of_datasets(row) - datasets):
            yield f"{name}: its dataset {key} is not stored"
        for reference in references(unpack(row["output"])):
            found = arrays.get(reference.sha)
            if found is None and _still_there(database, row):
                yield f"{name}: its array {reference.sha} is missing"
            elif found not in (None, (reference.dtype, reference.shape)):
                yield f"{name}: its array {reference.sha} has another type or shape than the result says"


def _missing_arrays(database: Database, row: Row) -> Iterator[str]:
    """Arrays that a dataset lists and the store does not have."""
    shas = row.get("blobs") or []
    found = set(database.call(lambda: database["blobs"].distinct("_id", {"_id": {"$in": shas}})))
    yield from (f"dataset {row['_id']}: its array {sha} is missing" for sha in shas if sha not in found)


def _still_there(database: Database, row: Row) -> bool:
    """Whether a result is stored still; `db gc` may remove one while we look."""
    return database.call(lambda: database["results"].find_one({"_id": row["_id"]}, {"_id": 1})) is not None


def _blob_problems(database: Database, blobs: BlobStore, row: Row) -> Iterator[str]:
    reference = BlobReference(row["_id"], row["dtype"], tuple(row["shape"]))
    try:
        blobs.get(reference)
    except (EsenFlowsError, ValueError, TypeError) as error:
        if database.call(lambda: database["blobs"].find_one({"_id": row["_id"]}, {"_id": 1})) is not None:
            yield _first_line(error)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:300] if not isinstance(error, ValidationError) else " ".join(lines[:3])[:300]

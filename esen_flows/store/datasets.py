"""Labelled datasets in the database, by the hash of their content.

A small dataset is in the database with all its records (`esen_flows.store.dataset_columns`), so that every worker on
every machine can read it. Of a large one the database has the description and the folder.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols
from pymongo.errors import DuplicateKeyError

from esen_flows.errors import InputError, StoreError
from esen_flows.schemas.documents import SCHEMA_VERSION
from esen_flows.schemas.training import DatasetDocument
from esen_flows.store.blobs import BlobReference, BlobStore, announced_arrays, pack, unpack
from esen_flows.store.claims import Claims
from esen_flows.store.database import Database, Row
from esen_flows.store.dataset_columns import columns_of, structures_of
from esen_flows.store.migrations import upgraded
from esen_flows.store.reading import find_all, find_one
from esen_flows.store.results import Store
from esen_flows.store.rows import validated

if TYPE_CHECKING:
    from esen_flows.data.dataset import Dataset

# Larger datasets stay in their folders, because a database is read over a network, and backed up.
IN_DATABASE_BYTES = 64 * 2**20
_BYTES_PER_ATOM, _BYTES_PER_STRUCTURE = 49, 190  # of the columns


def store_dataset(
    store: Store,
    dataset: "Dataset",
    name: str,
    *,
    folder: Path | str | None = None,
    in_database_bytes: int = IN_DATABASE_BYTES,
) -> str:
    """Store a dataset once, under the key of its content.

    Parameters
    ----------
    store
        Open store.
    dataset
        The dataset. Its records go into the database unless they are larger than `in_database_bytes`.
    name
        Name for people, which is added to the names that the dataset has.
    folder
        Folder where a large dataset is and stays, written by `write_dataset`.
    in_database_bytes
        Largest size in bytes of records in the database.

    Returns
    -------
    str
        Key of the dataset.

    Raises
    ------
    InputError
        A large dataset comes without a folder, or with the folder of another one.
    """
    from esen_flows.data.references import fit_statistics

    key, database = dataset.key, store.database
    known = {"$addToSet": {"names": name}}
    if database.call(lambda: database["datasets"].update_one({"_id": key}, known)).matched_count:
        return key
    small = fits_database(dataset, in_database_bytes)
    place = None if small else _checked_folder(key, name, folder)
    arrays: dict[str, np.ndarray] = {}
    row = {
        "_id": key,
        "schema_version": SCHEMA_VERSION,
        "names": [name],
        "count": len(dataset),
        "atoms": int(dataset.n_atoms.sum()),
        "groups": _groups(dataset),
        "elements": sorted(chemical_symbols[number] for number in dataset.elements),
        "statistics": pack(fit_statistics(dataset).document(), path="statistics"),
        "provenance": pack(dict(dataset.provenance), path="provenance"),
        "folder": place,
        "columns": pack(columns_of(dataset), arrays, "columns") if small else None,
        "blobs": sorted(arrays),
        "created_at": datetime.now(UTC),
    }
    with closing(Claims(database)) as claims:
        insert_dataset(database, claims, row, arrays.__getitem__)
    return key


def fits_database(dataset: "Dataset", in_database_bytes: int = IN_DATABASE_BYTES) -> bool:
    """Whether `store_dataset` puts the records into the database.

    Parameters
    ----------
    dataset
        The dataset.
    in_database_bytes
        Largest size in bytes of records in the database.

    Returns
    -------
    bool
        False for a dataset that stays in its folder.
    """
    size = _BYTES_PER_ATOM * int(dataset.n_atoms.sum()) + _BYTES_PER_STRUCTURE * len(dataset)
    return size <= in_database_bytes


def insert_dataset(database: Database, claims: Claims, row: Row, array: Callable[[str], np.ndarray]) -> bool:
    """Insert a dataset with its arrays; of one that is stored already only new names are added.

    Parameters
    ----------
    database
        Open database.
    claims
        Claims of this process.
    row
        Document of the `datasets` collection.
    array
        Returns the array of a content key.

    Returns
    -------
    bool
        Whether the dataset was inserted.
    """
    with announced_arrays(database, claims, row["blobs"], array):
        return _upsert(database, row)


def dataset_document(store: Store, key: str) -> DatasetDocument:
    """The description of a dataset.

    Parameters
    ----------
    store
        Open store.
    key
        Key of the dataset.

    Returns
    -------
    DatasetDocument
        The description; large columns are BlobReferences.

    Raises
    ------
    InputError
        There is no such dataset.
    StoreError
        A newer version of this package wrote the document, or it is damaged.
    """
    row = find_one(store.database, "datasets", {"_id": key})
    if row is None:
        names = ", ".join(sorted(document.names[0] for document in list_datasets(store))[:10])
        raise InputError(f"no dataset {key[:16]!r} in the store (there are: {names or 'none'}); store it first")
    return _document_of(row)


def list_datasets(store: Store) -> list[DatasetDocument]:
    """All datasets.

    Parameters
    ----------
    store
        Open store.

    Returns
    -------
    list of DatasetDocument
        Descriptions without columns, the newest first.
    """
    rows = find_all(store.database, "datasets", {}, {"columns": 0}, sort=[("created_at", -1)])
    return [_document_of({**row, "columns": None}) for row in rows]


def fetch_dataset(store: Store, key: str, folder: Path | str) -> "Dataset":
    """A dataset of the store, opened in the folder of `dataset_folder`.

    Parameters
    ----------
    store
        Open store.
    key
        Key of the dataset.
    folder
        Folder for a dataset whose records are in the database; not used for others.

    Returns
    -------
    Dataset
        The dataset.

    Raises
    ------
    InputError
        There is no such dataset.
    StoreError
        Its folder is not on this machine or holds something else, or its records are damaged.
    """
    from esen_flows.data.folders import open_dataset

    return open_dataset(dataset_folder(store, key, folder))


def dataset_folder(store: Store, key: str, folder: Path | str) -> Path:
    """The folder of a dataset on this machine; records from the database are written if the folder does not exist.

    Parameters
    ----------
    store
        Open store.
    key
        Key of the dataset.
    folder
        Folder for a dataset whose records are in the database; not used for others.

    Returns
    -------
    Path
        `folder`, or the folder in which a large dataset stays.

    Raises
    ------
    InputError
        There is no such dataset.
    StoreError
        Its folder is not on this machine or holds something else, or its records are damaged.
    """
    from esen_flows.data.folders import open_dataset

    document = dataset_document(store, key)
    folder, name = Path(document.folder or folder), f"dataset {document.names[0]!r} ({key[:12]})"
    if folder.is_dir():
        found = open_dataset(folder).key
        if found == key:
            return folder
        if document.folder is None:
            raise StoreError(f"{folder} holds dataset {found[:12]} instead of {key[:12]}; remove that folder")
        raise StoreError(f"{folder} no longer holds {name} but {found[:12]}; restore it, or store the new one")
    if document.folder is not None:
        raise StoreError(
            f"{name} is too large for the database, and its folder {folder} is not on this machine; make it visible "
            "here under the same path"
        )
    _write(store, document, folder)
    return folder


def keys_of_datasets(row: Row) -> set[str]:
    """The datasets from which a result was made, or that it made.

    Parameters
    ----------
    row
        Document of the `results` collection.

    Returns
    -------
    set of str
        Keys of the datasets.
    """
    keys = {str(key) for key, _ in row["protocol"].get("datasets", ())} if row["kind"] == "training" else set()
    if row["kind"] == "evaluation":
        keys.add(row["structure_key"])
    if row["kind"] == "labelling" and row["summary"]:
        keys.add(str(row["summary"]["dataset_key"]))
    return keys


def dataset_problems(row: Row) -> Iterator[str]:
    """What is wrong with a stored dataset, without reading its arrays.

    Parameters
    ----------
    row
        Document of the `datasets` collection.

    Yields
    ------
    str
        A message.
    """
    name = f"dataset {row.get('_id')}"
    try:
        document = _document_of(row)
        listed = sorted(row["blobs"])
    except (StoreError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{name} cannot be read: {(str(error).splitlines() or [type(error).__name__])[0][:300]}"
        return
    columns = document.columns or {}
    if sorted({c.sha for c in columns.values() if isinstance(c, BlobReference)}) != listed:
        yield f"{name} refers to other large arrays than it lists"
    if (document.columns is None) == (document.folder is None):
        yield f"{name} has neither records nor a folder, or both"


def _document_of(row: Row) -> DatasetDocument:
    row = upgraded("datasets", row)
    fields = {name: value for name, value in row.items() if name not in ("_id", "blobs")} | {"key": row["_id"]}
    return validated(DatasetDocument, f"dataset {row['_id']}", unpack(fields))


def _upsert(database: Database, row: Row) -> bool:
    fields = {name: value for name, value in row.items() if name not in ("_id", "names")}
    update = {"$setOnInsert": fields, "$addToSet": {"names": {"$each": row["names"]}}}
    while True:
        try:
            done = database.call(lambda: database["datasets"].update_one({"_id": row["_id"]}, update, upsert=True))
        except DuplicateKeyError:  # another process inserted it in the same moment; now it is found
            continue
        return done.upserted_id is not None


def _checked_folder(key: str, name: str, folder: Path | str | None) -> str:
    """The absolute path of the folder of a large dataset that is about to be stored."""
    from esen_flows.data.folders import open_dataset

    if folder is None:
        raise InputError(
            f"dataset {name!r} is too large for the database; write it into a folder that stays "
            "(data.folders.write_dataset), and store it with folder=..."
        )
    found = open_dataset(Path(folder)).key
    if found != key:
        raise InputError(f"{folder} holds dataset {found[:12]}, not {name!r} ({key[:12]}); give the folder of this one")
    return str(Path(folder).resolve())


def _write(store: Store, document: DatasetDocument, folder: Path) -> None:
    """Write the records of a small dataset into a folder."""
    from esen_flows.data.folders import write_dataset

    blobs, columns = BlobStore(store.database), document.columns or {}
    arrays = {name: blobs.get(c) if isinstance(c, BlobReference) else c for name, c in columns.items()}

    def check(written: "Dataset") -> dict[str, Any]:
        if written.key != document.key:
            raise StoreError(f"dataset {document.key[:12]} does not have the key of its records; the store is damaged")
        return {}

    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_dataset(folder, structures_of(arrays), provenance=document.provenance, inspect=check)
    except (OSError, InputError):
        if not folder.is_dir():  # otherwise another process wrote the dataset in the meantime
            raise


def _groups(dataset: "Dataset") -> list[Row]:
    """Number of structures and materials in each group; a structure without a material counts as one of its own."""
    material = np.where(dataset.material < 0, -1 - np.arange(len(dataset)), dataset.material)
    rows = []
    for index, name in enumerate(dataset.group_names):
        members = dataset.group == index
        if members.any():
            rows.append({"group": name, "count": int(members.sum()), "materials": len(np.unique(material[members]))})
    return rows

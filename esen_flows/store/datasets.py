"""Labelled datasets in the database, by the hash of their content.

A small dataset is in the database with all its records, so that any worker on any machine can have it. Of a large one
the database knows what it is and in which folder it is.

`columns` of a small one, for n structures with N atoms in all: n_atoms (n,), numbers (N,), positions_angstrom (N, 3),
forces_ev_per_angstrom (N, 3), energies_ev (n,), stresses_ev_per_angstrom3 (n, 3, 3) with NaN for none, cells_angstrom
(n, 3, 3), pbc (n, 3), charges and spins (n,), groups and materials (n,) as indices into group_names and material_names
(-1: no material).
"""

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from pydantic import ValidationError
from pymongo.errors import DuplicateKeyError

from esen_flows.errors import InputError, StoreError
from esen_flows.schemas.documents import SCHEMA_VERSION
from esen_flows.schemas.training import DatasetDocument
from esen_flows.store.blobs import BlobReference, BlobStore, pack, unpack
from esen_flows.store.claims import Claims
from esen_flows.store.database import Database, Row
from esen_flows.store.migrations import upgraded
from esen_flows.store.results import Store

if TYPE_CHECKING:
    from esen_flows.data.dataset import Dataset
    from esen_flows.data.labelled import LabelledStructure

# Larger datasets stay in their folders: a database is read over a network, and backed up.
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
    """Store a dataset under the key of its content, once; the key.

    Parameters
    ----------
    dataset
        its records go into the database, unless they are more than `in_database_bytes`.
    name
        for people; added to the names that it has.
    folder
        where a large dataset is and stays: `write_dataset` wrote it there.

    Raises
    ------
    InputError
        a large dataset without a folder, or with that of another one.
    """
    from esen_flows.data.references import fit_statistics

    key, database = dataset.key, store.database
    known = {"$addToSet": {"names": name}}
    if database.call(lambda: database["datasets"].update_one({"_id": key}, known)).matched_count:
        return key
    large = not fits_database(dataset, in_database_bytes)
    place = _checked_folder(key, name, folder) if large else None
    columns = None if large else _columns(dataset)
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
        "columns": pack(columns, arrays, "columns"),
        "blobs": sorted(arrays),
        "created_at": datetime.now(UTC),
    }
    claims = Claims(database)
    try:
        insert_dataset(database, claims, row, arrays.__getitem__)
    finally:
        claims.close()
    return key


def fits_database(dataset: "Dataset", in_database_bytes: int = IN_DATABASE_BYTES) -> bool:
    """Whether `store_dataset` puts the records into the database."""
    size = _BYTES_PER_ATOM * int(dataset.n_atoms.sum()) + _BYTES_PER_STRUCTURE * len(dataset)
    return size <= in_database_bytes


def insert_dataset(database: Database, claims: Claims, row: Row, array: Callable[[str], np.ndarray]) -> bool:
    """Insert a dataset with its arrays unless it is there, to whose names its own are added; whether it was not.

    Parameters
    ----------
    array
        gives an array by its content key.
    """
    blobs, shas = BlobStore(database), row["blobs"]
    # As every writer does: announced in a claim, then the arrays, then the document that names them.
    claim = claims.try_claim(f"dataset {uuid.uuid4().hex}")
    assert claim is not None  # nobody else draws this name
    try:
        claims.announce_blobs(claim, shas)
        for sha in shas:
            blobs.put(sha, array(sha), claim.token)
        inserted = _upsert(database, row)
    except BaseException:
        blobs.remove_orphans(shas, by_token=claim.token)
        claims.forget(claim)
        raise
    if not claims.forget(claim):  # taken for dead, and cleared away after
        for sha in shas:
            blobs.repair(sha, array(sha))
    return inserted


def dataset_document(store: Store, key: str) -> DatasetDocument:
    """What is known of a dataset; large columns are BlobReferences.

    Raises
    ------
    InputError
        there is none.
    StoreError
        it is of a newer version of this package, or damaged.
    """
    database = store.database
    row = database.call(lambda: database["datasets"].find_one({"_id": key}))
    if row is None:
        names = ", ".join(sorted(document.names[0] for document in list_datasets(store))[:10])
        raise InputError(f"no dataset {key[:16]!r} in the store (there are: {names or 'none'}); store it first")
    return read_dataset_row(row)


def list_datasets(store: Store) -> list[DatasetDocument]:
    """All datasets, newest first, without their columns."""
    database = store.database
    rows = database.call(lambda: list(database["datasets"].find({}, {"columns": 0}).sort("created_at", -1)))
    return [read_dataset_row({**row, "columns": None}) for row in rows]


def read_dataset_row(row: Row) -> DatasetDocument:
    """A document of the `datasets` collection, checked.

    Raises
    ------
    StoreError
        it is of a newer version of this package, or damaged.
    """
    row = upgraded("datasets", row)
    fields = {name: value for name, value in row.items() if name not in ("_id", "blobs")}
    try:
        return DatasetDocument(key=row["_id"], **unpack(fields, lambda reference: reference))
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        raise StoreError(
            f"dataset {row.get('_id')} is not as this version of esen_flows writes it ({fault['loc'][0]}: "
            f"{fault['msg'][:200]}); the store is damaged"
        ) from None


def fetch_dataset(store: Store, key: str, folder: Path | str) -> "Dataset":
    """A dataset of the store, from its own folder or else written into `folder`, where it is found the next time.

    Parameters
    ----------
    key
        of its content.
    folder
        for a dataset whose records are in the database; not touched for others.

    Raises
    ------
    InputError
        no such dataset.
    StoreError
        its folder is not on this machine or holds something else, or its records are damaged.
    """
    from esen_flows.data.folders import open_dataset

    return open_dataset(dataset_folder(store, key, folder))


def dataset_folder(store: Store, key: str, folder: Path | str) -> Path:
    """Where `fetch_dataset` has a dataset on this machine; it is written there unless it is there."""
    from esen_flows.data.folders import open_dataset, write_dataset

    document, folder = dataset_document(store, key), Path(folder)
    if document.folder is not None:
        return _checked(document, Path(document.folder))
    if folder.is_dir():
        found = open_dataset(folder).key
        if found != key:
            raise StoreError(f"{folder} holds dataset {found[:12]} instead of {key[:12]}; remove that folder")
        return folder
    blobs, columns = BlobStore(store.database), document.columns or {}
    arrays = {name: blobs.get(c) if isinstance(c, BlobReference) else c for name, c in columns.items()}

    def check(written: "Dataset") -> dict[str, Any]:
        if written.key != key:
            raise StoreError(f"dataset {key[:12]} does not have the key of its records; the store is damaged")
        return {}

    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_dataset(folder, _structures(arrays), provenance=document.provenance, inspect=check)
    except (OSError, InputError):
        if not folder.is_dir():  # else another process was faster
            raise
    return folder


def keys_of_datasets(row: Row) -> set[str]:
    """The datasets that a stored result is about, or made."""
    keys = {str(key) for key, _ in row["protocol"].get("datasets", ())} if row["kind"] == "training" else set()
    if row["kind"] == "evaluation":
        keys.add(row["structure_key"])
    if row["kind"] == "labelling" and row["summary"]:
        keys.add(str(row["summary"]["dataset_key"]))
    return keys


def dataset_problems(row: Row) -> Iterator[str]:
    """What is wrong with a stored dataset by itself; its arrays are not read."""
    name = f"dataset {row.get('_id')}"
    try:
        document = read_dataset_row(row)
        listed = sorted(row["blobs"])
    except (StoreError, ValueError, KeyError, TypeError) as error:
        yield f"{name} cannot be read: {str(error).splitlines()[0][:300]}"
        return
    columns = document.columns or {}
    if sorted({c.sha for c in columns.values() if isinstance(c, BlobReference)}) != listed:
        yield f"{name} refers to other large arrays than it lists"
    if (document.columns is None) == (document.folder is None):
        yield f"{name} has neither records nor a folder, or both"


def _checked_folder(key: str, name: str, folder: Path | str | None) -> str:
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


def _upsert(database: Database, row: Row) -> bool:
    fields = {name: value for name, value in row.items() if name not in ("_id", "names")}
    update = {"$setOnInsert": fields, "$addToSet": {"names": {"$each": row["names"]}}}
    while True:
        try:
            done = database.call(lambda: database["datasets"].update_one({"_id": row["_id"]}, update, upsert=True))
        except DuplicateKeyError:  # two insertions at once: now it is there
            continue
        return done.upserted_id is not None


def _checked(document: DatasetDocument, folder: Path) -> Path:
    from esen_flows.data.folders import open_dataset

    name = f"dataset {document.names[0]!r} ({document.key[:12]})"
    if not folder.is_dir():
        raise StoreError(
            f"{name} is too large for the database, and its folder {folder} is not on this machine; make it visible "
            "here under the same path"
        )
    found = open_dataset(folder).key
    if found != document.key:
        raise StoreError(f"{folder} no longer holds {name} but {found[:12]}; restore it, or store the new one")
    return folder


def _groups(dataset: "Dataset") -> list[Row]:
    """How many structures and materials each group has; a structure without a material stands alone."""
    material = np.where(dataset.material < 0, -1 - np.arange(len(dataset)), dataset.material)
    rows = []
    for index, name in enumerate(dataset.group_names):
        members = dataset.group == index
        if members.any():
            rows.append({"group": name, "count": int(members.sum()), "materials": len(np.unique(material[members]))})
    return rows


def _columns(dataset: "Dataset") -> dict[str, np.ndarray]:
    items = list(dataset)
    return {
        "n_atoms": np.asarray(dataset.n_atoms, dtype=np.int64),
        "numbers": np.concatenate([item.atoms.numbers for item in items]).astype(np.uint8),
        "positions_angstrom": np.concatenate([item.atoms.positions for item in items]),
        "forces_ev_per_angstrom": np.concatenate([item.forces for item in items]),
        "energies_ev": np.array([item.energy for item in items], dtype=np.float64),
        "stresses_ev_per_angstrom3": np.stack([item.stress for item in items]),
        "cells_angstrom": np.stack([item.atoms.cell.array for item in items]),
        "pbc": np.stack([item.atoms.pbc for item in items]),
        "charges": np.array([item.atoms.info.get("charge", 0) for item in items], dtype=np.int64),
        "spins": np.array([item.atoms.info.get("spin", 0) for item in items], dtype=np.int64),
        "groups": np.asarray(dataset.group, dtype=np.int64),
        "group_names": np.array(dataset.group_names, dtype=np.str_),
        "materials": np.asarray(dataset.material, dtype=np.int64),
        "material_names": np.array(dataset.material_names, dtype=np.str_),
    }


def _structures(columns: dict[str, np.ndarray]) -> "Iterator[LabelledStructure]":
    from esen_flows.data.labelled import LabelledStructure

    ends = np.cumsum(columns["n_atoms"])
    for index, (count, end) in enumerate(zip(columns["n_atoms"].tolist(), ends.tolist(), strict=True)):
        rows = slice(end - count, end)
        atoms = Atoms(
            columns["numbers"][rows].astype(int),
            positions=columns["positions_angstrom"][rows],
            cell=columns["cells_angstrom"][index],
            pbc=columns["pbc"][index],
        )
        for name in ("charge", "spin"):
            if columns[f"{name}s"][index]:
                atoms.info[name] = int(columns[f"{name}s"][index])
        material = int(columns["materials"][index])
        yield LabelledStructure(
            atoms=atoms,
            energy=float(columns["energies_ev"][index]),
            forces=columns["forces_ev_per_angstrom"][rows],
            stress=columns["stresses_ev_per_angstrom3"][index],
            group=str(columns["group_names"][columns["groups"][index]]),
            material=str(columns["material_names"][material]) if material >= 0 else "",
        )

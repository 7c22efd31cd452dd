"""A dataset as a folder: tables as .npy files, and an index with their units, statistics and provenance."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from esen_flows.data.dataset import Dataset, Progress
from esen_flows.data.npy import FileRows
from esen_flows.data.references import fit_statistics
from esen_flows.data.screening import ANY_FORCE, ReadRecord, Rejected, screened
from esen_flows.data.sources.vocabulary import OnBad
from esen_flows.data.tables import COLUMNS, Tables, TableWriter, digest_of, rows_of
from esen_flows.errors import InputError
from esen_flows.files import read_at_most, written_whole

FORMAT = "esen_flows dataset"
FORMAT_VERSION = 1
MOST_RECORDS = 2**32  # a record's row is a uint32
MOST_JSON_BYTES = 1 << 30
INDEX_NAME = "index.json"
MATERIALS_NAME = "material_names.json"
# Written into the index of every folder, so that the files can be understood without this package.
UNITS = {
    "energy": "eV, total energy of the structure",
    "position, cell": "Angstrom; rows of the cell are lattice vectors",
    "force": "eV/Angstrom, minus the gradient of the energy",
    "stress": "eV/Angstrom^3, derivative of the energy by strain over volume: positive under tension; NaN: none",
    "charge": "elementary charges",
    "spin": "multiplicity; 0: not said",
}
# Columns that are read row by row; the others are small enough to be held in memory.
_FROM_FILE = ("numbers", "atoms", "records")


def is_dataset_folder(path: Path) -> bool:
    """Whether a folder holds a dataset.

    Parameters
    ----------
    path
        Any path.

    Returns
    -------
    bool
        Whether there is an index.
    """
    return (path / INDEX_NAME).is_file()


def read_index(folder: Path | str) -> dict[str, Any]:
    """The index of a dataset folder.

    Parameters
    ----------
    folder
        Folder that `write_dataset` made.

    Returns
    -------
    dict[str, Any]
        Key, numbers of records and atoms, groups, statistics, rejected records, remarks and provenance.

    Raises
    ------
    InputError
        There is no such folder, it holds no dataset, the index is damaged, or the dataset has a newer format.
    """
    path = Path(folder) / INDEX_NAME
    if not path.is_file():
        raise InputError(f"no dataset at {folder}; make one with `esen-flows data import`")
    index = _read_json(path)
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise InputError(f"{path} is not the index of a dataset; it should say format {FORMAT!r}")
    version = index.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(f"{folder} has format version {version}, known here is {FORMAT_VERSION}; update esen_flows")
    rules = {
        "format_version": version == FORMAT_VERSION,
        "key": isinstance(index.get("key"), str),
        "records": _is_count(index.get("records"), 1, MOST_RECORDS),
        "group_names": _are_texts(index.get("group_names"), np.iinfo(COLUMNS["groups"][0]).max + 1),
        "provenance": isinstance(index.get("provenance"), dict),
    }
    for name, holds in rules.items():
        if not holds:
            value = f"got {index[name]!r:.80}" if name in index else "it is missing"
            raise InputError(f"{path}: {name} is not what an index says, {value}; import the dataset again")
    return index


def _is_count(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _are_texts(value: Any, most: int) -> bool:
    return isinstance(value, list) and len(value) <= most and all(isinstance(one, str) for one in value)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_at_most(path, MOST_JSON_BYTES))
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}; import the dataset again") from error


def _read_tables(
    folder: Path, count: int, group_names: tuple[str, ...], material_names: tuple[str, ...], provenance: dict[str, Any]
) -> Tables:
    """Tables of `count` structures from the files of a folder; the large files are opened, not read."""
    sizes = _rows(folder, "n_atoms", count)[:]
    if sizes.min() < 1:
        raise InputError(f"{folder / 'n_atoms.npy'} has a structure without atoms; import the dataset again")
    n_atoms = int(sizes.sum(dtype=np.int64))
    lengths = {"numbers": n_atoms, "atoms": n_atoms}
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        rows = _rows(folder, name, lengths.get(name, count))
        columns[name] = rows if name in _FROM_FILE else rows[:]
    for name, least, names in (("groups", 0, group_names), ("materials", -1, material_names)):
        if columns[name].min() < least or columns[name].max() >= len(names):
            raise InputError(f"{folder / f'{name}.npy'} gives a number without a name; import the dataset again")
    return Tables(
        **columns, group_names=group_names, material_names=material_names, provenance=provenance, folder=folder
    )


def _rows(folder: Path, name: str, count: int) -> FileRows:
    return FileRows(folder / f"{name}.npy", *COLUMNS[name], count)


def open_dataset(folder: Path | str) -> Dataset:
    """The dataset of a folder; a record is read when it is used.

    Parameters
    ----------
    folder
        Folder that `write_dataset` made.

    Returns
    -------
    Dataset
        All records.

    Raises
    ------
    InputError
        There is no dataset, or a file of it is missing, cut off or of another dataset.
    """
    folder = Path(folder)
    index = read_index(folder)
    names = _read_json(folder / MATERIALS_NAME)
    if not _are_texts(names, index["records"]):
        raise InputError(f"{folder / MATERIALS_NAME} is not a list of names of materials; import the dataset again")
    tables = _read_tables(folder, index["records"], tuple(index["group_names"]), tuple(names), index["provenance"])
    return Dataset.of_tables(tables)


def write_dataset(
    folder: Path | str,
    structures: Iterable[ReadRecord],
    *,
    provenance: dict[str, Any] | None = None,
    on_bad: OnBad = "skip",
    inspect: Callable[[Dataset], dict[str, Any]] | None = None,
) -> Dataset:
    """Write a dataset structure by structure, and open it. The folder is written whole or not at all.

    Parameters
    ----------
    folder
        Folder to make; it must not exist.
    structures
        Any number of structures. Bad records among them are counted and listed in the index.
    provenance
        Where the structures come from, for the index.
    on_bad
        Whether bad records are left out or end the writing.
    inspect
        Called with the complete dataset before the folder gets its name. What it returns goes into the index, and an
        error that it raises ends the writing.

    Returns
    -------
    Dataset
        The dataset of the folder.

    Raises
    ------
    InputError
        The folder exists, no structure is good, or one is bad and `on_bad` is "fail".
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists; give another folder, or remove it")
    # As `files.written_whole`, for a folder: written under another name, and renamed when it is complete.
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    rejected = Rejected(on_bad)
    writer = TableWriter(temporary)
    try:
        for item in rejected.keep(screened(structures, str(folder), ANY_FORCE)):
            writer.append(item)
        writer.close()
        dataset = Dataset.of_tables(_read_tables(temporary, writer.count, **writer.names, provenance=provenance or {}))
        _write_json(temporary / MATERIALS_NAME, list(dataset.material_names))
        _write_json(temporary / INDEX_NAME, _index(dataset, rejected) | (inspect(dataset) if inspect else {}), indent=1)
        temporary.rename(folder)
    except BaseException:  # an interrupt too leaves nothing behind
        writer.abandon()
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return open_dataset(folder)


def _index(dataset: Dataset, rejected: Rejected) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "units": UNITS,
        "key": dataset.key,
        "records": len(dataset),
        "atoms": int(dataset.n_atoms.sum()),
        "group_names": list(dataset.group_names),
        "group_records": np.bincount(dataset.group, minlength=len(dataset.group_names)).tolist(),
        "materials": len(dataset.material_names),
        "statistics": fit_statistics(dataset).document(),
        "rejected": rejected.document(),
        "remarks": dict(rejected.remarks),
        "provenance": dataset.provenance,
    }


def _write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """JSON that is on the disk before the folder gets its name."""
    with written_whole(path, durable=True) as temporary:
        temporary.write_text(json.dumps(content, indent=indent, allow_nan=False), encoding="utf-8")


def verify(dataset: Dataset, key: str, progress: Progress | None = None) -> None:
    """Read every record and compare it with its digest, and the digests with the key of the dataset.

    Parameters
    ----------
    dataset
        Records to read.
    key
        Key that the index of the dataset gives.
    progress
        Called with the number of records done and the number of all records.

    Raises
    ------
    InputError
        A record has changed since it was written.
    """
    for index, item in enumerate(dataset):
        if (digest_of(*rows_of(item), item.group, item.material) != dataset.digests[index]).any():
            raise InputError(f"record {index} is not what was written; copy or import the dataset again")
        if progress is not None:
            progress(index + 1, len(dataset))
    if dataset.key != key:
        raise InputError(f"the records have key {dataset.key[:16]}..., the index says {key[:16]}...; import them again")

"""A dataset as a folder: tables as .npy files, and an index that says what they mean and where they come from."""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from esen_flows.data.tables import COLUMNS, FileRows, Rows, Tables, assembled
from esen_flows.errors import InputError

FORMAT = "esen_flows dataset"
FORMAT_VERSION = 1
INDEX_NAME = "index.json"
MATERIALS_NAME = "material_names.json"
# What the numbers mean, in words, in every folder.
UNITS = {
    "energy": "eV, total energy of the structure",
    "position, cell": "Angstrom; rows of the cell are lattice vectors",
    "force": "eV/Angstrom, minus the gradient of the energy",
    "stress": "eV/Angstrom^3, derivative of the energy by strain over volume: positive under tension; NaN: none",
    "charge": "elementary charges",
    "spin": "multiplicity; 0: not said",
}
# Read row by row; the others are small enough to be held.
_FROM_FILE = ("numbers", "atoms", "records")


def is_dataset_folder(path: Path) -> bool:
    """Whether a folder holds a dataset."""
    return (path / INDEX_NAME).is_file()


def read_index(folder: Path | str) -> dict[str, Any]:
    """The index of a dataset folder.

    Raises
    ------
    InputError
        no such folder, no dataset, or one of a newer version.
    """
    path = Path(folder) / INDEX_NAME
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"no dataset at {folder}; make one with `esen-flows data import`") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; import the dataset again") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise InputError(f"{path} is not the index of a dataset; it should say format {FORMAT!r}")
    if index["format_version"] > FORMAT_VERSION:
        raise InputError(
            f"{folder} has format version {index['format_version']}, known here is {FORMAT_VERSION}; update esen_flows"
        )
    return index


def write_index(folder: Path, index: Mapping[str, Any], material_names: tuple[str, ...]) -> None:
    """Index and names of materials of a folder whose tables are there."""
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "units": UNITS}
    for name, content in ((MATERIALS_NAME, list(material_names)), (INDEX_NAME, {**head, **index})):
        with (folder / name).open("w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=1 if name == INDEX_NAME else None, allow_nan=False)
            stream.flush()
            os.fsync(stream.fileno())


def read_tables(
    folder: Path, count: int, group_names: tuple[str, ...], material_names: tuple[str, ...], provenance: dict[str, Any]
) -> Tables:
    """Tables of `count` structures from the files of a folder; nothing large is read.

    Raises
    ------
    InputError
        a file is missing, cut off, or of another dataset.
    """
    columns: dict[str, Rows] = {name: _rows(folder, name, count)[:] for name in COLUMNS if name not in _FROM_FILE}
    n_atoms = int(columns["n_atoms"][:].sum(dtype=np.int64))
    columns |= {name: _rows(folder, name, n_atoms) for name in ("numbers", "atoms")}
    columns["records"] = _rows(folder, "records", count)
    return assembled(columns, group_names, material_names, provenance, folder)


def _rows(folder: Path, name: str, count: int) -> FileRows:
    return FileRows(folder / f"{name}.npy", *COLUMNS[name], count)


def open_tables(folder: Path) -> Tables:
    """The tables of a dataset folder.

    Raises
    ------
    InputError
        no dataset, or a broken one.
    """
    index = read_index(folder)
    try:
        names = tuple(json.loads((folder / MATERIALS_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / MATERIALS_NAME} cannot be read: {error}; import the dataset again") from error
    return read_tables(folder, index["records"], tuple(index["group_names"]), names, index["provenance"])


def edges_path(folder: Path, cutoff_angstrom: float) -> Path:
    """Where the edge counts for a cutoff are."""
    return folder / f"edges_{float(cutoff_angstrom)}.npy"


def read_edges(tables: Tables, cutoff_angstrom: float) -> np.ndarray | None:
    """(n,) int32 edge counts of all structures, if they were counted before."""
    known = tables.edges.get(cutoff_angstrom)
    if known is None and tables.folder is not None and edges_path(tables.folder, cutoff_angstrom).is_file():
        known = FileRows(edges_path(tables.folder, cutoff_angstrom), np.dtype("<i4"), (), len(tables))[:]
        tables.edges[cutoff_angstrom] = known
    return known


def keep_edges(tables: Tables, cutoff_angstrom: float, counts: np.ndarray) -> None:
    """Remember edge counts: beside the tables if they are files, and until the end of the process."""
    tables.edges[cutoff_angstrom] = counts
    if tables.folder is None:
        return
    path = edges_path(tables.folder, cutoff_angstrom)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            np.save(stream, counts)
        os.replace(temporary, path)
    except OSError as error:  # someone else's folder, or a full disk: the counts are good all the same
        temporary.unlink(missing_ok=True)
        warnings.warn(f"edge counts cannot be kept in {tables.folder}: {error}; they are counted again", stacklevel=2)

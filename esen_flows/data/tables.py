"""The tables of a dataset, in memory or in files; ranges of rows are read by slicing in both cases."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms

from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.npy import FileColumn
from esen_flows.errors import InputError

# One row per atom (eV, Angstrom) and one per structure. All are float64, so that a label comes back to the last bit.
ATOM = np.dtype([("position", "<f8", (3,)), ("force", "<f8", (3,))])
RECORD = np.dtype(
    [
        ("energy", "<f8"),
        ("cell", "<f8", (3, 3)),
        ("stress", "<f8", (3, 3)),
        ("pbc", "?", (3,)),
        ("charge", "<i4"),
        ("spin", "<i4"),
    ]
)
DIGEST_BYTES = 16
_RECORDS_AT_ONCE = 65536  # that are hashed
# All columns of a dataset, each a file of its own: data type and shape of a row.
COLUMNS: dict[str, tuple[np.dtype, tuple[int, ...]]] = {
    "n_atoms": (np.dtype("<i4"), ()),
    "groups": (np.dtype("<u2"), ()),
    "materials": (np.dtype("<i4"), ()),  # -1: none
    "has_stress": (np.dtype("?"), ()),
    "digests": (np.dtype("u1"), (DIGEST_BYTES,)),
    "numbers": (np.dtype("u1"), ()),
    "atoms": (ATOM, ()),
    "records": (RECORD, ()),
}


class Rows(Protocol):
    """A table of which ranges of rows can be read: an array, or a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> np.ndarray: ...


@dataclass(frozen=True)
class Tables:
    """Structures and labels as tables. Rows of `numbers` and `atoms` are atoms; rows of the others are structures.

    Attributes
    ----------
    n_atoms
        (n,) number of atoms of each structure.
    groups
        (n,) index into `group_names`.
    materials
        (n,) index into `material_names`, -1 for none.
    has_stress
        (n,) bool.
    digests
        (n, 16) uint8 start of the sha256 of each structure with its labels.
    numbers
        (atoms,) atomic numbers.
    atoms
        (atoms,) rows of type ATOM.
    records
        (n,) rows of type RECORD.
    group_names
        Names of the groups.
    material_names
        Names of the materials.
    provenance
        Where the structures and labels come from.
    folder
        Folder of the files; None in memory.
    edges
        Known edge counts, (n,) each, by cutoff in Angstrom.
    """

    n_atoms: np.ndarray
    groups: np.ndarray
    materials: np.ndarray
    has_stress: np.ndarray
    digests: np.ndarray
    numbers: Rows
    atoms: Rows
    records: Rows
    group_names: tuple[str, ...]
    material_names: tuple[str, ...]
    provenance: dict[str, Any]
    folder: Path | None = None
    edges: dict[float, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.groups)

    @cached_property
    def offsets(self) -> np.ndarray:
        """(n + 1,) int64 index of the first atom of each structure, followed by the number of atoms."""
        return np.concatenate([[0], np.cumsum(self.n_atoms, dtype=np.int64)])


class _MemoryColumn(list[np.ndarray]):
    """An array that grows row by row."""

    def close(self) -> np.ndarray:
        return np.concatenate(self)


class TableWriter:
    """Tables written structure by structure.

    Parameters
    ----------
    folder
        Folder for the files; None for arrays in memory.

    Attributes
    ----------
    count
        Number of structures so far.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.count = 0
        self._groups: dict[str, int] = {}
        self._materials: dict[str, int] = {}
        self._columns: dict[str, _MemoryColumn | FileColumn] = {
            name: _MemoryColumn() if folder is None else FileColumn(folder / f"{name}.npy", dtype, row)
            for name, (dtype, row) in COLUMNS.items()
        }

    def append(self, item: LabelledStructure) -> None:
        """Add a structure.

        Parameters
        ----------
        item
            The structure with its labels.

        Raises
        ------
        InputError
            There are too many groups for their index.
        """
        numbers, atoms, record = rows_of(item)
        group = self._groups.setdefault(item.group, len(self._groups))
        if group > np.iinfo(COLUMNS["groups"][0]).max:
            raise InputError(
                f"more than {group} groups (the last is {item.group!r}); groups are subsets for reports: name fewer, "
                "and say what belongs together by the material"
            )
        single = {
            "n_atoms": len(numbers),
            "groups": group,
            "materials": self._materials.setdefault(item.material, len(self._materials)) if item.material else -1,
            "has_stress": not np.isnan(record["stress"][0, 0, 0]),
        }
        rows = {name: np.array([value], COLUMNS[name][0]) for name, value in single.items()}
        digest = digest_of(numbers, atoms, record, item.group, item.material)
        for name, values in {**rows, "digests": digest, "numbers": numbers, "atoms": atoms, "records": record}.items():
            self._columns[name].append(values)
        self.count += 1

    @property
    def names(self) -> dict[str, Any]:
        """`group_names` and `material_names` of the tables, each in the order of their first structures."""
        return {"group_names": tuple(self._groups), "material_names": tuple(self._materials)}

    def close(self) -> dict[str, Any]:
        """Complete the tables.

        Returns
        -------
        dict[str, Any]
            The columns as arrays, by name; None for each that was written to a file.
        """
        return {name: column.close() for name, column in self._columns.items()}

    def abandon(self) -> None:
        """Close the files as they are, after an error."""
        for column in self._columns.values():
            if isinstance(column, FileColumn):
                column.abandon()


def rows_of(item: LabelledStructure) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of one structure with its labels.

    Parameters
    ----------
    item
        The structure with its labels.

    Returns
    -------
    tuple[np.ndarray, np.ndarray, np.ndarray]
        Rows of `numbers` (atoms,), `atoms` (atoms,) and `records` (1,).
    """
    atoms = np.empty(len(item.atoms), ATOM)
    atoms["position"], atoms["force"] = item.atoms.positions, item.forces
    record = np.zeros(1, RECORD)
    record["energy"], record["cell"], record["pbc"] = item.energy, item.atoms.cell.array, item.atoms.pbc
    record["stress"] = item.stress if np.isfinite(item.stress).all() else np.nan
    for name in ("charge", "spin"):
        record[name] = item.atoms.info.get(name, 0)
    return item.atoms.numbers.astype(np.uint8), atoms, record


def digest_of(numbers: np.ndarray, atoms: np.ndarray, record: np.ndarray, group: str, material: str) -> np.ndarray:
    """Digest of one structure with its labels and names.

    Parameters
    ----------
    numbers, atoms, record
        Rows of the structure, from `rows_of`.
    group, material
        Names of its group and its material.

    Returns
    -------
    np.ndarray
        (1, 16) uint8.
    """
    names = f"{len(group)} {group} {material}".encode()
    digest = hashlib.sha256(b"".join((numbers.tobytes(), atoms.tobytes(), record.tobytes(), names))).digest()
    return np.frombuffer(digest[:DIGEST_BYTES], np.uint8)[None]


def key_of(digests: np.ndarray) -> str:
    """Key of a dataset.

    Parameters
    ----------
    digests
        (n, 16) uint8 digests of its records, in order.

    Returns
    -------
    str
        Hexadecimal sha256 of the digests.
    """
    return hashlib.sha256(digests.tobytes()).hexdigest()


def structure_at(part: Tables, row: int) -> LabelledStructure:
    """The structure of a row with its labels.

    Parameters
    ----------
    part
        The tables.
    row
        Index of the structure.

    Returns
    -------
    LabelledStructure
        The structure, with arrays that it shares with nothing.
    """
    first, last = int(part.offsets[row]), int(part.offsets[row + 1])
    rows, record = part.atoms[first:last], part.records[row : row + 1][0]
    numbers = part.numbers[first:last].astype(np.int64)
    atoms = Atoms(numbers, positions=rows["position"], cell=np.array(record["cell"]), pbc=record["pbc"])
    for name in ("charge", "spin"):
        if record[name]:
            atoms.info[name] = int(record[name])
    material = int(part.materials[row])
    return LabelledStructure(
        atoms=atoms,
        energy=float(record["energy"]),
        forces=np.array(rows["force"]),
        stress=np.array(record["stress"]),
        group=part.group_names[part.groups[row]],
        material=part.material_names[material] if material >= 0 else "",
    )


def species_of(part: Tables) -> np.ndarray:
    """Hash of the atomic numbers of each structure, in their order.

    Parameters
    ----------
    part
        The tables.

    Returns
    -------
    np.ndarray
        (n,) uint64.
    """
    random = np.random.default_rng(0)
    factors = random.integers(1, 1 << 63, size=int(part.n_atoms.max()), dtype=np.uint64)
    values = random.integers(1, 1 << 63, size=256, dtype=np.uint64)
    hashes = []
    for first in range(0, len(part), _RECORDS_AT_ONCE):
        bounds = part.offsets[first : first + _RECORDS_AT_ONCE + 1]
        numbers = part.numbers[int(bounds[0]) : int(bounds[-1])]
        place = np.arange(len(numbers)) - np.repeat(bounds[:-1] - bounds[0], np.diff(bounds))
        hashes.append(np.add.reduceat(values[numbers] * factors[place], bounds[:-1] - bounds[0]))
    return np.concatenate(hashes)

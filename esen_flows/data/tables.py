"""The tables of a dataset, in memory or in files. What is common to both: a range of rows is read by slicing.

Files are .npy, which `numpy.load(..., mmap_mode="r")` reads too. The large ones are read here by position rather than
through a mapping: every page of a mapping that was ever touched counts as this process's memory, and after an epoch in
random order that would be the whole dataset.
"""

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms

from esen_flows.data.labelled import LabelledStructure
from esen_flows.errors import InputError

# One row per atom (eV, Angstrom) and one per structure; float64 throughout: a label comes back to the last bit.
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
# What is kept beside these two, each a file: name, dtype, shape of a row.
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


class FileRows:
    """Rows of a .npy file, read when asked for.

    Raises
    ------
    InputError
        not a .npy file of this dtype and this many rows, or one that is cut off.
    """

    def __init__(self, path: Path, dtype: np.dtype, row: tuple[int, ...], count: int) -> None:
        self.path = path
        self._dtype, self._row, self._count = dtype, row, count
        try:
            with path.open("rb") as stream:
                shape, _, found = np.lib.format.read_array_header_1_0(_after_magic(stream))
                self._start = stream.tell()
                size = os.fstat(stream.fileno()).st_size
                self._descriptor = os.dup(stream.fileno())
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is not a readable .npy file: {error}; import the dataset again") from error
        self._bytes = dtype.itemsize * math.prod(row)
        expected = self._start + count * self._bytes
        if shape != (count, *row) or found != dtype or size != expected:
            raise InputError(
                f"{path} holds {shape} of {found} in {size} bytes; expected {(count, *row)} of {dtype} in {expected}; "
                "copy or import the dataset again"
            )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self._count)
        count = max(0, last - first)
        data = self._read(self._start + first * self._bytes, count * self._bytes)
        return np.frombuffer(data, self._dtype).reshape(count, *self._row)

    def _read(self, start: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, start)
        while len(data) < size:  # one call reads at most 2 GB
            more = os.pread(self._descriptor, size - len(data), start + len(data))
            if not more:
                raise InputError(f"{self.path} has become shorter since it was opened; copy the dataset again")
            data += more
        return data

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def _after_magic(stream: Any) -> Any:
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"version {version} of the .npy format, expected (1, 0)")
    return stream


class _MemoryColumn:
    def __init__(self, dtype: np.dtype, row: tuple[int, ...]) -> None:
        self._parts = [np.empty((0, *row), dtype)]

    def append(self, rows: np.ndarray) -> None:
        self._parts.append(rows)

    def close(self) -> np.ndarray:
        return np.concatenate(self._parts)


class _FileColumn:
    """A .npy file that grows; its header leaves room for any number of rows."""

    def __init__(self, path: Path, dtype: np.dtype, row: tuple[int, ...]) -> None:
        self._dtype, self._row, self._count = dtype, row, 0
        self._stream = path.open("wb", buffering=1 << 20)
        self._write_header()

    def _write_header(self) -> None:
        description = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": description, "fortran_order": False, "shape": (self._count, *self._row)}
        np.lib.format.write_array_header_1_0(self._stream, header)

    def append(self, rows: np.ndarray) -> None:
        self._stream.write(rows.tobytes())
        self._count += len(rows)

    def close(self) -> None:
        self._stream.seek(0)
        self._write_header()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def abandon(self) -> None:
        self._stream.close()


@dataclass(frozen=True)
class Tables:
    """Structures and labels as tables; rows of `numbers` and `atoms` are atoms, all others' are structures.

    Attributes
    ----------
    offsets
        (n + 1,) int64 first atom of each structure, and the number of atoms.
    groups
        (n,) index into `group_names`; materials : (n,) index into `material_names`, -1 for none.
    has_stress
        (n,) bool.
    digests
        (n, 16) the start of the sha256 of each structure with its labels.
    numbers
        atomic numbers; atoms : ATOM; records : RECORD.
    folder
        where the files are; None in memory.
    provenance
        where the structures and labels come from.
    edges
        edge counts by cutoff, as far as known.
    """

    offsets: np.ndarray
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


def assembled(
    columns: Mapping[str, Any],
    group_names: tuple[str, ...],
    material_names: tuple[str, ...],
    provenance: dict[str, Any],
    folder: Path | None = None,
) -> Tables:
    """Tables of the columns that COLUMNS names."""
    offsets = np.zeros(len(columns["n_atoms"]) + 1, np.int64)
    np.cumsum(columns["n_atoms"], out=offsets[1:])
    return Tables(
        offsets=offsets,
        groups=columns["groups"],
        materials=columns["materials"],
        has_stress=columns["has_stress"],
        digests=columns["digests"],
        numbers=columns["numbers"],
        atoms=columns["atoms"],
        records=columns["records"],
        group_names=group_names,
        material_names=material_names,
        provenance=provenance,
        folder=folder,
    )


class TableWriter:
    """Tables written row by row: files in `folder`, or arrays in memory without one."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.count = 0
        self._groups: dict[str, int] = {}
        self._materials: dict[str, int] = {}
        self._columns: dict[str, _MemoryColumn | _FileColumn] = {
            name: _MemoryColumn(*kind) if folder is None else _FileColumn(folder / f"{name}.npy", *kind)
            for name, kind in COLUMNS.items()
        }

    def append(self, item: LabelledStructure) -> None:
        """Add a structure.

        Raises
        ------
        InputError
            too many groups.
        """
        numbers, atoms, record = rows_of(item)
        group = self._groups.setdefault(item.group, len(self._groups))
        if group > np.iinfo(COLUMNS["groups"][0]).max:
            raise InputError(
                f"more than {group} groups (the last is {item.group!r}); groups are subsets for reports: name fewer, "
                "and say what belongs together by the material"
            )
        material = self._materials.setdefault(item.material, len(self._materials)) if item.material else -1
        single = {
            "n_atoms": len(numbers),
            "groups": group,
            "materials": material,
            "has_stress": not np.isnan(record["stress"][0, 0, 0]),
        }
        for name, value in single.items():
            self._columns[name].append(np.array([value], COLUMNS[name][0]))
        digest = digest_of(numbers, atoms, record, item.group, item.material)
        for name, rows in {"digests": digest, "numbers": numbers, "atoms": atoms, "records": record}.items():
            self._columns[name].append(rows)
        self.count += 1

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups, in the order in which they came."""
        return tuple(self._groups)

    @property
    def material_names(self) -> tuple[str, ...]:
        """Names of the materials, in the order in which they came."""
        return tuple(self._materials)

    def close(self) -> dict[str, np.ndarray]:
        """End; the arrays, if in memory."""
        closed = {name: column.close() for name, column in self._columns.items()}
        return {name: rows for name, rows in closed.items() if rows is not None}

    def abandon(self) -> None:
        """Close the files as they are."""
        for column in self._columns.values():
            if isinstance(column, _FileColumn):
                column.abandon()


def rows_of(item: LabelledStructure) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of `numbers`, `atoms` and `records` of one structure."""
    atoms = np.empty(len(item.atoms), ATOM)
    atoms["position"], atoms["force"] = item.atoms.positions, item.forces
    record = np.zeros(1, RECORD)
    record["energy"], record["cell"], record["pbc"] = item.energy, item.atoms.cell.array, item.atoms.pbc
    record["stress"] = item.stress if np.isfinite(item.stress).all() else np.nan
    for name in ("charge", "spin"):
        record[name] = item.atoms.info.get(name, 0)
    return item.atoms.numbers.astype(np.uint8), atoms, record


def digest_of(numbers: np.ndarray, atoms: np.ndarray, record: np.ndarray, group: str, material: str) -> np.ndarray:
    """(1, 16) uint8: what identifies one structure with its labels and names."""
    names = f"{len(group)} {group} {material}".encode()
    digest = hashlib.sha256(b"".join((numbers.tobytes(), atoms.tobytes(), record.tobytes(), names))).digest()
    return np.frombuffer(digest[:DIGEST_BYTES], np.uint8)[None]


def key_of(digests: np.ndarray) -> str:
    """sha256 of the digests of records in order."""
    return hashlib.sha256(digests.tobytes()).hexdigest()


def structure_at(part: Tables, row: int) -> LabelledStructure:
    """The structure of a row with its labels, as arrays of its own."""
    first, last = int(part.offsets[row]), int(part.offsets[row + 1])
    rows, record = part.atoms[first:last], part.records[row : row + 1][0]
    atoms = Atoms(
        part.numbers[first:last].astype(np.int64),
        positions=rows["position"],
        cell=np.array(record["cell"]),
        pbc=record["pbc"],
    )
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


def species_of(part: Tables, records: int = 65536) -> np.ndarray:
    """(n,) uint64 hash of the atomic numbers of each structure in their order; `records` are read at once."""
    random = np.random.default_rng(0)
    factors = random.integers(1, 1 << 63, size=int(np.diff(part.offsets).max()), dtype=np.uint64)
    values = random.integers(1, 1 << 63, size=256, dtype=np.uint64)
    hashes = []
    for first in range(0, len(part), records):
        bounds = part.offsets[first : first + records + 1]
        numbers = part.numbers[int(bounds[0]) : int(bounds[-1])]
        place = np.arange(len(numbers)) - np.repeat(bounds[:-1] - bounds[0], np.diff(bounds))
        hashes.append(np.add.reduceat(values[numbers] * factors[place], bounds[:-1] - bounds[0]))
    return np.concatenate(hashes)

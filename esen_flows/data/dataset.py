"""Datasets: labelled structures in memory or in a folder of files, and views of them; one class for all."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from esen_flows.data import folders
from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.references import fit_statistics
from esen_flows.data.screening import BadRecord, Limits, Rejected, fault, screened
from esen_flows.data.sources.vocabulary import OnBad
from esen_flows.data.tables import Tables, TableWriter, assembled, digest_of, key_of, rows_of, species_of, structure_at
from esen_flows.errors import InputError

Progress = Callable[[int, int], None]


class RecordBlock:
    """Records of one part of a dataset, one after the other as they are stored, for sums over all.

    What is not asked for is not read.

    Attributes
    ----------
    weight
        (n,) how often each counts, 0 for those outside of a view.
    n_atoms
        (n,).
    """

    def __init__(self, part: Tables, first: int, weight: np.ndarray) -> None:
        self.weight = weight
        bounds = part.offsets[first : first + len(weight) + 1]
        self.n_atoms = np.diff(bounds)
        self._part = part
        self._rows = slice(first, first + len(weight))
        self._atoms = slice(int(bounds[0]), int(bounds[-1]))

    @cached_property
    def numbers(self) -> np.ndarray:
        """(atoms,) atomic numbers."""
        return self._part.numbers[self._atoms]

    @cached_property
    def forces(self) -> np.ndarray:
        """(atoms, 3) eV/Angstrom."""
        return self._part.atoms[self._atoms]["force"]

    @cached_property
    def _records(self) -> np.ndarray:
        return self._part.records[self._rows]

    @property
    def energy(self) -> np.ndarray:
        """(n,) eV."""
        return self._records["energy"]

    @property
    def stress(self) -> np.ndarray:
        """(n, 3, 3) eV/Angstrom^3, NaN for none."""
        return self._records["stress"]


class Dataset:
    """Labelled structures by index: records of one or several parts, in any order, any of them more than once.

    Made by `from_structures`, `write_dataset`, `open_dataset`, `subset`, `mixture` and `read_dataset`.

    Attributes
    ----------
    provenance
        where the records come from.
    """

    def __init__(self, parts: Sequence[Tables], part: np.ndarray, row: np.ndarray, provenance: dict[str, Any]) -> None:
        self._parts = tuple(parts)
        self._part = part  # (n,) uint8
        self._row = row  # (n,) uint32
        self.provenance = provenance

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, index: int) -> LabelledStructure:
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of a dataset of {len(self)}")
        part, row = self._parts[int(self._part[index])], int(self._row[index])
        return structure_at(part, row)

    def __iter__(self) -> Iterator[LabelledStructure]:
        return (self[index] for index in range(len(self)))

    def _gathered(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Values of all records, given those of all rows of every part."""
        if len(columns) == 1:
            return columns[0][self._row]
        values = np.empty((len(self), *columns[0].shape[1:]), columns[0].dtype)
        for number, column in enumerate(columns):
            chosen = self._part == number
            values[chosen] = column[self._row[chosen]]
        return values

    @cached_property
    def n_atoms(self) -> np.ndarray:
        """(n,) int64 number of atoms."""
        return self._gathered([np.diff(part.offsets) for part in self._parts])

    @cached_property
    def has_stress(self) -> np.ndarray:
        """(n,) bool, whether a record has a stress."""
        return self._gathered([part.has_stress for part in self._parts])

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups of all parts; a view keeps the names of what it is a view of."""
        return tuple(dict.fromkeys(name for part in self._parts for name in part.group_names))

    @cached_property
    def group(self) -> np.ndarray:
        """(n,) int64 index into `group_names`."""
        known = {name: index for index, name in enumerate(self.group_names)}
        columns = [np.array([known[n] for n in part.group_names])[part.groups] for part in self._parts]
        return self._gathered(columns)

    @cached_property
    def material_names(self) -> tuple[str, ...]:
        """Names of the materials of all parts."""
        return tuple(dict.fromkeys(name for part in self._parts for name in part.material_names))

    @cached_property
    def material(self) -> np.ndarray:
        """(n,) int64 index into `material_names`; -1 for a record that stands alone."""
        known = {name: index for index, name in enumerate(self.material_names)}
        columns = [np.array([*(known[n] for n in part.material_names), -1])[part.materials] for part in self._parts]
        return self._gathered(columns)

    def materials(self) -> list[str]:
        """The material of every record; "" for one that stands alone."""
        names = [*self.material_names, ""]
        return [names[index] for index in self.material]

    @cached_property
    def digests(self) -> np.ndarray:
        """(n, 16) uint8: what identifies each record by its content."""
        return self._gathered([part.digests for part in self._parts])

    @cached_property
    def key(self) -> str:
        """sha256 of the content, records in order: equal for equal content, however it is stored."""
        return key_of(self.digests)

    @cached_property
    def species(self) -> np.ndarray:
        """(n,) uint64 hash of the atomic numbers in their order: equal where these are."""
        return self._gathered([species_of(part) for part in self._parts])

    @cached_property
    def elements(self) -> frozenset[int]:
        """Atomic numbers that occur."""
        seen = np.zeros(256, dtype=bool)
        for chunk in self.chunks():
            seen[chunk.numbers[np.repeat(chunk.weight > 0, chunk.n_atoms)]] = True
        return frozenset(np.flatnonzero(seen).tolist())

    def chunks(self, records: int = 8192) -> Iterator[RecordBlock]:
        """All records, each stored one once with its weight: what sums over a dataset of any size read."""
        for number, part in enumerate(self._parts):
            rows = self._row[self._part == number]
            weights = np.bincount(rows, minlength=len(part)).astype(np.float64)
            for first in range(0, len(part), records):
                weight = weights[first : first + records]
                if weight.any():
                    yield RecordBlock(part, first, weight)

    def edge_counts(self, cutoff_angstrom: float, progress: Progress | None = None) -> np.ndarray:
        """(n,) int64 directed edges of every record, self-images included; kept beside a folder once counted.

        Of a view, all records of what it is a view of are counted. `progress` gets records done and records in all.

        Raises
        ------
        StructureError
            a cell that no neighbour list can be made for.
        """
        from esen_flows.data.neighbors import pair_table  # with torch, which nothing else here needs

        missing = sum(len(part) for part in self._parts if folders.read_edges(part, cutoff_angstrom) is None)
        done = 0
        columns = []
        for part in self._parts:
            counts = folders.read_edges(part, cutoff_angstrom)
            if counts is None:
                counts = np.empty(len(part), np.int32)
                for row in range(len(part)):
                    counts[row] = len(pair_table(structure_at(part, row).atoms, cutoff_angstrom).source)
                    done += 1
                    if progress is not None:
                        progress(done, missing)
                folders.keep_edges(part, cutoff_angstrom, counts)
            columns.append(counts.astype(np.int64))
        return self._gathered(columns)


def from_structures(structures: Iterable[LabelledStructure], provenance: dict[str, Any] | None = None) -> Dataset:
    """A dataset in memory.

    Raises
    ------
    InputError
        no structures, or one that cannot be trained on.
    """
    writer = TableWriter()
    for item in structures:
        _append(writer, item)
    return _whole(_in_memory(writer, provenance or {}))


def _append(writer: TableWriter, item: LabelledStructure) -> None:
    broken = fault(item, Limits(max_force_ev_per_angstrom=np.inf))
    if broken is not None:
        raise InputError(f"structure {writer.count}: {BadRecord(item.atoms.get_chemical_formula(), *broken)}")
    writer.append(item)


def _in_memory(writer: TableWriter, provenance: dict[str, Any]) -> Tables:
    if not writer.count:
        raise InputError("no structures; a dataset needs at least one")
    return assembled(writer.close(), writer.group_names, writer.material_names, provenance)


def _whole(part: Tables) -> Dataset:
    n = len(part)
    return Dataset([part], np.zeros(n, np.uint8), np.arange(n, dtype=np.uint32), part.provenance)


def open_dataset(folder: Path | str) -> Dataset:
    """The dataset of a folder; records are read when asked for, never all of them.

    Raises
    ------
    InputError
        no dataset there, or a broken one.
    """
    return _whole(folders.open_tables(Path(folder)))


def write_dataset(
    folder: Path | str,
    structures: Iterable[LabelledStructure | BadRecord],
    *,
    provenance: dict[str, Any] | None = None,
    limits: Limits | None = None,
    on_bad: OnBad = "skip",
    inspect: Callable[[Dataset], dict[str, Any]] | None = None,
) -> Dataset:
    """Write a dataset, structure by structure, and open it. It is there as a whole or not at all.

    Parameters
    ----------
    folder
        must not exist.
    structures
        any number of them; bad records among them are counted and listed in the index.
    provenance
        where they come from, for the index.
    limits
        what a structure must keep to; without, any force is allowed.
    on_bad
        whether bad records are left out or end the writing.
    inspect
        sees the complete dataset before it gets its name; what it returns goes into the index, and what it raises
        ends the writing.

    Raises
    ------
    InputError
        the folder exists, no structure is good, or a bad one where those are fatal.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists; give another folder, or remove it")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    rejected = Rejected(on_bad)
    writer = TableWriter(temporary)
    try:
        limits = limits or Limits(max_force_ev_per_angstrom=np.inf)
        for item in rejected.keep(screened(structures, str(folder), limits)):
            writer.append(item)
        writer.close()
        names = (writer.group_names, writer.material_names)
        dataset = _whole(folders.read_tables(temporary, writer.count, *names, provenance or {}))
        index = _index(dataset, rejected) | (inspect(dataset) if inspect else {})
        folders.write_index(temporary, index, writer.material_names)
        os.rename(temporary, folder)
    except BaseException:  # an interrupt too leaves nothing behind
        writer.abandon()
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return open_dataset(folder)


def _index(dataset: Dataset, rejected: Rejected) -> dict[str, Any]:
    return {
        "key": dataset.key,
        "records": len(dataset),
        "atoms": int(dataset.n_atoms.sum()),
        "group_names": list(dataset.group_names),
        "group_records": np.bincount(dataset.group, minlength=len(dataset.group_names)).tolist(),
        "materials": len(dataset.material_names),
        "statistics": fit_statistics(dataset).document(),
        "rejected": rejected.document(),
        "provenance": dataset.provenance,
    }


def subset(dataset: Dataset, indices: Sequence[int] | np.ndarray) -> Dataset:
    """The records of `indices` in their order, as a view.

    Raises
    ------
    InputError
        no index, or one that is out of range.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    if chosen.ndim != 1 or not len(chosen) or chosen.min() < 0 or chosen.max() >= len(dataset):
        bounds = f"{chosen.min()} to {chosen.max()}" if chosen.size else "none"
        raise InputError(f"a subset needs indices from 0 to {len(dataset) - 1}, got {bounds}")
    provenance = {"records": len(chosen), "of": {"records": len(dataset), "provenance": dataset.provenance}}
    return Dataset(dataset._parts, dataset._part[chosen], dataset._row[chosen], provenance)


def mixture(parts: Sequence[tuple[Dataset, int]]) -> Dataset:
    """Several datasets as one, each as often as said, as a view: first all of the first.

    Raises
    ------
    InputError
        none, a repeat below one, or more than 256 different ones.
    """
    if not parts or any(repeats < 1 for _, repeats in parts):
        raise InputError(f"a mixture needs datasets, each at least once; got repeats {[n for _, n in parts]}")
    tables = list({id(table): table for dataset, _ in parts for table in dataset._parts}.values())
    if len(tables) > 256:
        raise InputError(f"a mixture of {len(tables)} datasets; at most 256: import some of them together")
    number = {id(table): index for index, table in enumerate(tables)}
    part, row = [], []
    for dataset, repeats in parts:
        renumbered = np.array([number[id(table)] for table in dataset._parts], np.uint8)[dataset._part]
        part += [renumbered] * repeats
        row += [dataset._row] * repeats
    provenance = {
        "mixture": [
            {"repeats": repeats, "records": len(dataset), "key": dataset.key, "provenance": dataset.provenance}
            for dataset, repeats in parts
        ]
    }
    return Dataset(tables, np.concatenate(part), np.concatenate(row), provenance)


def verify(dataset: Dataset, key: str, progress: Progress | None = None) -> None:
    """Read every record and compare it with its digest, and all of them with the key of the dataset.

    Raises
    ------
    InputError
        a record has changed since it was written.
    """
    for index, item in enumerate(dataset):
        if (digest_of(*rows_of(item), item.group, item.material) != dataset.digests[index]).any():
            raise InputError(f"record {index} is not what was written; copy or import the dataset again")
        if progress is not None:
            progress(index + 1, len(dataset))
    if dataset.key != key:
        raise InputError(f"the records have key {dataset.key[:16]}..., the index says {key[:16]}...; import them again")


def read_dataset(path: Path | str, *, limits: Limits | None = None) -> Dataset:
    """The dataset at `path`, whatever it is: a folder that `write_dataset` made, or a source file, read into memory.

    Raises
    ------
    InputError
        nothing there, no known format, or a record that cannot be trained on; `esen-flows data import` can
        leave such records out and keeps the rest in a folder.
    """
    path = Path(path)
    if folders.is_dataset_folder(path):
        return open_dataset(path)
    from esen_flows.data.sources.read import read_source, source_provenance

    records = screened(read_source(path), str(path), limits)
    return from_structures(Rejected("fail").keep(records), source_provenance(path))

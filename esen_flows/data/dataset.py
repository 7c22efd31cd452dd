"""Datasets: labelled structures of one or several tables, and views of them; one class for all."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np

from esen_flows.data.edge_counts import count_edges, known_edges
from esen_flows.data.labelled import LabelledStructure, without_meaningless_stress
from esen_flows.data.screening import ANY_FORCE, BadRecord, fault
from esen_flows.data.tables import Rows, Tables, TableWriter, key_of, species_of, structure_at
from esen_flows.errors import InputError

Progress = Callable[[int, int], None]
MOST_TABLES = 256  # a record's table is a uint8


@dataclass(frozen=True)
class RecordBlock:
    """Consecutive records of one table, each with a weight, for sums over a dataset.

    A column is read from its file when it is first used.

    Attributes
    ----------
    tables
        The tables that hold the records.
    first
        Row of the first record.
    weight
        (n,) how often each record counts; 0 for records that are outside of a view.
    """

    tables: Tables
    first: int
    weight: np.ndarray

    @property
    def _offsets(self) -> np.ndarray:
        return self.tables.offsets[self.first : self.first + len(self.weight) + 1]

    def _of_atoms(self, rows: Rows) -> np.ndarray:
        return rows[int(self._offsets[0]) : int(self._offsets[-1])]

    @cached_property
    def n_atoms(self) -> np.ndarray:
        """(n,) number of atoms."""
        return np.diff(self._offsets)

    @cached_property
    def numbers(self) -> np.ndarray:
        """(atoms,) atomic numbers."""
        return self._of_atoms(self.tables.numbers)

    @cached_property
    def forces(self) -> np.ndarray:
        """(atoms, 3) forces in eV/Angstrom."""
        return self._of_atoms(self.tables.atoms)["force"]

    @cached_property
    def _records(self) -> np.ndarray:
        return self.tables.records[self.first : self.first + len(self.weight)]

    @property
    def energy(self) -> np.ndarray:
        """(n,) energy in eV."""
        return self._records["energy"]

    @property
    def stress(self) -> np.ndarray:
        """(n, 3, 3) stress in eV/Angstrom^3, NaN where there is none."""
        return self._records["stress"]


class Dataset:
    """Labelled structures by index: records of one or several tables, in any order, each any number of times.

    Datasets are made by `from_structures`, `subset` and `mixture`, by `folders.write_dataset` and
    `folders.open_dataset`, and by `importing.read_dataset`.

    Parameters
    ----------
    tables
        The tables, at most 256.
    table
        (n,) uint8 index of the table of each record.
    row
        (n,) uint32 row of each record in its table.
    provenance
        Where the records come from.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from esen_flows.data.labelled import LabelledStructure
    >>> water = molecule("H2O")
    >>> dataset = from_structures([LabelledStructure(water, -14.2, np.zeros((3, 3)), np.full((3, 3), np.nan))])
    >>> len(dataset), dataset[0].energy, dataset.n_atoms.tolist()
    (1, -14.2, [3])
    >>> len(mixture([(dataset, 8)]))
    8
    """

    def __init__(
        self, tables: Sequence[Tables], table: np.ndarray, row: np.ndarray, provenance: dict[str, Any]
    ) -> None:
        self._tables = tuple(tables)
        self._table = table
        self._row = row
        self.provenance = provenance

    @classmethod
    def of_tables(cls, tables: Tables) -> "Dataset":
        """All records of one table, in order.

        Parameters
        ----------
        tables
            The records.

        Returns
        -------
        Dataset
            The dataset, with the provenance of the table.
        """
        n = len(tables)
        return cls([tables], np.zeros(n, np.uint8), np.arange(n, dtype=np.uint32), tables.provenance)

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, index: int) -> LabelledStructure:
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of a dataset of {len(self)}")
        return structure_at(self._tables[self._table[index]], int(self._row[index]))

    def place(self, index: int) -> str:
        """Where a record is stored, for messages.

        Parameters
        ----------
        index
            Index of the record in this dataset or view.

        Returns
        -------
        str
            Number of the record in the folder or file that holds it.
        """
        tables = self._tables[self._table[index]]
        source = tables.folder or tables.provenance.get("name")
        return f"record {self._row[index]}" + (f" of {source}" if source else "")

    def __iter__(self) -> Iterator[LabelledStructure]:
        return (self[index] for index in range(len(self)))

    def _gathered(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Values of all records, from the values of all rows of every table."""
        if len(columns) == 1:
            return columns[0][self._row]
        values = np.empty((len(self), *columns[0].shape[1:]), columns[0].dtype)
        for number, column in enumerate(columns):
            chosen = self._table == number
            values[chosen] = column[self._row[chosen]]
        return values

    @cached_property
    def n_atoms(self) -> np.ndarray:
        """(n,) int64 number of atoms."""
        return self._gathered([tables.n_atoms.astype(np.int64) for tables in self._tables])

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups of all tables; a view keeps the names of the dataset that it is a view of."""
        return tuple(dict.fromkeys(name for tables in self._tables for name in tables.group_names))

    @cached_property
    def group(self) -> np.ndarray:
        """(n,) int64 index into `group_names`."""
        known = {name: index for index, name in enumerate(self.group_names)}
        return self._gathered([np.array([known[n] for n in t.group_names])[t.groups] for t in self._tables])

    @cached_property
    def material_names(self) -> tuple[str, ...]:
        """Names of the materials of all tables."""
        return tuple(dict.fromkeys(name for tables in self._tables for name in tables.material_names))

    @cached_property
    def material(self) -> np.ndarray:
        """(n,) int64 index into `material_names`; -1 for a record without a material."""
        known = {name: index for index, name in enumerate(self.material_names)}
        # The last entry is the one that an index of -1 takes.
        return self._gathered(
            [np.array([*(known[n] for n in t.material_names), -1])[t.materials] for t in self._tables]
        )

    @cached_property
    def digests(self) -> np.ndarray:
        """(n, 16) uint8 digest of the content of each record."""
        return self._gathered([tables.digests for tables in self._tables])

    @cached_property
    def key(self) -> str:
        """sha256 of the content, records in order: equal for equal content, however it is stored."""
        return key_of(self.digests)

    @cached_property
    def species(self) -> np.ndarray:
        """(n,) uint64 hash of the atomic numbers in their order: equal where these are equal."""
        return self._gathered([species_of(tables) for tables in self._tables])

    @cached_property
    def elements(self) -> frozenset[int]:
        """Atomic numbers that occur."""
        seen = np.zeros(256, dtype=bool)
        for block in self.blocks():
            seen[block.numbers[np.repeat(block.weight > 0, block.n_atoms)]] = True
        return frozenset(np.flatnonzero(seen).tolist())

    def blocks(self, records: int = 8192) -> Iterator[RecordBlock]:
        """All records in the order in which they are stored, for sums over a dataset of any size.

        Parameters
        ----------
        records
            Number of stored records in a block.

        Yields
        ------
        RecordBlock
            Records of one table, each once, with the number of its occurrences as weight.
        """
        for number, tables in enumerate(self._tables):
            weights = np.bincount(self._row[self._table == number], minlength=len(tables)).astype(np.float64)
            for first in range(0, len(tables), records):
                weight = weights[first : first + records]
                if weight.any():
                    yield RecordBlock(tables, first, weight)

    def edge_counts(self, cutoff_angstrom: float, progress: Progress | None = None) -> np.ndarray:
        """Directed edges of every record; once counted, they are kept beside the folder of the dataset.

        For a view, all records of the dataset that it is a view of are counted.

        Parameters
        ----------
        cutoff_angstrom
            Radius of the neighbour list in Angstrom.
        progress
            Called with the number of records done and the number of records to count.

        Returns
        -------
        np.ndarray
            (n,) int64, self-images included.

        Raises
        ------
        StructureError
            A record has a cell for which there is no neighbour list.
        """
        missing = [tables for tables in self._tables if known_edges(tables, cutoff_angstrom) is None]
        total, done = sum(map(len, missing)), count(1)

        def counted() -> None:
            if progress is not None:
                progress(next(done), total)

        for tables in missing:
            count_edges(tables, cutoff_angstrom, counted)
        return self._gathered([tables.edges[cutoff_angstrom].astype(np.int64) for tables in self._tables])


def from_structures(structures: Iterable[LabelledStructure], provenance: dict[str, Any] | None = None) -> Dataset:
    """A dataset in memory.

    Parameters
    ----------
    structures
        The records.
    provenance
        Where they come from.

    Returns
    -------
    Dataset
        The records, in order.

    Raises
    ------
    InputError
        There are no structures, or one of them cannot be trained on.
    """
    writer = TableWriter()
    for item in structures:
        broken = fault(item, ANY_FORCE)
        if broken is not None:
            raise InputError(f"structure {writer.count}: {BadRecord(item.atoms.get_chemical_formula(), *broken)}")
        writer.append(without_meaningless_stress(item))
    if not writer.count:
        raise InputError("no structures; a dataset needs at least one")
    return Dataset.of_tables(Tables(**writer.close(), **writer.names, provenance=provenance or {}))


def subset(dataset: Dataset, indices: Sequence[int] | np.ndarray) -> Dataset:
    """Some records of a dataset, as a view.

    Parameters
    ----------
    dataset
        All records.
    indices
        (n,) indices of the chosen records, in any order; an index may occur several times.

    Returns
    -------
    Dataset
        The chosen records, in the order of the indices.

    Raises
    ------
    InputError
        There is no index, or one is out of range.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    if chosen.ndim != 1 or not len(chosen) or chosen.min() < 0 or chosen.max() >= len(dataset):
        bounds = f"{chosen.min()} to {chosen.max()}" if chosen.size else "none"
        raise InputError(f"a subset needs indices from 0 to {len(dataset) - 1}, got {bounds}")
    provenance = {"records": len(chosen), "of": {"records": len(dataset), "provenance": dataset.provenance}}
    return Dataset(dataset._tables, dataset._table[chosen], dataset._row[chosen], provenance)


def mixture(parts: Sequence[tuple[Dataset, int]]) -> Dataset:
    """Several datasets as one, each repeated, as a view.

    Parameters
    ----------
    parts
        Datasets with the number of times that their records occur.

    Returns
    -------
    Dataset
        All records of the first dataset as often as given, then those of the next.

    Raises
    ------
    InputError
        There is no dataset, a number is below one, or there are more than 256 different tables.
    """
    if not parts or any(repeats < 1 for _, repeats in parts):
        raise InputError(f"a mixture needs datasets, each at least once; got repeats {[n for _, n in parts]}")
    tables = list({id(table): table for dataset, _ in parts for table in dataset._tables}.values())
    if len(tables) > MOST_TABLES:
        raise InputError(
            f"a mixture of {len(tables)} datasets, at most {MOST_TABLES} are possible; import some of them together"
        )
    number = {id(table): index for index, table in enumerate(tables)}
    table, row = [], []
    for dataset, repeats in parts:
        renumbered = np.array([number[id(table)] for table in dataset._tables], np.uint8)[dataset._table]
        table += [renumbered] * repeats
        row += [dataset._row] * repeats
    provenance = {
        "mixture": [
            {"repeats": repeats, "records": len(dataset), "key": dataset.key, "provenance": dataset.provenance}
            for dataset, repeats in parts
        ]
    }
    return Dataset(tables, np.concatenate(table), np.concatenate(row), provenance)

"""From sources to a dataset: read, screen, check by strain, count edges."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from esen_flows.data.dataset import Dataset, Progress, from_structures
from esen_flows.data.folders import is_dataset_folder, open_dataset, write_dataset
from esen_flows.data.screening import Limits, ReadRecord, Rejected, screened
from esen_flows.data.sources.options import SourceOptions
from esen_flows.data.sources.read import read_source, source_provenance
from esen_flows.data.sources.vocabulary import OnBad, SourceFormat
from esen_flows.data.stress_check import check_labels_by_strain, require_right
from esen_flows.errors import InputError

LARGEST_CUTOFF_ANGSTROM = 30.0


def import_sources(
    sources: Sequence[Path],
    folder: Path,
    *,
    source_format: SourceFormat | None = None,
    options: SourceOptions | None = None,
    limits: Limits | None = None,
    on_bad: OnBad = "skip",
    check_strain: bool = True,
    cutoff_angstrom: float | None = None,
    on_record: Callable[[int], None] | None = None,
    on_edges: Progress | None = None,
) -> Dataset:
    """Write the records of sources to one dataset folder. The folder is written whole or not at all.

    Parameters
    ----------
    sources
        Files, or folders of files of one format.
    folder
        Folder to make; it must not exist.
    source_format, options
        Format of all sources (None detects it by their names), and names and units that they do not give themselves.
    limits, on_bad
        Limits that a record must keep, and whether bad records are left out or end the import.
    check_strain
        Whether labels that are clearly not derivatives of the energies end the import, or are only noted in the index.
    cutoff_angstrom
        Cutoff in Angstrom for which edges are counted now; None counts them when they are first needed.
    on_record
        Called with the number of records read so far.
    on_edges
        Called with the number of structures whose edges are counted and the number of all structures.

    Returns
    -------
    Dataset
        The dataset of the folder.

    Raises
    ------
    InputError
        A source cannot be read, no record is good, the folder exists, or the labels are wrong.
    """
    if folder.exists():  # refused before hours of reading
        raise InputError(f"{folder} exists; give another --output, or remove it")
    if cutoff_angstrom is not None and not 0.0 < cutoff_angstrom <= LARGEST_CUTOFF_ANGSTROM:
        raise InputError(f"--cutoff must be above 0 and at most {LARGEST_CUTOFF_ANGSTROM:g}, got {cutoff_angstrom:g}")
    limits = limits or Limits()
    provenance = {
        "sources": [source_provenance(source, source_format, options) for source in sources],
        "limits": asdict(limits) | {"elements": sorted(limits.elements) if limits.elements else None},
    }
    each = (screened(read_source(source, source_format, options), str(source), limits) for source in sources)
    inspect = partial(_checked_by_strain, require=check_strain)
    records = _counted(chain.from_iterable(each), on_record)
    dataset = write_dataset(folder, records, provenance=provenance, on_bad=on_bad, inspect=inspect)
    if cutoff_angstrom is not None:
        dataset.edge_counts(cutoff_angstrom, on_edges)
    return dataset


def _counted(records: Iterable[ReadRecord], on_record: Callable[[int], None] | None) -> Iterator[ReadRecord]:
    for count, item in enumerate(records, 1):
        if on_record is not None:
            on_record(count)
        yield item


def _checked_by_strain(dataset: Dataset, require: bool) -> dict[str, Any]:
    """Outcome of the check by strain, for the index of a dataset."""
    slopes = check_labels_by_strain(dataset)
    if require:
        require_right(slopes)
    return {"check_by_strain": [slope.document() for slope in slopes]}


def read_dataset(path: Path | str, *, limits: Limits | None = None) -> Dataset:
    """The dataset of a folder that `write_dataset` made, or of a source file, which is read into memory.

    Parameters
    ----------
    path
        Dataset folder, source file, or folder of source files of one format.
    limits
        Limits that a record of a source must keep.

    Returns
    -------
    Dataset
        All records.

    Raises
    ------
    InputError
        There is nothing at the path, its format is not known, or a record cannot be trained on. `esen-flows data
        import` can leave such records out and keeps the others in a folder.
    """
    path = Path(path)
    if is_dataset_folder(path):
        return open_dataset(path)
    provenance, rejected = source_provenance(path), Rejected("fail")
    items = list(rejected.keep(screened(read_source(path), str(path), limits)))
    return from_structures(items, {**provenance, **({"remarks": dict(rejected.remarks)} if rejected.remarks else {})})

"""From sources to a dataset folder: read, screen, check by strain, count edges."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from esen_flows.data.dataset import Dataset, Progress, write_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.screening import BadRecord, Limits, screened
from esen_flows.data.sources.options import SourceOptions
from esen_flows.data.sources.read import read_source, source_provenance
from esen_flows.data.sources.vocabulary import OnBad, SourceFormat
from esen_flows.data.stress_check import check_labels_by_strain, require_right
from esen_flows.errors import InputError


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
    """Write the records of sources to one dataset folder; it is there as a whole or not at all.

    Parameters
    ----------
    sources
        files, or folders of files of one format.
    source_format, options
        of all of them; see `read_source`.
    limits, on_bad
        what a record must keep to, and whether one that does not ends the import.
    check_strain
        whether labels that are clearly no derivatives of the energies end it; they are checked in any case.
    cutoff_angstrom
        count edges for it now rather than when they are first needed.
    on_record
        called with the number of records read so far; on_edges : with structures counted and in all.

    Raises
    ------
    InputError
        a source that cannot be read, no good record, a folder that exists, wrong labels.
    """
    if folder.exists():  # before hours of reading
        raise InputError(f"{folder} exists; give another --output, or remove it")
    limits = limits or Limits()
    provenance = {
        "sources": [source_provenance(source, source_format, options) for source in sources],
        "limits": asdict(limits) | {"elements": sorted(limits.elements) if limits.elements else None},
    }

    def inspect(dataset: Dataset) -> dict[str, Any]:
        slopes = check_labels_by_strain(dataset)
        if check_strain:
            require_right(slopes)
        return {"check_by_strain": [slope.document() for slope in slopes]}

    records = _all_records(sources, source_format, options, limits, on_record)
    dataset = write_dataset(folder, records, provenance=provenance, on_bad=on_bad, inspect=inspect)
    if cutoff_angstrom is not None:
        dataset.edge_counts(cutoff_angstrom, on_edges)
    return dataset


def _all_records(
    sources: Sequence[Path],
    source_format: SourceFormat | None,
    options: SourceOptions | None,
    limits: Limits,
    on_record: Callable[[int], None] | None,
) -> Iterator[LabelledStructure | BadRecord]:
    count = 0
    for source in sources:
        for item in screened(read_source(source, source_format, options), str(source), limits):
            count += 1
            if on_record is not None:
                on_record(count)
            yield item

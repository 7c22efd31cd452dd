"""MatPES' JSON: one array of entries with structure, energy, forces and stress (https://matpes.ai)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from esen_flows.data.screening import BadRecord, ReadRecord
from esen_flows.data.sources.bounded_files import open_text
from esen_flows.data.sources.conventions import Convention, Labels, labelled
from esen_flows.data.sources.json_stream import JsonStream
from esen_flows.data.sources.mptrj import BROKEN_STRUCTURE, geometry
from esen_flows.data.sources.options import SourceOptions
from esen_flows.errors import InputError


def read_matpes(path: Path, options: SourceOptions, convention: Convention) -> Iterator[ReadRecord]:
    """Entries of the file, one after the other.

    The material is the one from whose trajectory an entry was drawn (`provenance.original_mp_id`), if that is given.

    Parameters
    ----------
    path
        The file.
    options
        Names and units in the place of the file's own.
    convention
        Units and signs of the labels.

    Yields
    ------
    LabelledStructure | BadRecord
        One entry for each entry.

    Raises
    ------
    InputError
        The file is not JSON, or JSON of another layout.
    """
    keys = [options.energy_key or "energy", options.forces_key or "forces", options.stress_key or "stress"]
    with open_text(path) as stream:
        for index, entry in enumerate(JsonStream(stream, path).items()):
            if not isinstance(entry, dict) or "structure" not in entry:
                raise InputError(f"{path}: entry {index} has no 'structure'; this is not MatPES' JSON")
            where = f"{entry.get('matpes_id', f'entry {index}')} of {path.name}"
            group, material = options.names(entry)
            try:
                structure = geometry(entry["structure"])
            except BROKEN_STRUCTURE as error:
                yield BadRecord(where, "unreadable", f"{type(error).__name__}: {error}")
                continue
            energy, forces, stress = (entry.get(key) for key in keys)
            labels = Labels(
                **structure, energy=energy, forces=forces, stress=stress, group=group,
                material=material or _origin(entry.get("provenance")),
            )  # fmt: skip
            yield labelled(where, labels, convention)


def _origin(provenance: Any) -> str:
    """The material that an entry was drawn from; "" where it is not said."""
    origin = provenance.get("original_mp_id") if isinstance(provenance, Mapping) else None
    return origin if isinstance(origin, str) else ""

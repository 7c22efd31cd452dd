"""Extended XYZ, frame by frame, and everything else that ASE reads with labels: vasprun.xml, OUTCAR, trajectories."""

import gzip
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import IO, Any

import ase.io
from ase import Atoms
from ase.io.extxyz import XYZError, read_xyz

from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.screening import BadRecord
from esen_flows.data.sources.conventions import Convention, Labels, labelled
from esen_flows.data.sources.options import SourceOptions
from esen_flows.errors import InputError


def open_text(path: Path) -> IO[str]:
    """A text file, decompressed if its name ends in .gz."""
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def read_extxyz(path: Path, options: SourceOptions) -> Iterator[LabelledStructure | BadRecord]:
    """Structures of an extended XYZ file; one that cannot be read does not end the file.

    Raises
    ------
    InputError
        a line that should be a number of atoms is none, so that what follows cannot be found.
    """
    convention = options.convention("extxyz")
    with open_text(path) as stream:
        for index, block in enumerate(extxyz_blocks(stream, path)):
            where = f"structure {index} of {path.name}"
            try:
                frame = next(read_xyz(StringIO(block), index=0))
            except (XYZError, ValueError, KeyError, IndexError, AssertionError, StopIteration) as error:
                yield BadRecord(where, "unreadable", str(error))
                continue
            yield record_of_frame(where, frame, options, convention)


def extxyz_blocks(stream: IO[str], path: Path) -> Iterator[str]:
    """The lines of each frame.

    Raises
    ------
    InputError
        a line that should be a number of atoms is none.
    """
    number = 0
    while header := stream.readline():
        number += 1
        if not header.strip():
            continue
        if not header.strip().isdigit():
            raise InputError(
                f"{path}, line {number}: expected a number of atoms, got {header.strip()[:60]!r}; is it extended XYZ?"
            )
        lines = [stream.readline() for _ in range(int(header) + 1)]
        number += len(lines)
        yield header + "".join(lines)


def read_with_ase(path: Path, options: SourceOptions) -> Iterator[LabelledStructure | BadRecord]:
    """Frames of any file that ASE knows.

    Raises
    ------
    InputError
        ASE cannot read it.
    """
    convention = options.convention("ase")
    try:
        for index, frame in enumerate(ase.io.iread(path, index=":", format=_ase_format(path))):
            yield record_of_frame(f"frame {index} of {path.name}", frame, options, convention)
    except Exception as error:  # readers of a hundred formats raise what they like
        raise InputError(
            f"ASE cannot read {path}: {type(error).__name__}: {error}; name its format: esen-flows data import --format"
        ) from error


def _ase_format(path: Path) -> str | None:
    """What ASE does not tell by itself: files of VASP with anything behind their names, such as numbers."""
    for start, name in (("vasprun.xml", "vasp-xml"), ("outcar", "vasp-out")):
        if path.name.lower().startswith(start):
            return name
    return None


def record_of_frame(
    where: str, frame: Atoms, options: SourceOptions, convention: Convention
) -> LabelledStructure | BadRecord:
    """The record of an Atoms object: ASE's own results, or what the options name in its info or arrays."""
    results = {} if frame.calc is None else dict(frame.calc.results)
    found: dict[str, Any] = {**frame.info, **frame.arrays, **results}
    group, material = options.names(frame.info)
    labels = Labels(
        numbers=frame.numbers,
        positions=frame.positions,
        cell=frame.cell.array,
        pbc=frame.pbc,
        energy=_label(found, results, "energy", options.energy_key),
        forces=_label(found, results, "forces", options.forces_key),
        stress=_label(found, results, "stress", options.stress_key),
        group=group,
        material=material,
        charge=frame.info.get("charge", 0),
        spin=frame.info.get("spin", 0),
    )
    return hinted(labelled(where, labels, convention), found)


def _label(found: dict[str, Any], results: dict[str, Any], name: str, key: str | None) -> Any:
    return results.get(name) if key is None else found.get(key)


def hinted(record: LabelledStructure | BadRecord, found: dict[str, Any]) -> LabelledStructure | BadRecord:
    """A missing label with what might be it, for the user to name."""
    if not isinstance(record, BadRecord) or not record.reason.startswith("no "):
        return record
    wanted = record.reason.removeprefix("no ").rstrip("s")
    similar = sorted(name for name in found if wanted in name.lower())
    hint = f"found {', '.join(similar)}: name it with --{record.reason.removeprefix('no ')}-key" if similar else ""
    return BadRecord(record.where, record.reason, hint)

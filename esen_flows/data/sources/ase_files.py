"""Extended XYZ, frame by frame, and everything else that ASE reads with labels: vasprun.xml, OUTCAR, trajectories."""

import gzip
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import ase.io
import numpy as np
from ase import Atoms
from ase.io.extxyz import XYZError, read_xyz

from esen_flows.data.screening import BadRecord, ReadRecord
from esen_flows.data.sources.conventions import Convention, Labels, labelled
from esen_flows.data.sources.options import SourceOptions
from esen_flows.errors import InputError

# Errors by which ASE's reader refuses a frame of extended XYZ.
UNREADABLE_FRAME = (XYZError, ValueError, KeyError, IndexError, AssertionError, StopIteration)


def open_text(path: Path) -> IO[str]:
    """Open a text file, which is decompressed if its name ends in .gz.

    Parameters
    ----------
    path
        File to read.

    Returns
    -------
    IO[str]
        The open file.
    """
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def read_extxyz(path: Path, options: SourceOptions, convention: Convention) -> Iterator[ReadRecord]:
    """Structures of an extended XYZ file.

    Parameters
    ----------
    path
        The file.
    options
        Names and units that the file does not give itself.
    convention
        Units and signs of the labels.

    Yields
    ------
    LabelledStructure | BadRecord
        One entry for each frame; the file is read on after a frame that cannot be read.

    Raises
    ------
    InputError
        There is no number of atoms where a frame should begin, so that the next frame cannot be found.
    """
    with open_text(path) as stream:
        for index, block in enumerate(extxyz_blocks(stream, path)):
            where = f"structure {index} of {path.name}"
            try:
                frame = first_frame(block)
            except UNREADABLE_FRAME as error:
                yield BadRecord(where, "unreadable", str(error))
                continue
            yield _record_of_frame(where, frame, options, convention)


def extxyz_blocks(stream: IO[str], path: Path) -> Iterator[str]:
    """The lines of each frame of an extended XYZ file.

    Parameters
    ----------
    stream
        The open file.
    path
        Its name for error messages.

    Yields
    ------
    str
        Lines of one frame.

    Raises
    ------
    InputError
        There is no number of atoms where a frame should begin.
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


def first_frame(block: str) -> Atoms:
    """The structure of the lines of one frame of extended XYZ.

    Parameters
    ----------
    block
        Lines of the frame.

    Returns
    -------
    Atoms
        The structure; one of the errors in UNREADABLE_FRAME is raised if ASE cannot read it.
    """
    return next(read_xyz(StringIO(block), index=0))


def read_with_ase(path: Path, options: SourceOptions, convention: Convention) -> Iterator[ReadRecord]:
    """Frames of any file that ASE reads.

    Parameters
    ----------
    path
        The file.
    options
        Names and units that the file does not give itself.
    convention
        Units and signs of the labels.

    Yields
    ------
    LabelledStructure | BadRecord
        One entry for each frame.

    Raises
    ------
    InputError
        ASE cannot read the file.
    """
    try:
        for index, frame in enumerate(ase.io.iread(path, index=":", format=_ase_format(path))):
            yield _record_of_frame(f"frame {index} of {path.name}", frame, options, convention)
    except Exception as error:  # readers of a hundred formats raise errors of any type
        raise InputError(
            f"ASE cannot read {path}: {type(error).__name__}: {error}; name its format: esen-flows data import --format"
        ) from error


def _ase_format(path: Path) -> str | None:
    """Format that ASE does not detect: files of VASP with anything behind their names, such as numbers."""
    for start, name in (("vasprun.xml", "vasp-xml"), ("outcar", "vasp-out")):
        if path.name.lower().startswith(start):
            return name
    return None


def _record_of_frame(where: str, frame: Atoms, options: SourceOptions, convention: Convention) -> ReadRecord:
    structure = {"numbers": frame.numbers, "positions": frame.positions, "cell": frame.cell.array, "pbc": frame.pbc}
    results = {} if frame.calc is None else frame.calc.results
    return record_of(where, structure, results, frame.info, options, convention, frame.arrays)


def record_of(
    where: str,
    structure: Mapping[str, Any],
    results: Mapping[str, Any],
    info: Mapping[str, Any],
    options: SourceOptions,
    convention: Convention,
    arrays: Mapping[str, Any] = MappingProxyType({}),
) -> ReadRecord:
    """A record of ASE: its results, or the labels that the options name.

    Parameters
    ----------
    where
        Place of the record, for a BadRecord.
    structure
        `numbers`, `positions`, `cell` and `pbc`.
    results
        Results of the calculator under ASE's names.
    info
        Further entries of the record: group, material, charge, spin, and labels under other names.
    options
        Names of group, material and labels.
    convention
        Units and signs of the labels.
    arrays
        Further entries of the atoms.

    Returns
    -------
    LabelledStructure | BadRecord
        The structure with its labels. For a missing label, a bad record with the entries that might be the label.
    """
    found = {**info, **arrays, **results}
    names = {"energy": options.energy_key, "forces": options.forces_key, "stress": options.stress_key}
    group, material = options.names(info)
    pbc = structure.get("pbc")
    labels = Labels(
        numbers=structure.get("numbers"),
        positions=structure.get("positions"),
        cell=structure.get("cell"),
        pbc=False if pbc is None else np.asarray(pbc, dtype=bool),
        **{label: found.get(key) if key else results.get(label) for label, key in names.items()},
        group=group,
        material=material,
        charge=info.get("charge", 0),
        spin=info.get("spin", 0),
    )
    record = labelled(where, labels, convention)
    if not isinstance(record, BadRecord) or not record.reason.startswith("no "):
        return record
    label = record.reason.removeprefix("no ")
    similar = ", ".join(sorted(name for name in found if label.rstrip("s") in name.lower()))
    return BadRecord(where, record.reason, f"found {similar}: name it with --{label}-key" if similar else "")

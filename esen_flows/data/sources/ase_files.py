"""Extended XYZ, frame by frame, and everything else that ASE reads with labels: vasprun.xml, OUTCAR, trajectories."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import StringIO
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import ase.io
import numpy as np
from ase import Atoms
from ase.io.extxyz import XYZError, read_xyz

from esen_flows.data.labelled import LabelledStructure, can_have_stress
from esen_flows.data.screening import BadRecord, ReadRecord
from esen_flows.data.sources.bounded_files import (
    BROKEN_STREAM,
    TruncatedFileError,
    largest_size,
    lines_of,
    open_binary,
    open_text,
)
from esen_flows.data.sources.conventions import Convention, Labels, labelled
from esen_flows.data.sources.options import SourceOptions
from esen_flows.data.sources.vasp import read_vasprun, unconverged_steps
from esen_flows.errors import InputError

# Errors by which ASE's reader refuses a frame of extended XYZ.
UNREADABLE_FRAME = (
    XYZError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, AssertionError, StopIteration,
    RecursionError,
)  # fmt: skip
UNCONVERGED = "the electronic loop did not converge"
_STRESS_NAME = re.compile("stress|virial", re.IGNORECASE)


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
    TruncatedFileError
        The file ends in a frame; those before it were given.
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
    TruncatedFileError
        The file ends in a frame.
    """
    number, lines = 0, lines_of(stream, path)
    for header in lines:
        number += 1
        if not header.strip():
            continue
        if not re.fullmatch(r"\s*[0-9]{1,9}\s*", header):
            raise InputError(
                f"{path}, line {number}: expected a number of atoms, got {header.strip()[:60]!r}; is it extended XYZ?"
            )
        block = list(islice(lines, int(header) + 1))
        if len(block) < int(header) + 1:
            raise TruncatedFileError(
                f"the frame at line {number} says {int(header)} atoms and has {max(0, len(block) - 1)} lines of them; "
                "the frames before it are kept"
            )
        number += len(block)
        yield header + "".join(block)


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
        One entry for each frame, and a bad record where the file cannot be read on.

    Raises
    ------
    InputError
        A compressed file becomes far larger than labels do.
    TruncatedFileError
        The file ends in the middle; the frames before are given.
    """
    index = 0
    try:
        for index, (frame, has_converged) in enumerate(_frames(path), start=1):
            where = f"frame {index - 1} of {path.name}"
            if not has_converged and not options.keep_unconverged:
                yield BadRecord(where, UNCONVERGED, "it had NELM steps; to keep such steps give --keep-unconverged")
                continue
            record = _record_of_frame(where, frame, options, convention)
            if not has_converged and not isinstance(record, BadRecord):
                record = replace(record, remarks=(*record.remarks, UNCONVERGED))
            yield record
    except (InputError, *BROKEN_STREAM):
        raise
    except Exception as error:  # readers of a hundred formats raise errors of any type
        reason = "ASE cannot read it" if not index else "ASE cannot read it on"
        yield BadRecord(str(path), reason, f"{type(error).__name__}: {error}; name its format: --format")


def _frames(path: Path) -> Iterator[tuple[Atoms, bool]]:
    """Frames of a file, each with whether its electronic loop converged."""
    name = path.name.lower()
    if name.startswith("vasprun.xml"):
        yield from read_vasprun(path)
        return
    _check_size(path)
    unconverged = unconverged_steps(path) if name.startswith("outcar") else set()
    frames = ase.io.iread(path, index=":", format="vasp-out" if name.startswith("outcar") else None)
    yield from ((frame, index not in unconverged) for index, frame in enumerate(frames))


def _check_size(path: Path) -> None:
    """Refuse a compressed file, which ASE decompresses itself, that becomes far larger than labels do."""
    gzip_reaches = 1032 * path.stat().st_size
    if path.suffix in (".bz2", ".xz") or (path.suffix == ".gz" and gzip_reaches > largest_size(path)):
        with open_binary(path) as stream:
            while stream.read(1 << 22):
                pass


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
        pbc=False if pbc is None else pbc,
        **{label: found.get(key) if key else results.get(label) for label, key in names.items()},
        group=group,
        material=material,
        charge=info.get("charge", 0),
        spin=info.get("spin", 0),
    )
    record = labelled(where, labels, convention)
    if not isinstance(record, BadRecord):
        if labels.stress is not None or not can_have_stress(record.atoms):
            return record
        return _check_stress(record, where, options.stress_key, {**info, **results})
    if not record.reason.startswith("no "):
        return record
    label = record.reason.removeprefix("no ")
    similar = ", ".join(sorted(name for name in found if label.rstrip("s") in name.lower()))
    return BadRecord(where, record.reason, f"found {similar}: name it with --{label}-key" if similar else "")


def _check_stress(record: LabelledStructure, where: str, key: str | None, found: Mapping[str, Any]) -> ReadRecord:
    """A record without a stress whose structure can have one: bad if an entry that is not named might be the stress."""
    if key == "none":
        return record
    similar = sorted(name for name, value in found.items() if _STRESS_NAME.search(name) and _is_tensor(value))
    if not similar:
        return record if key is None else replace(record, remarks=(*record.remarks, f"no stress named {key}"))
    unit = " (--stress-unit virial)" if any("virial" in name.lower() for name in similar) else ""
    advice = f"name it with --stress-key{unit}, or leave it out with --stress-key none"
    return BadRecord(where, "a stress under another name", f"found {', '.join(similar)}: {advice}")


def _is_tensor(value: Any) -> bool:
    """Whether an entry is six or nine numbers."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return array.size in (6, 9) and bool(np.isfinite(array).all())

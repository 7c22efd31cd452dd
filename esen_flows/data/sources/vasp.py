"""vasprun.xml and OUTCAR of VASP: finished ionic steps of a file that ends in the middle, and unconverged steps.

ASE reads the labels. It does not say whether the electronic loop of a step converged, and does not read a vasprun.xml
that a killed run has left.
"""

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import ase.io
from ase import Atoms

from esen_flows.data.sources.bounded_files import TruncatedFileError, open_text, read_bytes

_MOST_STEPS = re.compile(rb'name="NELM">\s*(\d+)')
_OF_OUTCAR = re.compile(r"^ *NELM *= *(\d+)|Iteration +(\d+)\( *(\d+)\)")
_END = b"</modeling>"


def read_vasprun(path: Path) -> Iterator[tuple[Atoms, bool]]:
    """Ionic steps of a vasprun.xml, each with whether its electronic loop converged.

    Parameters
    ----------
    path
        The file, which may be compressed.

    Yields
    ------
    tuple[Atoms, bool]
        The step with its labels, and False if its loop had as many steps as it may have (NELM).

    Raises
    ------
    TruncatedFileError
        The file ends in the middle; the steps whose labels are complete were given before.
    """
    text, _ = read_bytes(path)
    head, *steps = text.split(b"<calculation>")
    is_whole = _END in text[-1000:]
    if not is_whole:
        steps = [whole for whole in map(_whole, steps) if whole is not None]
        text = b"<calculation>".join([head, *steps]) + _END
    found = _MOST_STEPS.search(head)
    most = int(found[1]) if found else None
    if steps:
        frames = ase.io.iread(BytesIO(text), index=":", format="vasp-xml")
        for frame, step in zip(frames, steps, strict=True):
            yield frame, most is None or step.count(b"<scstep>") < most
    if not is_whole:
        raise TruncatedFileError(f"{len(steps)} finished ionic steps are kept; let VASP finish, or remove the file")


def _whole(step: bytes) -> bytes | None:
    """An ionic step with its end, which is added where only eigenvalues are missing; None if labels are missing."""
    if b"</calculation>" in step:
        return step
    # The energy of the step comes after its structure, forces and stress, and those of electronic steps before them.
    _, separator, rest = step.rpartition(b"</scstep>")
    labels, energy, _ = rest.partition(b"</energy>")
    is_complete = separator and energy and b'name="forces"' in labels
    return step[: len(step) - len(rest)] + labels + energy + b"</calculation>" if is_complete else None


def unconverged_steps(path: Path) -> set[int]:
    """Ionic steps of an OUTCAR whose electronic loop had as many steps as it may have (NELM).

    Parameters
    ----------
    path
        The file, which may be compressed.

    Returns
    -------
    set[int]
        Numbers of the steps, from 0.
    """
    most, last = None, {}
    with open_text(path, errors="replace") as stream:
        for line in stream:
            if found := _OF_OUTCAR.search(line):
                if found[1]:
                    most = most or int(found[1])
                else:
                    last[int(found[2])] = int(found[3])
    return {step - 1 for step, electronic in last.items() if most is not None and electronic >= most}

"""The Materials Project trajectories as CHGNet's authors publish them: one JSON file of 12 GB, read entry by entry.

Its layout is {material id: {frame id: {structure, uncorrected_total_energy, corrected_total_energy, force, stress,
...}}}. Structures are pymatgen's dictionaries (https://doi.org/10.6084/m9.figshare.23713842).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from esen_flows.data.screening import BadRecord, ReadRecord
from esen_flows.data.sources.bounded_files import open_text
from esen_flows.data.sources.conventions import Convention, Labels, labelled
from esen_flows.data.sources.json_stream import JsonStream
from esen_flows.data.sources.options import SourceOptions
from esen_flows.errors import InputError

# The raw energy: the forces are its derivatives, and the leaderboard's reference energies are corrected from it.
ENERGY_KEY = "uncorrected_total_energy"
BROKEN_STRUCTURE = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)


def read_mptrj(path: Path, options: SourceOptions, convention: Convention) -> Iterator[ReadRecord]:
    """Frames of the file, each with its material; the size of the file does not matter.

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
        One entry for each frame.

    Raises
    ------
    InputError
        The file is not JSON, or JSON of another layout.
    """
    keys = [options.energy_key or ENERGY_KEY, options.forces_key or "force", options.stress_key or "stress"]
    with open_text(path) as stream:
        text = JsonStream(stream, path)
        for material in text.members():
            for frame in text.members():
                entry = text.value()
                if not isinstance(entry, dict) or "structure" not in entry:
                    raise InputError(
                        f"{path}: the entry {material}/{frame} has no 'structure'; this is not MPtrj's JSON "
                        "(an ASE database in JSON: give --format ase-db)"
                    )
                where = f"{frame} of {material} in {path.name}"
                group, _ = options.names(entry)
                try:
                    structure = geometry(entry["structure"])
                except BROKEN_STRUCTURE as error:
                    yield BadRecord(where, "unreadable", f"{type(error).__name__}: {error}")
                    continue
                energy, forces, stress = (entry.get(key) for key in keys)
                labels = Labels(
                    **structure, energy=energy, forces=forces, stress=stress, group=group, material=material
                )
                yield labelled(where, labels, convention)


def geometry(structure: dict[str, Any]) -> dict[str, Any]:
    """Numbers, positions, cell, periodicity and charge of a pymatgen dictionary.

    Parameters
    ----------
    structure
        `Structure.as_dict()`.

    Returns
    -------
    dict[str, Any]
        Fields of `Labels`; one of the errors in BROKEN_STRUCTURE is raised for a dictionary of another shape.
    """
    cell = np.array(structure["lattice"]["matrix"], dtype=np.float64)
    numbers, fractions = [], []
    for site in structure["sites"]:
        (species,) = site["species"]  # a mixed site has several
        if species["occu"] != 1:
            raise ValueError(f"a site is occupied to {species['occu']}")
        numbers.append(atomic_numbers[species["element"]])
        fractions.append(site["abc"])
    positions = np.array(fractions, dtype=np.float64).reshape(-1, 3) @ cell
    charge, pbc = structure.get("charge") or 0, structure["lattice"].get("pbc", True)
    return {"numbers": numbers, "positions": positions, "cell": cell, "pbc": pbc, "charge": charge}

"""SPICE's HDF5 files: a group for each molecule, with its conformations (https://github.com/openmm/spice-dataset)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from esen_flows.data.screening import BadRecord, ReadRecord
from esen_flows.data.sources.conventions import Convention, Labels, labelled
from esen_flows.data.sources.options import SourceOptions
from esen_flows.errors import InputError

ENERGY_KEY = "dft_total_energy"
FORCES_KEY = "dft_total_gradient"
# Formal charges are in a bracket atom, after the element and the hydrogens: [N+:3], [O-], [Mg+2], [Ca++].
_CHARGE = re.compile(r"\[[^\]:]*?(\++|-+)(\d*)(?::\d+)?\]")


def read_spice(path: Path, options: SourceOptions, convention: Convention) -> Iterator[ReadRecord]:
    """Conformations of all molecules; the material is the molecule, the group its subset.

    The total charge is the sum of the formal charges of the SMILES.

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
        One entry for each conformation, and a bad record for each molecule without labels.

    Raises
    ------
    InputError
        The file is not an HDF5 file or has other units than SPICE's, or the library `h5py` is missing.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path.name} needs the library h5py; pip install 'esen_flows[datasets]'") from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is not a readable HDF5 file: {error}") from error
    with file:
        for name, molecule in file.items():
            if not isinstance(molecule, h5py.Group):
                raise InputError(f"{path}: {name} is not a group; SPICE's files have a group for every molecule")
            yield from _conformations(f"{name} of {path.name}", name, molecule, options, convention)


def _conformations(
    where: str, name: str, molecule: Any, options: SourceOptions, convention: Convention
) -> Iterator[ReadRecord]:
    force_unit = f"{convention.energy}/{convention.length}"
    energy_key, forces_key = options.energy_key or ENERGY_KEY, options.forces_key or FORCES_KEY
    units = {"conformations": convention.length, energy_key: convention.energy, forces_key: force_unit}
    missing = [key for key in ("atomic_numbers", *units) if key not in molecule]
    if missing:
        yield BadRecord(where, f"no {missing[0]}", f"found {', '.join(molecule)}")
        return
    for key, unit in units.items():
        found = _text(molecule[key].attrs.get("units", unit))
        if found != unit:
            raise InputError(f"{where}: {key} is in {found}, expected {unit}; this is not one of SPICE's files")
    group = _text(molecule["subset"][0]) if "subset" in molecule else options.group
    charge = formal_charge(_text(molecule["smiles"][0])) if "smiles" in molecule else 0
    numbers = molecule["atomic_numbers"][:]
    columns = (molecule[key][:] for key in units)
    for index, (positions, energy, gradient) in enumerate(zip(*columns, strict=True)):
        labels = Labels(numbers, positions, energy, gradient, group=group, material=name, charge=charge)
        yield labelled(f"conformation {index} of {where}", labels, convention)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def formal_charge(smiles: str) -> int:
    """Sum of the formal charges of a SMILES string.

    Parameters
    ----------
    smiles
        The SMILES string.

    Returns
    -------
    int
        Total charge in elementary charges.
    """
    total = 0
    for signs, digits in _CHARGE.findall(smiles):
        size = int(digits) if digits else len(signs)
        total += size if signs[0] == "+" else -size
    return total

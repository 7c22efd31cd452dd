"""SPICE's HDF5 files: a group for each molecule, with its conformations (https://github.com/openmm/spice-dataset)."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from esen_flows.data.screening import BadRecord, ReadRecord
from esen_flows.data.sources.conventions import Convention, Labels, labelled
from esen_flows.data.sources.options import SourceOptions
from esen_flows.errors import InputError

ENERGY_KEY = "dft_total_energy"
FORCES_KEY = "dft_total_gradient"
# Errors by which h5py refuses what it finds.
DAMAGED = (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError, MemoryError)
MOST_NUMBERS, LONGEST_SMILES = 300_000_000, 20_000
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
        for name in _molecules(file, path):
            where = f"{name} of {path.name}"
            try:
                yield from _conformations(where, name, file[name], options, convention)
            except InputError:
                raise
            except DAMAGED as error:
                yield BadRecord(where, "unreadable", f"{type(error).__name__}: {error}")


def _molecules(file: Any, path: Path) -> list[str]:
    """Names of the groups of a file. A link to another file is none of its molecules, and is not followed."""
    import h5py

    names = []
    try:
        for name in file:
            is_own = isinstance(file.get(name, getlink=True), h5py.HardLink)
            if not is_own or file.get(name, getclass=True) is not h5py.Group:
                raise InputError(f"{path}: {name} is not a group; SPICE's files have a group for every molecule")
            names.append(name)
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{path} is damaged: {error}; download it again") from error
    return names


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
    if broken := _broken_array(molecule, ("atomic_numbers", *units)):
        yield BadRecord(where, "unreadable", broken)
        return
    for key, unit in units.items():
        found = _text(molecule[key].attrs.get("units", unit))
        if found != unit:
            raise InputError(f"{where}: {key} is in {found}, expected {unit}; this is not one of SPICE's files")
    group = _text(molecule["subset"][0]) if "subset" in molecule else options.group
    smiles = _text(molecule["smiles"][0]) if "smiles" in molecule else ""
    if len(smiles) > LONGEST_SMILES:
        yield BadRecord(where, "unreadable", f"its SMILES string has {len(smiles)} characters")
        return
    charge = formal_charge(smiles)
    numbers = molecule["atomic_numbers"][:]
    columns = (molecule[key][:] for key in units)
    for index, (positions, energy, gradient) in enumerate(zip(*columns, strict=True)):
        labels = Labels(numbers, positions, energy, gradient, group=group, material=name, charge=charge)
        yield labelled(f"conformation {index} of {where}", labels, convention)


def _broken_array(molecule: Any, keys: Sequence[str]) -> str:
    """What is wrong with the arrays of a molecule, before any of them is read; "" for nothing."""
    lengths = set()
    for key in keys:
        array = molecule[key]
        shape = getattr(array, "shape", None)
        if not shape or array.dtype.kind not in "fiu":
            return f"{key} is not an array of numbers"
        if getattr(array, "external", None) or getattr(array, "is_virtual", False):
            return f"{key} is kept in another file"
        if array.size > MOST_NUMBERS:
            return f"{key} has shape {shape}, more than {MOST_NUMBERS} numbers"
        if key != "atomic_numbers":
            lengths.add(shape[0])
    return f"its arrays have {sorted(lengths)} conformations" if len(lengths) > 1 else ""


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


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

"""Structures for files of other programs: what a format carries of isotopes and fixed atoms; what it loses is said.

Extended XYZ carries all: masses, `move_mask`, and a column of our own for components along lattice vectors.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Literal

import numpy as np
from ase import Atoms
from ase.io import write
from ase.io.extxyz import write_extxyz

from esen_flows.schemas.atom_properties import HYDROGEN_ISOTOPES, AtomProperties, properties_of
from esen_flows.structures.reader_warnings import say

FIXED_FRACTIONAL = "fixed_fractional"  # column of extended XYZ


def write_frames(out: Path | IO[str], frames: Iterable[Atoms]) -> None:
    """Write structures as extended XYZ, with everything that enters their keys except charge and spin in `info`.

    Parameters
    ----------
    out
        File or open stream.
    frames
        The structures.
    """
    write_extxyz(out, [_with_columns(atoms) for atoms in frames])


def write_crystal(path: Path, atoms: Atoms, format: Literal["cif", "vasp"], name: str) -> None:
    """Write a structure as CIF, in which deuterium and tritium are D and T, or POSCAR, with its selective dynamics.

    Parameters
    ----------
    path
        File to write.
    atoms
        The structure.
    format
        The format.
    name
        Name of the file for warnings, where `path` is a temporary one.

    Raises
    ------
    StructureError
        A constraint does not fix components of single atoms.
    """
    properties = properties_of(atoms)
    bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    lost = []
    if format == "cif":
        lost = ["fixed atoms"] if properties.is_constrained else []
    elif properties.is_constrained:
        lost = ["fixed Cartesian components"] if _partly(properties.fixed_cartesian) else []
        AtomProperties(
            fixed_cartesian=_whole(properties.fixed_cartesian), fixed_fractional=properties.fixed_fractional
        ).attach(bare)
    isotopes = _isotopes(properties.masses_u, atoms.numbers) if format == "cif" else {}
    if properties.masses_u is not None and np.count_nonzero(properties.masses_u) > len(isotopes):
        lost.append("masses")
    if format == "cif":
        write(path, bare, format="cif")
        if isotopes:
            _name_isotopes(path, isotopes)
    else:
        write(path, bare, format="vasp")
    say(Path(name), [f"the format does not carry {' and '.join(lost)}; extended XYZ does"] if lost else [])


def with_fixed_columns(atoms: Atoms) -> Atoms:
    """A structure read from extended XYZ, with the fixed components of its column `fixed_fractional`.

    Parameters
    ----------
    atoms
        The structure; it is changed.

    Returns
    -------
    Atoms
        The same structure.

    Raises
    ------
    StructureError
        A constraint does not fix components of single atoms.
    """
    if atoms.has(FIXED_FRACTIONAL):
        column = np.asarray(atoms.arrays.pop(FIXED_FRACTIONAL), dtype=bool).reshape(len(atoms), 3)
        known = properties_of(atoms)
        AtomProperties(known.masses_u, known.fixed_cartesian, column).attach(atoms)
    return atoms


def _with_columns(atoms: Atoms) -> Atoms:
    properties = properties_of(atoms)
    if properties.fixed_fractional is None:
        return atoms
    result = atoms.copy()
    result.info, result.calc = atoms.info, atoms.calc
    result.set_constraint()
    AtomProperties(fixed_cartesian=properties.fixed_cartesian).attach(result)
    result.set_array(FIXED_FRACTIONAL, properties.fixed_fractional)
    return result


def _partly(fixed: np.ndarray | None) -> bool:
    return fixed is not None and bool((fixed.any(axis=1) & ~fixed.all(axis=1)).any())


def _whole(fixed: np.ndarray | None) -> np.ndarray | None:
    """Rows of atoms that are fixed altogether."""
    return None if fixed is None else fixed & fixed.all(axis=1, keepdims=True)


def _isotopes(masses_u: np.ndarray | None, numbers: np.ndarray) -> dict[int, str]:
    """Symbols D and T of the atoms with exactly their masses, by index."""
    if masses_u is None:
        return {}
    symbols = {mass: symbol for symbol, mass in HYDROGEN_ISOTOPES.items()}
    pairs = enumerate(zip(masses_u.tolist(), numbers.tolist(), strict=True))
    return {index: symbols[mass] for index, (mass, number) in pairs if number == 1 and mass in symbols}


def _name_isotopes(path: Path, isotopes: dict[int, str]) -> None:
    """Replace the type symbols of atoms in a CIF of ASE, whose rows of atoms begin with the symbol and a label."""
    lines = path.read_text(encoding="utf-8").splitlines()
    begin = next(row for row, line in enumerate(lines) if line.strip() == "_atom_site_occupancy") + 1
    for index, symbol in isotopes.items():
        lines[begin + index] = re.sub(r"^(\s*)H\s+H(\d+)", rf"\1{symbol}  {symbol}\2", lines[begin + index])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

"""Formula, chemical system and space group of a structure. Every document repeats them, so that no query has to join.

pymatgen has functions for all of this, but its import takes longer than the answer to a stored request may take.
"""

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from math import gcd
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.formula import Formula

from esen_flows.errors import InputError

# Pauling scale with the values that pymatgen fills in, so that formulas read the same. Elements that are not in the
# list form no known bonds, and come last.
_ELECTRONEGATIVITY_TABLE = """
H:2.2 Li:0.98 Be:1.57 B:2.04 C:2.55 N:3.04 O:3.44 F:3.98 Na:0.93 Mg:1.31 Al:1.61 Si:1.9 P:2.19 S:2.58 Cl:3.16
K:0.82 Ca:1 Sc:1.36 Ti:1.54 V:1.63 Cr:1.66 Mn:1.55 Fe:1.83 Co:1.88 Ni:1.91 Cu:1.9 Zn:1.65 Ga:1.81 Ge:2.01
As:2.18 Se:2.55 Br:2.96 Kr:3 Rb:0.82 Sr:0.95 Y:1.22 Zr:1.33 Nb:1.6 Mo:2.16 Tc:1.9 Ru:2.2 Rh:2.28 Pd:2.2 Ag:1.93
Cd:1.69 In:1.78 Sn:1.96 Sb:2.05 Te:2.1 I:2.66 Xe:2.6 Cs:0.79 Ba:0.89 La:1.1 Ce:1.12 Pr:1.13 Nd:1.14 Pm:1.13
Sm:1.17 Eu:1.2 Gd:1.2 Tb:1.1 Dy:1.22 Ho:1.23 Er:1.24 Tm:1.25 Yb:1.1 Lu:1.27 Hf:1.3 Ta:1.5 W:2.36 Re:1.9 Os:2.2
Ir:2.2 Pt:2.28 Au:2.54 Hg:2 Tl:1.62 Pb:2.33 Bi:2.02 Po:2 At:2.2 Rn:2.2 Fr:0.7 Ra:0.9 Ac:1.1 Th:1.3 Pa:1.5 U:1.38
Np:1.36 Pu:1.28 Am:1.3 Cm:1.3 Bk:1.3 Cf:1.3 Es:1.3 Fm:1.3 Md:1.3 No:1.3 Lr:1.3
"""
ELECTRONEGATIVITY = {
    symbol: float(value) for symbol, value in (entry.split(":") for entry in _ELECTRONEGATIVITY_TABLE.split())
}
_SYMBOLS = frozenset(chemical_symbols[1:])
# ASE reads more than this: numbers in front, sums of formulas.
_FORMULA = re.compile(r"[A-Z(][A-Za-z0-9()]*")


def identify(atoms: Atoms, symprec_angstrom: float = 0.01) -> dict[str, Any]:
    """Formula, chemical system and space group of a structure, as the fields of a ResultDocument.

    Parameters
    ----------
    atoms
        The structure.
    symprec_angstrom
        Tolerance of spglib in Angstrom.

    Returns
    -------
    dict[str, Any]
        `formula` (reduced), `chemsys` ("As-Ga"), `elements` (sorted), `nsites`, and `space_group_number` and
        `space_group_symbol`, which are None for a structure that is not periodic in three directions or for which
        spglib finds no group.

    Examples
    --------
    >>> from ase.build import bulk
    >>> found = identify(bulk("GaAs", "zincblende", 5.65, cubic=True))
    >>> found["formula"], found["chemsys"], found["space_group_symbol"]
    ('GaAs', 'As-Ga', 'F-43m')
    """
    symbols = atoms.get_chemical_symbols()
    symmetry = symmetry_dataset(atoms, symprec_angstrom)
    elements = sorted(set(symbols))
    return {
        "formula": reduced_formula(Counter(symbols)),
        "chemsys": "-".join(elements),
        "elements": elements,
        "nsites": len(symbols),
        "space_group_number": None if symmetry is None else int(symmetry.number),
        "space_group_symbol": None if symmetry is None else str(symmetry.international),
    }


def identify_dataset(elements: Sequence[str]) -> dict[str, Any]:
    """The fields of `identify` that a result about many structures has: the elements, and no formula.

    Parameters
    ----------
    elements
        Symbols of all elements, in alphabetical order.

    Returns
    -------
    dict[str, Any]
        `elements`; a ResultDocument has None for the others.
    """
    return {"elements": list(elements)}


def reduced_formula(counts: Mapping[str, int]) -> str:
    """Reduced formula, electropositive elements first: {"As": 4, "Ga": 4} is "GaAs".

    Parameters
    ----------
    counts
        Number of atoms of each element.

    Returns
    -------
    str
        The formula; "" without atoms.
    """
    if not counts:
        return ""
    divisor = gcd(*counts.values())
    symbols = sorted(counts, key=lambda symbol: (ELECTRONEGATIVITY.get(symbol, float("inf")), symbol))
    return "".join(f"{symbol}{counts[symbol] // divisor if counts[symbol] != divisor else ''}" for symbol in symbols)


def canonical_formula(text: str) -> str:
    """The reduced formula as it is stored, from a formula in any order: "AsGa", "Ga2As2", "Ca3(PO4)2".

    Parameters
    ----------
    text
        A formula; groups in parentheses are allowed.

    Returns
    -------
    str
        The formula as `reduced_formula` writes it.

    Raises
    ------
    InputError
        The text is not a chemical formula.
    """
    counts: dict[str, int] = {}
    if _FORMULA.fullmatch(text):
        with suppress(ValueError):  # an unknown element, or a parenthesis without its partner
            counts = Formula(text, strict=True).count()
    if not counts or not all(counts.values()):
        raise InputError(f"not a chemical formula: {text!r}; write element symbols and integers, such as SiO2")
    return reduced_formula(counts)


def canonical_chemsys(text: str) -> str:
    """The chemical system as it is stored, its elements sorted: "Ga-As" is "As-Ga".

    Parameters
    ----------
    text
        Element symbols with hyphens between them.

    Returns
    -------
    str
        The sorted symbols with hyphens between them.

    Raises
    ------
    InputError
        A part is not an element symbol.
    """
    elements = [part.strip() for part in text.split("-")]
    wrong = [part for part in elements if part not in _SYMBOLS]
    if wrong:
        raise InputError(f"not element symbols in the chemical system {text!r}: {wrong}; write it as Ga-As")
    return "-".join(sorted(set(elements)))


def symmetry_dataset(atoms: Atoms, symprec_angstrom: float) -> Any:
    """Symmetry dataset of spglib.

    It takes milliseconds, and several fields of a document come from it, so that the last eight are kept.

    Parameters
    ----------
    atoms
        The structure.
    symprec_angstrom
        Tolerance of spglib in Angstrom.

    Returns
    -------
    Any
        The dataset; None for a structure that is not a crystal, or for which spglib finds no symmetry.
    """
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return None  # spglib ends the process at NaN or infinity
    if len(atoms) == 0 or not all(atoms.pbc) or abs(np.linalg.det(atoms.cell.array)) < 1e-8:
        return None
    fractions = atoms.get_scaled_positions(wrap=False)
    return _dataset(atoms.cell.array.tobytes(), fractions.tobytes(), atoms.numbers.tobytes(), symprec_angstrom)


@lru_cache(maxsize=8)
def _dataset(cell: bytes, fractions: bytes, numbers: bytes, symprec_angstrom: float) -> Any:
    import spglib

    crystal = (
        np.frombuffer(cell).reshape(3, 3),
        np.frombuffer(fractions).reshape(-1, 3),
        np.frombuffer(numbers, dtype=np.int64),
    )
    with warnings.catch_warnings():
        # spglib announces that it will raise an error where it returns None today.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return spglib.get_symmetry_dataset(crystal, symprec=symprec_angstrom)
        except spglib.SpglibError:
            return None

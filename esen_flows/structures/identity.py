"""What a structure is called: formula, chemical system, space group. Every document repeats it, so no query joins.

pymatgen would know all of this, but importing it costs more than a stored answer may take.
"""

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache, reduce
from math import gcd
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from esen_flows.errors import InputError

# Pauling scale with the fillings that pymatgen uses, so that formulas read the same; absent: no bonds known, last.
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
_TOKEN = re.compile(r"([A-Z][a-z]?|\(|\))(\d*)")


def identify(atoms: Atoms, symprec_angstrom: float = 0.01) -> dict[str, Any]:
    """Formula, chemical system and space group of a structure, as the fields of a ResultDocument.

    Parameters
    ----------
    atoms
        the structure.
    symprec_angstrom
        tolerance of spglib.

    Returns
    -------
    dict[str, Any]
        `formula` (reduced), `chemsys` ("As-Ga"), `elements` (sorted), `nsites`, `space_group_number` and
        `space_group_symbol` (None unless periodic in three directions, or where spglib finds none).
    """
    symbols = atoms.get_chemical_symbols()
    number, symbol = _space_group(atoms, symprec_angstrom)
    elements = sorted(set(symbols))
    return {
        "formula": reduced_formula(Counter(symbols)),
        "chemsys": "-".join(elements),
        "elements": elements,
        "nsites": len(symbols),
        "space_group_number": number,
        "space_group_symbol": symbol,
    }


def identify_dataset(elements: Sequence[str], atoms: int) -> dict[str, Any]:
    """The same fields for what is about many structures: their elements, in alphabetical order, and all their atoms."""
    chemsys = "-".join(elements)
    return {
        "formula": chemsys if len(elements) <= 6 else f"{len(elements)} elements",
        "chemsys": chemsys,
        "elements": list(elements),
        "nsites": atoms,
        "space_group_number": None,
        "space_group_symbol": None,
    }


def reduced_formula(counts: Mapping[str, int]) -> str:
    """Reduced formula, electropositive elements first: {"As": 4, "Ga": 4} is "GaAs"."""
    if not counts:
        return ""
    divisor = reduce(gcd, counts.values())
    symbols = sorted(counts, key=lambda symbol: (ELECTRONEGATIVITY.get(symbol, float("inf")), symbol))
    return "".join(f"{symbol}{counts[symbol] // divisor if counts[symbol] != divisor else ''}" for symbol in symbols)


def canonical_formula(text: str) -> str:
    """The reduced formula as it is stored, from what people type: "AsGa", "Ga2As2", "Ca3(PO4)2".

    Raises
    ------
    InputError
        not a chemical formula.
    """
    stack: list[Counter[str]] = [Counter()]
    position = 0
    for match in _TOKEN.finditer(text):
        token, digits = match.groups()
        if match.start() != position or (token not in _SYMBOLS and token not in "()"):
            break
        position = match.end()
        count = int(digits or 1)
        if token == "(":
            stack.append(Counter())
        elif token == ")" and len(stack) > 1:
            group = stack.pop()
            stack[-1].update({symbol: number * count for symbol, number in group.items()})
        else:
            stack[-1][token] += count
    counts = stack[0]
    valid = text and position == len(text) and len(stack) == 1 and ")" not in counts and all(counts.values())
    if not valid:
        raise InputError(f"not a chemical formula: {text!r}; write element symbols and integers, such as SiO2")
    return reduced_formula(counts)


def canonical_chemsys(text: str) -> str:
    """The chemical system as it is stored, its elements sorted: "Ga-As" is "As-Ga".

    Raises
    ------
    InputError
        a part is not an element symbol.
    """
    elements = [part.strip() for part in text.split("-")]
    wrong = [part for part in elements if part not in _SYMBOLS]
    if wrong:
        raise InputError(f"not element symbols in the chemical system {text!r}: {wrong}; write it as Ga-As")
    return "-".join(sorted(set(elements)))


def symmetry_dataset(atoms: Atoms, symprec_angstrom: float) -> Any:
    """What spglib finds of a crystal's symmetry; None for what is not a crystal or has no symmetry to find.

    Several numbers of a document are read off it, and it takes milliseconds: the last ones are kept.
    """
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return None  # at such, spglib ends the process
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
        warnings.simplefilter("ignore", DeprecationWarning)  # spglib announces that it will raise instead of None
        try:
            return spglib.get_symmetry_dataset(crystal, symprec=symprec_angstrom)
        except spglib.SpglibError:
            return None


def _space_group(atoms: Atoms, symprec_angstrom: float) -> tuple[int | None, str | None]:
    dataset = symmetry_dataset(atoms, symprec_angstrom)
    return (None, None) if dataset is None else (int(dataset.number), str(dataset.international))

"""Elements from what files write in their place: type symbols with charges, labels of atoms, D and T."""

import re
from collections.abc import Collection

from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from esen_flows.errors import StructureError
from esen_flows.schemas.atom_properties import HYDROGEN_ISOTOPES, AtomProperties, properties_of

ELEMENTS = frozenset(chemical_symbols[1:]) | HYDROGEN_ISOTOPES.keys()
_CHARGED = re.compile(r"([A-Za-z]{1,2})(?:[0-9.]*[+-][0-9.]*|[0-9]*)")
_LABEL = re.compile(r"[A-Za-z]+")


def element_of_type(symbol: str, where: str) -> str:
    """The element of a type symbol: `Si`, `Si4+`, `O-2`, `D`, `SI`.

    Parameters
    ----------
    symbol
        The type symbol.
    where
        Name of the site for the error message.

    Returns
    -------
    str
        Symbol of the element, or D or T.

    Raises
    ------
    StructureError
        The symbol is a mixture, or not an element.
    """
    found = _CHARGED.fullmatch(symbol.strip())
    if found and found.group(1).capitalize() in ELEMENTS:
        return found.group(1).capitalize()
    named = [name for name in re.findall(r"[A-Z][a-z]?", symbol) if name in ELEMENTS]
    if len(named) > 1 or (named and re.search(r"\d*\.\d", symbol)):
        raise StructureError(
            f"{where} is a mixture, {symbol[:40]!r}: the crystal is disordered; give an ordered structure"
        )
    raise StructureError(
        f"{where} has the type symbol {symbol[:40]!r}, which is not an element; correct it, or leave the site out"
    )


def element_of_label(label: str, formula: Collection[str], capitals: bool) -> str:
    """The element that the label of an atom without type symbol most plausibly means.

    Parameters
    ----------
    label
        The label: `Si1`, `O2A`, `OW`, `CL1`.
    formula
        Elements of the crystal's formula, where the file gives it: they decide.
    capitals
        Whether the file writes all labels in capital letters, so that `CL1` may be chlorine.

    Returns
    -------
    str
        Symbol of the element, or D or T.

    Raises
    ------
    StructureError
        The label names no element, such as `Vac1` or `M1`.
    """
    match = _LABEL.match(label)
    letters = match.group() if match else ""
    both, first = letters[:2].capitalize(), letters[:1].upper()
    candidates = [name for name in (both, first) if name in ELEMENTS]
    if letters[2:3].islower():  # a word, such as Vac or Wat
        candidates = []
    elif formula:
        candidates = [name for name in candidates if name in formula]
    elif letters[1:2].islower() and both not in ELEMENTS:
        candidates = []
    elif letters[1:2].isupper() and not capitals:
        candidates = [name for name in candidates if name == first] or candidates
    if not candidates:
        raise StructureError(
            f"the label {label[:40]!r} names no element; add the column _atom_site_type_symbol, or leave the site out"
        )
    return candidates[0]


def numbers_and_masses(symbols: list[str]) -> tuple[list[int], list[float]]:
    """Atomic numbers and own masses of symbols that may be D and T.

    Parameters
    ----------
    symbols
        Symbols of elements, D and T.

    Returns
    -------
    tuple[list[int], list[float]]
        Atomic numbers, and masses in u of D and T with 0 for all others.
    """
    numbers = [atomic_numbers["H" if symbol in HYDROGEN_ISOTOPES else symbol] for symbol in symbols]
    return numbers, [HYDROGEN_ISOTOPES.get(symbol, 0.0) for symbol in symbols]


def with_isotopes(atoms: Atoms, masses_u: list[float]) -> Atoms:
    """Give a structure the masses of its isotopes D and T, beside those that it has.

    Parameters
    ----------
    atoms
        The structure; it is changed.
    masses_u
        (n,) masses in u, 0 where there is none.

    Returns
    -------
    Atoms
        The same structure.
    """
    if any(masses_u):
        own = properties_of(atoms).masses_u
        known = [0.0] * len(atoms) if own is None else own.tolist()
        pairs = zip(known, masses_u, strict=True)
        AtomProperties.of_fields({"masses_u": [mass or isotope for mass, isotope in pairs]}).attach(atoms)
    return atoms

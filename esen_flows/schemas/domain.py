"""Whether a structure is like those that a force field was trained on.

A force field may know all elements of a crystal and still never have seen them together: esen_nano, trained on CaO, ZnS
and other binary crystals, shrinks CaS by 38 % in volume and calls it stable. Where nothing else is known, the sets of
elements of the training structures decide. Where the network was calibrated (`forcefield.extrapolation`), its own
features of the atoms do, and the sets tell "inside" from "near". The verdict warns people. It is part of no key,
because it changes no number.
"""

from collections.abc import Collection, Iterable
from functools import cache
from typing import Literal

from esen_flows.errors import ModelError
from esen_flows.schemas.card import list_cards, read_card

Domain = Literal["inside", "near", "outside", "unknown"]


def chemical_system(symbols: Iterable[str]) -> str:
    """The set of elements of a structure as text.

    Parameters
    ----------
    symbols
        Symbols of its atoms.

    Returns
    -------
    str
        The symbols once each, sorted, such as "As-Ga".

    Examples
    --------
    >>> chemical_system(["Ga", "As", "Ga"])
    'As-Ga'
    """
    return "-".join(sorted(set(symbols)))


def domain_of(chemsys: str, trained_on: Collection[str] | None, within: bool | None = None) -> Domain:
    """The verdict for a structure.

    Parameters
    ----------
    chemsys
        Its chemical system.
    trained_on
        Chemical systems of the training structures; None: not known, as for force fields that are trained on all
        kinds of structures.
    within
        Whether all its atoms are like training atoms, so that its extrapolation is within the limit; None: not
        measured.

    Returns
    -------
    Domain
        "inside"; "near" for atoms like training atoms in a set of elements that no training structure has; "outside";
        or "unknown".
    """
    if within is None:
        if trained_on is None:
            return "unknown"
        return "inside" if chemsys in trained_on else "outside"
    if not within:
        return "outside"
    return "inside" if trained_on is None or chemsys in trained_on else "near"


def domain_by(location: str | None, chemsys: str) -> Domain:
    """The verdict for a structure and a force field by its location.

    Parameters
    ----------
    location
        Name of its card, or path of its checkpoint.
    chemsys
        Chemical system of the structure.

    Returns
    -------
    Domain
        "inside", "outside", or "unknown", which it is without a card.
    """
    return domain_of(chemsys, trained_systems(location))


@cache
def trained_systems(location: str | None) -> frozenset[str] | None:
    """The chemical systems of the training structures of a force field.

    Parameters
    ----------
    location
        Name of its card, or path of its checkpoint.

    Returns
    -------
    frozenset[str] | None
        Chemical systems, such as "As-Ga"; None: not known.
    """
    if location is None or location not in list_cards():
        return None
    try:
        systems = read_card(location).chemical_systems
    except ModelError:  # a card that cannot be read says nothing
        return None
    return None if systems is None else frozenset(systems)

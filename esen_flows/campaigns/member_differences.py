"""Members of two campaigns, matched and compared: outcomes that changed, numbers that moved."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import nlargest
from math import inf, isfinite
from typing import Any

PENDING = "pending"


@dataclass(frozen=True)
class Tolerance:
    """How far a number may move: by the absolute part plus the relative part times the old number.

    Attributes
    ----------
    absolute
        Absolute part, in the number's unit.
    relative
        Relative part.
    """

    absolute: float = 0.0
    relative: float = 0.0

    def allows(self, old: float, new: float) -> bool:
        """Whether a number is near enough to the old one.

        Parameters
        ----------
        old
            Old number.
        new
            New number.

        Returns
        -------
        bool
            True if it is near enough; numbers that are not finite have to be the same.

        Examples
        --------
        >>> Tolerance(absolute=1e-3).allows(2.0, 2.0005)
        True
        """
        if not (isfinite(old) and isfinite(new)):
            return repr(old) == repr(new)
        return abs(new - old) <= self.absolute + self.relative * abs(old)


EXACT = Tolerance()


@dataclass(frozen=True, slots=True)
class Side:
    """A member as far as it is compared.

    Attributes
    ----------
    structure_key
        Key of its structure.
    model
        Label of its force field; "" if each side has only one.
    label
        Label of the member.
    formula
        Formula of its structure.
    outcome
        finished, pending, or the class of its failure.
    value
        Principal number; None if it has none.
    """

    structure_key: str
    model: str
    label: str
    formula: str
    outcome: str
    value: float | None

    @property
    def identity(self) -> tuple[str, str, str]:
        """Structure, force field and label."""
        return self.structure_key, self.model, self.label

    @classmethod
    def of(cls, row: Mapping[str, Any], *, with_model: bool) -> "Side":
        """Side of a member.

        Parameters
        ----------
        row
            Row of the member, stored or frozen.
        with_model
            Whether the force field identifies the member.

        Returns
        -------
        Side
            What is compared.
        """
        return cls(
            row["structure_key"],
            row["model_label"] if with_model else "",
            row["label"],
            row["formula"],
            row["failure"] or "failed" if row["state"] == "failed" else row["state"],
            row["value"],
        )


@dataclass(frozen=True)
class Changed:
    """A material with another outcome.

    Attributes
    ----------
    label
        Label of the member.
    formula
        Formula of the structure.
    model
        Label of the force field; "" if each side has only one.
    old
        Old outcome.
    new
        New outcome.
    """

    label: str
    formula: str
    model: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A material with another principal number.

    Attributes
    ----------
    label
        Label of the member.
    formula
        Formula of the structure.
    model
        Label of the force field; "" if each side has only one.
    old
        Old number.
    new
        New number.
    """

    label: str
    formula: str
    model: str
    old: float
    new: float

    @property
    def absolute(self) -> float:
        """New minus old."""
        return self.new - self.old

    @property
    def relative(self) -> float:
        """New minus old as a fraction of the old number; infinite if that is zero."""
        return self.absolute / abs(self.old) if self.old else inf


@dataclass(frozen=True)
class Difference:
    """What differs between two lists of members.

    Attributes
    ----------
    matched
        Number of members on both sides.
    only_old
        Number of members on the old side only.
    only_new
        Number of members on the new side only.
    unmatched
        Labels of some members that are on one side only.
    pending
        Number of matched members that are pending on a side and therefore not compared.
    changed
        All members with another outcome.
    transitions
        Number of them by (old outcome, new outcome).
    compared
        Number of members that have a number on both sides.
    mean_absolute
        Mean of the absolute moves; None if no number was compared.
    moved
        Largest moves, by absolute size.
    moved_relatively
        Largest moves, by relative size.
    beyond
        Number of members that moved by more than the tolerance.
    """

    matched: int
    only_old: int
    only_new: int
    unmatched: tuple[str, ...]
    pending: int
    changed: tuple[Changed, ...]
    transitions: dict[tuple[str, str], int]
    compared: int
    mean_absolute: float | None
    moved: tuple[Moved, ...]
    moved_relatively: tuple[Moved, ...]
    beyond: int

    @property
    def is_within(self) -> bool:
        """Whether no outcome changed, no member is missing, and all numbers are within the tolerance."""
        return not (self.changed or self.beyond or self.only_old or self.only_new or self.pending)


def compare_members(old: Iterable[Side], new: Iterable[Side], tolerance: Tolerance, most: int = 10) -> Difference:
    """What differs between two lists of members; the first list is held in memory.

    Parameters
    ----------
    old
        Members of the old side.
    new
        Members of the new side.
    tolerance
        How far numbers may move without being counted.
    most
        Number of the largest moves to list.

    Returns
    -------
    Difference
        Members that differ.
    """
    left: dict[tuple[str, str], list[Side]] = {}
    for side in old:
        left.setdefault((side.structure_key, side.model), []).append(side)
    matched = pending = compared = beyond = 0
    only_new: list[str] = []
    changed: list[Changed] = []
    moves: list[Moved] = []
    for side in new:
        partner = _partner(left, side)
        if partner is None:
            only_new.append(side.label)
            continue
        matched += 1
        identity = (side.label, side.formula, side.model)
        if PENDING in (partner.outcome, side.outcome):
            pending += 1
        elif partner.outcome != side.outcome:
            changed.append(Changed(*identity, partner.outcome, side.outcome))
        elif partner.value is None or side.value is None:
            beyond += partner.value is not side.value
        else:
            compared += 1
            beyond += not tolerance.allows(partner.value, side.value)
            if partner.value != side.value and isfinite(side.value - partner.value):
                moves.append(Moved(*identity, partner.value, side.value))
    only_old = sorted(side.label for group in left.values() for side in group)
    return Difference(
        matched=matched,
        only_old=len(only_old),
        only_new=len(only_new),
        unmatched=tuple(only_old[:most] + sorted(only_new)[:most]),
        pending=pending,
        changed=tuple(changed),
        transitions=dict(Counter((each.old, each.new) for each in changed).most_common()),
        compared=compared,
        mean_absolute=sum(abs(move.absolute) for move in moves) / compared if compared else None,
        moved=tuple(nlargest(most, moves, key=lambda move: abs(move.absolute))),
        moved_relatively=tuple(nlargest(most, moves, key=lambda move: abs(move.relative))),
        beyond=beyond,
    )


def _partner(left: dict[tuple[str, str], list[Side]], side: Side) -> Side | None:
    """The same member on the other side, which leaves `left`; that with the same label if there are several."""
    group = left.get((side.structure_key, side.model))
    if not group:
        return None
    chosen = next((each for each in group if each.label == side.label), group[0])
    group.remove(chosen)
    return chosen

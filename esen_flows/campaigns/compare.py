"""Two campaigns, member by member: which settings differ, what changed class, which numbers moved and how far."""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

from pydantic import BaseModel

from esen_flows.campaigns.records import member_rows
from esen_flows.errors import InputError
from esen_flows.schemas.campaign import CampaignSpec, answer_summary_field, base_protocol
from esen_flows.schemas.protocol_fields import with_values
from esen_flows.store.campaigns import campaign_of, refresh_states
from esen_flows.store.database import Row
from esen_flows.store.results import Store

PENDING = "pending"
# Of a specification: what says nothing about numbers, and what is compared in another way (as protocol and models).
_LEFT_OUT = frozenset(("name", "description", "tags", "target_minutes", "settings", "models", "protocol"))


@dataclass(frozen=True)
class Tolerance:
    """How far a number may move: by `absolute` in its unit, plus `relative` times the old one."""

    absolute: float = 0.0
    relative: float = 0.0

    def allows(self, old: float, new: float) -> bool:
        """Whether `new` is near enough; of two that are not finite, if they are the same."""
        if not (isfinite(old) and isfinite(new)):
            return repr(old) == repr(new)
        return abs(new - old) <= self.absolute + self.relative * abs(old)


@dataclass(frozen=True)
class Side:
    """A member as far as it is compared.

    Attributes
    ----------
    structure_key, model, label, formula
        what it is; `model` is "" where each side has one force field.
    outcome
        finished, pending, or the class of its failure.
    value
        principal number.
    """

    structure_key: str
    model: str
    label: str
    formula: str
    outcome: str
    value: float | None

    @classmethod
    def of(cls, row: Mapping[str, Any], *, with_model: bool) -> "Side":
        """Of a member's row, stored or frozen."""
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
    """A material that ended in another way."""

    label: str
    formula: str
    model: str
    old: str
    new: str


@dataclass(frozen=True)
class Moved:
    """A material whose principal number is another one."""

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
        """That as a fraction of the old one; infinite where that is zero."""
        return self.absolute / abs(self.old) if self.old else inf


@dataclass(frozen=True)
class Difference:
    """What differs between two lists of members.

    Attributes
    ----------
    matched, only_old, only_new
        how many members.
    unmatched
        labels of some that are on one side only.
    pending
        how many of the matched ones are pending on a side, and not compared.
    changed
        all that ended in another way.
    transitions
        how many did so, by (old, new).
    compared
        how many have a number on both sides.
    mean_absolute
        mean of the absolute moves.
    moved
        the largest moves, by absolute size.
    moved_relatively
        the largest moves, by relative size.
    beyond
        how many moved by more than the tolerance.
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
        """Whether nothing changed class, nothing is missing, and all numbers are within the tolerance."""
        return not (self.changed or self.beyond or self.only_old or self.only_new or self.pending)


@dataclass(frozen=True)
class CampaignDifference:
    """What differs between two campaigns.

    Attributes
    ----------
    old, new
        their names.
    field
        the principal number, with its unit.
    settings
        dotted name, old value, new value.
    members
        see `Difference`.
    """

    old: str
    new: str
    field: str
    settings: tuple[tuple[str, Any, Any], ...]
    members: Difference


def compare_campaigns(
    store: Store, old: str, new: str, tolerance: Tolerance = Tolerance(), most: int = 10
) -> CampaignDifference:
    """What differs between two campaigns of one property.

    Members are the same if their structures are, and, where several have the same structure, their labels; and, where
    a campaign has several force fields, the labels of these.

    Parameters
    ----------
    tolerance
        beyond which moves are counted.
    most
        how many of the largest moves to list.

    Raises
    ------
    InputError
        no such campaign, or two of different quantities.
    """
    campaigns = [campaign_of(store, name) for name in (old, new)]
    specs = [CampaignSpec.model_validate(campaign["spec"]) for campaign in campaigns]
    fields = [answer_summary_field(spec) for spec in specs]
    if fields[0] != fields[1]:
        raise InputError(f"{old!r} gives {fields[0]} and {new!r} {fields[1]}; compare campaigns of one quantity")
    for spec, number in zip(specs, fields, strict=True):
        refresh_states(store, spec.name, number)
    with_model = any(len(campaign["models"]) > 1 for campaign in campaigns)
    before, after = ((Side.of(row, with_model=with_model) for row in member_rows(store, name)) for name in (old, new))
    return CampaignDifference(
        old=old,
        new=new,
        field=fields[0],
        settings=tuple(_different_settings(*(_settings(*each) for each in zip(specs, campaigns, strict=True)))),
        members=compare_members(before, after, tolerance, most),
    )


def compare_members(old: Iterable[Side], new: Iterable[Side], tolerance: Tolerance, most: int = 10) -> Difference:
    """What differs between two lists of members; the first one is held in memory.

    Parameters
    ----------
    tolerance
        beyond which moves are counted.
    most
        how many of the largest moves to list.
    """
    left: dict[tuple[str, str], list[Side]] = {}
    for side in old:
        left.setdefault((side.structure_key, side.model), []).append(side)
    tally = _Tally(tolerance, most)
    for side in new:
        tally.take(_partner(left, side), side)
    rest = [side for group in left.values() for side in group]
    tally.only_new.sort()
    return Difference(
        matched=tally.matched,
        only_old=len(rest),
        only_new=len(tally.only_new),
        unmatched=tuple(sorted(side.label for side in rest)[:most] + tally.only_new[:most]),
        pending=tally.pending,
        changed=tuple(tally.changed),
        transitions=dict(Counter((each.old, each.new) for each in tally.changed).most_common()),
        compared=tally.compared,
        mean_absolute=tally.total / tally.compared if tally.compared else None,
        moved=tally.absolute.largest(),
        moved_relatively=tally.relative.largest(),
        beyond=tally.beyond,
    )


@dataclass
class _Largest:
    """The few largest of many moves, by a size."""

    most: int
    heap: list[tuple[float, int, Moved]] = field(default_factory=list)
    seen: int = 0

    def add(self, size: float, move: Moved) -> None:
        self.seen += 1  # of equal sizes the first stay, and moves are never compared themselves
        if len(self.heap) < self.most:
            heapq.heappush(self.heap, (size, -self.seen, move))
        elif self.heap and size > self.heap[0][0]:
            heapq.heapreplace(self.heap, (size, -self.seen, move))

    def largest(self) -> tuple[Moved, ...]:
        return tuple(move for _, _, move in sorted(self.heap, key=lambda each: each[:2], reverse=True))


class _Tally:
    """What is learned from pair after pair."""

    def __init__(self, tolerance: Tolerance, most: int) -> None:
        self.tolerance = tolerance
        self.matched = self.compared = self.beyond = self.pending = 0
        self.total = 0.0
        self.only_new: list[str] = []
        self.changed: list[Changed] = []
        self.absolute, self.relative = _Largest(most), _Largest(most)

    def take(self, old: Side | None, new: Side) -> None:
        if old is None:
            self.only_new.append(new.label)
            return
        self.matched += 1
        if PENDING in (old.outcome, new.outcome):
            self.pending += 1
        elif old.outcome != new.outcome:
            self.changed.append(Changed(new.label, new.formula, new.model, old.outcome, new.outcome))
        elif old.value is not None and new.value is not None:
            self._compare(Moved(new.label, new.formula, new.model, old.value, new.value))
        elif old.value is not new.value:  # one of them has no number
            self.beyond += 1

    def _compare(self, move: Moved) -> None:
        self.compared += 1
        self.beyond += not self.tolerance.allows(move.old, move.new)
        if move.old == move.new or not isfinite(move.absolute):
            return
        self.total += abs(move.absolute)
        self.absolute.add(abs(move.absolute), move)
        self.relative.add(abs(move.relative), move)


def _partner(left: dict[tuple[str, str], list[Side]], side: Side) -> Side | None:
    """The same member on the other side, taken out; the one with the same label where there are several."""
    group = left.get((side.structure_key, side.model))
    if not group:
        return None
    chosen = next((each for each in group if each.label == side.label), group[0])
    group.remove(chosen)
    return chosen


def _settings(spec: CampaignSpec, campaign: Row) -> dict[str, Any]:
    """All that numbers depend on, by dotted names: settings at their defaults too, so that saying them is no change."""
    protocol = with_values(base_protocol(spec.property, spec.protocol, {}), spec.settings.items())
    found = dict(flat(spec.model_dump(mode="json", exclude=set(_LEFT_OUT))))
    found["protocol"] = spec.protocol or "general"
    found |= dict(flat(_plain(protocol), "settings."))
    models: Sequence[Mapping[str, str]] = campaign["models"]
    return found | {f"models.{model['label']}": model["key"][:16] for model in models}


def _plain(protocol: BaseModel) -> dict[str, Any]:
    return protocol.model_dump(mode="json")


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested mappings by dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _different_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)

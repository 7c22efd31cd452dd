"""Records that cannot be trained on: found, named, counted and listed; never dropped without a word."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.sources.vocabulary import OnBad
from esen_flows.errors import InputError

LISTED = 1000  # bad records that are listed one by one; all are counted


@dataclass(frozen=True)
class BadRecord:
    """A record that is left out: where it is, the reason in words that can be counted, and what was found."""

    where: str
    reason: str
    found: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" + (f" ({self.found})" if self.found else "")


@dataclass(frozen=True)
class Limits:
    """What a record must keep to.

    Attributes
    ----------
    max_force_ev_per_angstrom
        length of the largest force on an atom. Above 50 are overlapping cores and failed
        calculations rather than crystals far from equilibrium, and one such atom outweighs ten thousand others in a
        squared loss.
    require_stress
        whether a crystal without a stress is bad; otherwise it has none and counts for energy and forces.
    elements
        the only ones allowed; None for all 118.
    """

    max_force_ev_per_angstrom: float = 50.0
    require_stress: bool = False
    elements: frozenset[int] | None = None


def screened(
    records: Iterable[LabelledStructure | BadRecord], name: str, limits: Limits | None = None
) -> Iterator[LabelledStructure | BadRecord]:
    """The same records, with a BadRecord in the place of each that breaks the limits; `name` says what they are of."""
    limits = limits or Limits()
    for index, item in enumerate(records):
        if isinstance(item, BadRecord):
            yield item
            continue
        broken = fault(item, limits)
        material = f" ({item.material})" if item.material else ""
        yield item if broken is None else BadRecord(f"record {index}{material} of {name}", *broken)


def fault(item: LabelledStructure, limits: Limits) -> tuple[str, str] | None:
    """Why a structure cannot be trained on: the reason and what was found; None where it can."""
    return _fault_of_structure(item, limits) or _fault_of_labels(item, limits)


def _fault_of_structure(item: LabelledStructure, limits: Limits) -> tuple[str, str] | None:
    atoms = item.atoms
    if len(atoms) == 0:
        return "no atoms", ""
    numbers = set(atoms.numbers.tolist())
    unknown = {z for z in numbers if not 1 <= z <= 118} or numbers - (limits.elements or numbers)
    if unknown:
        return "unknown element", f"atomic numbers {sorted(unknown)}"
    cell = atoms.cell.array
    if not (np.isfinite(atoms.positions).all() and np.isfinite(cell).all()):
        return "positions or cell are NaN or infinite", ""
    if atoms.pbc.any():
        lengths = np.linalg.norm(cell, axis=1)
        completed = atoms.cell.complete().array
        if (atoms.pbc & (lengths < 1e-8)).any() or abs(np.linalg.det(completed)) < 1e-8:
            return "periodic without a cell", f"lattice vectors {cell.tolist()} Angstrom, pbc {atoms.pbc.tolist()}"
    for name in ("charge", "spin"):
        value = atoms.info.get(name, 0)
        if not isinstance(value, int | float | np.number) or not float(value).is_integer():
            return f"{name} is not an integer", repr(value)
    return None


def _fault_of_labels(item: LabelledStructure, limits: Limits) -> tuple[str, str] | None:
    shapes = (item.forces.shape, item.stress.shape)
    if shapes != ((len(item.atoms), 3), (3, 3)):
        return "labels of the wrong shape", f"forces {shapes[0]}, stress {shapes[1]} for {len(item.atoms)} atoms"
    if not np.isfinite(item.energy):
        return "the energy is NaN or infinite", str(item.energy)
    if not np.isfinite(item.forces).all():
        return "a force is NaN or infinite", ""
    largest = float(np.linalg.norm(item.forces, axis=1).max())
    if largest > limits.max_force_ev_per_angstrom:
        return "huge force", f"{largest:.4g} eV/Angstrom, limit {limits.max_force_ev_per_angstrom:g}"
    finite = np.isfinite(item.stress)
    if not finite.all() and not np.isnan(item.stress).all():
        return "the stress is NaN or infinite", ""
    if limits.require_stress and item.atoms.pbc.all() and not finite.all():
        return "no stress", ""
    return None


@dataclass
class Rejected:
    """Bad records so far: all counted by reason, the first thousand listed."""

    on_bad: OnBad = "skip"
    counts: Counter[str] = field(default_factory=Counter)
    listed: list[BadRecord] = field(default_factory=list)

    def keep(self, records: Iterable[LabelledStructure | BadRecord]) -> Iterator[LabelledStructure]:
        """The good ones.

        Raises
        ------
        InputError
            at the first bad one, where they are fatal; at the end, if there was no good one.
        """
        good = 0
        for item in records:
            if not isinstance(item, BadRecord):
                good += 1
                yield item
                continue
            if self.on_bad == "fail":
                raise InputError(f"{item}; repair the record, or skip bad records")
            self.counts[item.reason] += 1
            if len(self.listed) < LISTED:
                self.listed.append(item)
        if not good:
            first = f"; the first: {self.listed[0]}" if self.listed else ""
            raise InputError(f"no record to use, {self.counts.total()} bad ones{first}")

    def document(self) -> dict[str, Any]:
        """What goes into the index of a dataset."""
        listed = [{"where": bad.where, "reason": bad.reason, "found": bad.found} for bad in self.listed]
        return {"records": self.counts.total(), "counts": dict(self.counts), "listed_limit": LISTED, "listed": listed}

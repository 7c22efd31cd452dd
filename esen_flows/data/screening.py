"""Records that cannot be trained on: each is found, named, counted and listed, and none is dropped silently."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from esen_flows.data.labelled import LabelledStructure, without_meaningless_stress
from esen_flows.data.sources.vocabulary import OnBad
from esen_flows.errors import InputError

# Beyond these, numbers are not those of a structure, and would fill memory or become infinite in float32.
FARTHEST_ANGSTROM, SHORTEST_ANGSTROM, SMALLEST_ANGSTROM3 = 1e6, 0.2, 0.1
LARGEST_EV = 1e8  # all electrons of the heaviest atom have some 1e6
LISTED = 1000  # bad records that are listed one by one; all are counted


@dataclass(frozen=True)
class BadRecord:
    """A record that is left out.

    Attributes
    ----------
    where
        Place of the record: its number or name, and its file.
    reason
        Reason in words that are the same for all records with this fault, so that they can be counted.
    found
        Offending value; "" where there is nothing to show.
    """

    where: str
    reason: str
    found: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" + (f" ({self.found})" if self.found else "")


@dataclass(frozen=True)
class Limits:
    """Limits that a record must keep.

    Attributes
    ----------
    max_force_ev_per_angstrom
        Largest length of the force on an atom in eV/Angstrom. Forces above 50 come from overlapping cores and failed
        calculations rather than from crystals far from equilibrium, and one such atom outweighs ten thousand others in
        a squared loss.
    require_stress
        Whether a crystal without a stress is bad. Otherwise it counts for energy and forces only.
    elements
        Allowed atomic numbers; None for 1 to 118.
    """

    max_force_ev_per_angstrom: float = 50.0
    require_stress: bool = False
    elements: frozenset[int] | None = None

    def __post_init__(self) -> None:
        if not self.max_force_ev_per_angstrom > 0.0:
            raise InputError(f"the largest force must be a positive number, got {self.max_force_ev_per_angstrom!r}")


# What a source gives for each of its records.
ReadRecord = LabelledStructure | BadRecord
ANY_FORCE = Limits(max_force_ev_per_angstrom=np.inf)


def screened(records: Iterable[ReadRecord], name: str, limits: Limits | None = None) -> Iterator[ReadRecord]:
    """Records with a BadRecord in the place of each that breaks the limits.

    Parameters
    ----------
    records
        Records of a source.
    name
        Name of the source, for the places of bad records.
    limits
        Limits that a record must keep; None for the default ones.

    Yields
    ------
    LabelledStructure | BadRecord
        One entry for each record, in order.
    """
    limits = limits or Limits()
    for index, item in enumerate(records):
        if isinstance(item, BadRecord):
            yield item
            continue
        broken = fault(item, limits)
        material = f" ({item.material})" if item.material else ""
        yield (
            without_meaningless_stress(item)
            if broken is None
            else BadRecord(f"record {index}{material} of {name}", *broken)
        )


def fault(item: LabelledStructure, limits: Limits) -> tuple[str, str] | None:
    """Reason why a structure cannot be trained on.

    Parameters
    ----------
    item
        The structure with its labels.
    limits
        Limits that it must keep.

    Returns
    -------
    tuple[str, str] | None
        Reason and offending value, as `BadRecord` has them; None for a good structure.
    """
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
    if max(np.abs(atoms.positions).max(), np.abs(cell).max()) > FARTHEST_ANGSTROM:
        return "positions or cell are too large", f"beyond {FARTHEST_ANGSTROM:g} Angstrom"
    if atoms.pbc.any():
        lengths = np.linalg.norm(cell, axis=1)
        # Directions without a vector are completed, so that the volume of a slab or a wire is not zero for their sake.
        completed = atoms.cell.complete().array
        if (atoms.pbc & (lengths < 1e-8)).any() or abs(np.linalg.det(completed)) < 1e-8:
            return "periodic without a cell", f"lattice vectors {cell.tolist()} Angstrom, pbc {atoms.pbc.tolist()}"
        # Overlapping atoms have no bounded number of neighbours. Hydrogen under 500 GPa has 1.3 Angstrom^3 an atom.
        if lengths[atoms.pbc].min() < SHORTEST_ANGSTROM or atoms.cell.volume < SMALLEST_ANGSTROM3 * len(atoms) * (
            atoms.pbc.all()
        ):
            return "the cell is too small for its atoms", f"{lengths.tolist()} Angstrom for {len(atoms)} atoms"
    for name in ("charge", "spin"):
        value = atoms.info.get(name, 0)
        if not isinstance(value, int | float | np.number) or not float(value).is_integer():
            return f"{name} is not an integer", repr(value)
        if abs(float(value)) > 1e6:
            return f"{name} is too large", repr(value)
    return None


def _fault_of_labels(item: LabelledStructure, limits: Limits) -> tuple[str, str] | None:
    shapes = (item.forces.shape, item.stress.shape)
    if shapes != ((len(item.atoms), 3), (3, 3)):
        return "labels of the wrong shape", f"forces {shapes[0]}, stress {shapes[1]} for {len(item.atoms)} atoms"
    if not np.isfinite(item.energy):
        return "the energy is NaN or infinite", str(item.energy)
    if abs(item.energy) > LARGEST_EV * len(item.atoms):
        return "the energy is too large", f"{item.energy:.4g} eV"
    if not np.isfinite(item.forces).all():
        return "a force is NaN or infinite", ""
    largest = float(np.linalg.norm(item.forces, axis=1).max())
    if largest > limits.max_force_ev_per_angstrom:
        return "huge force", f"{largest:.4g} eV/Angstrom, limit {limits.max_force_ev_per_angstrom:g}"
    finite = np.isfinite(item.stress)
    if not finite.all() and not np.isnan(item.stress).all():
        return "the stress is NaN or infinite", ""
    if finite.all() and np.abs(item.stress).max() > LARGEST_EV:
        return "the stress is too large", f"{np.abs(item.stress).max():.4g} eV/Angstrom^3"
    if limits.require_stress and item.atoms.pbc.all() and not finite.all():
        return "no stress", ""
    return None


@dataclass
class Rejected:
    """Bad records so far: all counted by reason, the first thousand listed.

    Attributes
    ----------
    on_bad
        Whether bad records are skipped or raise an error.
    counts
        Number of bad records by reason.
    listed
        The first bad records.
    remarks
        Number of good records by what was noticed or left out when they were read.
    """

    on_bad: OnBad = "skip"
    counts: Counter[str] = field(default_factory=Counter)
    listed: list[BadRecord] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)

    def keep(self, records: Iterable[ReadRecord]) -> Iterator[LabelledStructure]:
        """The good records; the bad ones are counted.

        Parameters
        ----------
        records
            Screened records.

        Yields
        ------
        LabelledStructure
            Good records, in order.

        Raises
        ------
        InputError
            A record is bad and `on_bad` is "fail", or there was no good record at the end.
        """
        good = 0
        for item in records:
            if not isinstance(item, BadRecord):
                good += 1
                self.remarks.update(item.remarks)
                yield item
                continue
            if self.on_bad == "fail":
                raise InputError(f"{item}; repair the record, or skip bad records")
            self.counts[item.reason] += 1
            if len(self.listed) < LISTED:
                self.listed.append(item)
        if not good:
            first = f"; the first: {self.listed[0]}" if self.listed else ""
            raise InputError(f"no good record, and {self.counts.total()} bad ones{first}")

    def document(self) -> dict[str, Any]:
        """Summary of the bad records for the index of a dataset.

        Returns
        -------
        dict[str, Any]
            Number of bad records, numbers by reason, the longest possible list, and the list.
        """
        listed = [asdict(bad) for bad in self.listed]
        return {"records": self.counts.total(), "counts": dict(self.counts), "listed_limit": LISTED, "listed": listed}

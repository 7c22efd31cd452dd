"""A check of unit and sign of forces and stresses: whether they are derivatives of the energies.

Between two similar records of the same atoms, the energy difference is the work of the forces along the internal
displacement and of the stress along the strain, here by the trapezoidal rule. The slope of the differences against the
work is 1 if the labels have the unit and sign that they are read with, -1 if the sign is wrong, and the ratio of the
units if the unit is wrong.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from esen_flows.data.labelled import LabelledStructure
from esen_flows.errors import InputError
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA

if TYPE_CHECKING:
    from esen_flows.data.dataset import Dataset

MOST_TRIED = 4000
MOST_STRAIN = 0.06  # Frobenius norm
MOST_DISPLACEMENT_ANGSTROM = 0.25
FEWEST_PAIRS = 8
# Uncertainty of the work of a pair: a part of its change between the two ends (the trapezoidal rule), a part of the
# work of the forces (forces belong to the free energy of smeared electrons, energies are often extrapolated), and eV
# per atom.
CURVATURE_ERROR, FORCE_ERROR, ENERGY_ERROR_EV = 0.1, 0.1, 1e-5
# A slope this far from 1 is wrong, if it is also four standard errors away. Stresses from plane waves are wrong by some
# per cent, far less than by a wrong unit or sign.
TOLERANCE = 0.25
_KNOWN_FACTORS = {
    "the sign is turned": -1.0,
    "they are in GPa": 1.0 / EV_PER_ANGSTROM3_TO_GPA,
    "they are in kBar": 0.1 / EV_PER_ANGSTROM3_TO_GPA,
    "they are in GPa with the sign turned": -1.0 / EV_PER_ANGSTROM3_TO_GPA,
    "they are in kBar with the sign turned": -0.1 / EV_PER_ANGSTROM3_TO_GPA,
}


@dataclass(frozen=True)
class Slope:
    """Slope of the energy differences against the work of the labels, over pairs of records.

    Attributes
    ----------
    quantity
        "forces" or "stress".
    slope
        1 if the labels are derivatives of the energies; None without pairs.
    standard_error
        Standard error of the slope, by resampling the pairs; None without pairs.
    pairs
        Number of pairs.
    """

    quantity: str
    slope: float | None
    standard_error: float | None
    pairs: int

    @property
    def verdict(self) -> str:
        """One of "right", "wrong" and "not known", the last one for too few pairs or too scattered ones."""
        if self.slope is None or self.standard_error is None or self.pairs < FEWEST_PAIRS:
            return "not known"
        away = abs(self.slope - 1.0)
        if away > max(TOLERANCE, 4 * self.standard_error):
            return "wrong"
        return "right" if away <= TOLERANCE and self.standard_error <= TOLERANCE else "not known"

    def words(self) -> str:
        """The outcome for a user.

        Returns
        -------
        str
            One line; for a wrong stress with the unit and sign that it probably has.
        """
        if self.slope is None:
            return f"{self.quantity}: not checked, no two records are similar enough"
        text = (
            f"{self.quantity}: slope {self.slope:.3g} +- {self.standard_error:.2g}, {self.pairs} pairs, {self.verdict}"
        )
        if self.verdict == "wrong" and self.quantity == "stress":
            likely = [words for words, factor in _KNOWN_FACTORS.items() if abs(self.slope / factor - 1) < TOLERANCE]
            text += f"; as they are read, {likely[0]}" if likely else ""
        return text

    def document(self) -> dict[str, Any]:
        """The outcome for JSON.

        Returns
        -------
        dict[str, Any]
            The fields and the verdict.
        """
        return asdict(self) | {"verdict": self.verdict}


@dataclass(frozen=True)
class _Pair:
    """Energy difference of two records, and the work of the labels of the first and of the second record; all in eV."""

    energy: float
    by_forces: tuple[float, float]
    by_stress: tuple[float, float] | None
    n_atoms: int

    def point(self) -> tuple[float, float, float]:
        """Work of the judged label, the energy that it should equal, and the uncertainty of their difference; in eV."""
        forces, stress = np.array(self.by_forces), np.array(self.by_stress or (0.0, 0.0))
        change = float(np.diff(forces + stress)[0])
        noise = ENERGY_ERROR_EV * self.n_atoms
        if self.by_stress is None:
            return float(forces.mean()), self.energy, float(np.hypot(CURVATURE_ERROR * change, noise))
        uncertainty = np.linalg.norm([CURVATURE_ERROR * change, FORCE_ERROR * np.abs(forces).max(), noise])
        return float(stress.mean()), self.energy - float(forces.mean()), float(uncertainty)


def check_labels_by_strain(dataset: "Dataset", seed: int = 0) -> tuple[Slope, Slope]:
    """Slopes of forces and of stresses.

    Forces are judged by pairs with the same cell, or without a cell. Stresses are judged by pairs with different cells,
    after the work of the forces is subtracted. Pairs are neighbours in the order of the dataset, and random ones, among
    records of the same atoms, material and group. A pair whose energies are smaller than their uncertainty is not
    counted.

    Parameters
    ----------
    dataset
        Labelled records.
    seed
        Seed of the draw of pairs and of the resampling.

    Returns
    -------
    tuple[Slope, Slope]
        Slope of the forces and slope of the stresses.
    """
    points: dict[str, list[tuple[float, float, float]]] = {"forces": [], "stress": []}
    for first, second in _pairs(dataset, seed):
        pair = _pair(dataset[first], dataset[second])
        if pair is None:
            continue
        work, energy, uncertainty = pair.point()
        if max(abs(work), abs(energy)) > uncertainty:  # either of them: labels that are far too small do no work
            points["forces" if pair.by_stress is None else "stress"].append((work, energy, uncertainty))
    return _slope("forces", points["forces"], seed), _slope("stress", points["stress"], seed)


def require_right(slopes: tuple[Slope, Slope]) -> None:
    """Refuse labels that are clearly not derivatives of the energies.

    Parameters
    ----------
    slopes
        Outcome of `check_labels_by_strain`.

    Raises
    ------
    InputError
        A slope is not 1; the message gives the unit and sign that the labels probably have.
    """
    wrong = [slope.words() for slope in slopes if slope.verdict == "wrong"]
    if wrong:
        raise InputError(
            f"the labels do not belong to the energies ({'; '.join(wrong)}; it should be 1); give the right unit and "
            "sign, or leave the check out"
        )


def _pairs(dataset: "Dataset", seed: int) -> Iterator[tuple[int, int]]:
    """Pairs of records of the same atoms, material and group, each at most once: neighbours, and random ones."""
    order = np.lexsort((dataset.group, dataset.material, dataset.species))
    columns = np.stack([dataset.species, dataset.material.view(np.uint64), dataset.group.view(np.uint64)])[:, order]
    starts = np.flatnonzero(np.concatenate([[True], (columns[:, 1:] != columns[:, :-1]).any(axis=0)]))
    sizes = np.diff(np.append(starts, len(order)))
    starts, sizes = starts[sizes > 1], sizes[sizes > 1]
    if not len(sizes):
        return
    random = np.random.default_rng(seed)
    # Long runs are drawn more often, but no run of a million takes all.
    weight = np.minimum(sizes - 1, 100).astype(np.float64)
    run = random.choice(len(sizes), size=MOST_TRIED, p=weight / weight.sum())
    one = random.integers(0, sizes[run])
    step = np.where(random.random(MOST_TRIED) < 0.5, 1, random.integers(1, sizes[run]))
    other = (one + step) % sizes[run]
    seen = set()
    for low, high in zip(starts[run] + np.minimum(one, other), starts[run] + np.maximum(one, other), strict=True):
        if (low, high) not in seen:
            seen.add((low, high))
            yield int(order[low]), int(order[high])


def _pair(first: LabelledStructure, second: LabelledStructure) -> _Pair | None:
    """Energy and work between two records; None if they are too different, or have no stress and different cells."""
    one, two = first.atoms, second.atoms
    if (one.pbc != two.pbc).any():
        return None
    energy = second.energy - first.energy
    cells = [one.cell.array, two.cell.array]
    if one.cell.rank < 3 or np.abs(cells[1] - cells[0]).max() < 1e-7:
        moved = two.positions - one.positions
        if one.pbc.any():
            complete = one.cell.complete().array
            fractions = moved @ np.linalg.inv(complete)
            moved = (fractions - np.round(fractions) * one.pbc) @ complete
        if not 1e-6 < _largest(moved) <= MOST_DISPLACEMENT_ANGSTROM:
            return None
        by_forces = (-float((first.forces * moved).sum()), -float((second.forces * moved).sum()))
        return _Pair(energy, by_forces, None, len(one))
    if not (one.pbc.all() and np.isfinite(first.stress).all() and np.isfinite(second.stress).all()):
        return None
    fractions = two.cell.scaled_positions(two.positions) - one.cell.scaled_positions(one.positions)
    fractions -= np.round(fractions)
    strain = np.linalg.solve(cells[0], cells[1] - cells[0])
    if np.linalg.norm(strain) > MOST_STRAIN or _largest(fractions @ cells[0]) > MOST_DISPLACEMENT_ANGSTROM:
        return None
    ends = [_work(end, fractions, cells[1] - cells[0]) for end in (first, second)]
    return _Pair(energy, (ends[0][0], ends[1][0]), (ends[0][1], ends[1][1]), len(one))


def _work(end: LabelledStructure, fractions: np.ndarray, cell_change: np.ndarray) -> tuple[float, float]:
    """Work of the forces and of the stress in eV, with the labels of this end all along the way."""
    cell = end.atoms.cell.array
    by_stress = end.atoms.get_volume() * float((end.stress * np.linalg.solve(cell, cell_change)).sum())
    return -float((end.forces * (fractions @ cell)).sum()), by_stress


def _largest(moved: np.ndarray) -> float:
    """Length of the longest displacement in Angstrom, after the mean one is subtracted."""
    return float(np.linalg.norm(moved - moved.mean(axis=0), axis=1).max())


def _slope(quantity: str, points: list[tuple[float, float, float]], seed: int) -> Slope:
    """The line through the origin of least absolute deviation: a few pairs of unlike calculations do not turn it."""
    if not points:
        return Slope(quantity, None, None, 0)
    work, energy, uncertainty = np.array(points).T
    ratios, weights = energy / work, np.abs(work) / uncertainty
    random = np.random.default_rng(seed)
    samples = [_weighted_median(ratios[i], weights[i]) for i in random.integers(0, len(work), size=(200, len(work)))]
    return Slope(quantity, _weighted_median(ratios, weights), float(np.std(samples)), len(work))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(sums, sums[-1] / 2)])

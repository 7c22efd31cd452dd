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
        judged = _judged(dataset[first], dataset[second])
        if judged is None:
            continue
        quantity, work, energy, uncertainty = judged
        if max(abs(work), abs(energy)) > uncertainty:  # either of them: labels that are far too small do no work
            points[quantity].append((work, energy, uncertainty))
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


def _judged(first: LabelledStructure, second: LabelledStructure) -> tuple[str, float, float, float] | None:
    """The label that a pair of records judges, its work, the energy that the work should equal, and their uncertainty.

    Energies are in eV. None for records that are too different, or that have different cells and no stress.
    """
    one, two = first.atoms, second.atoms
    if (one.pbc != two.pbc).any():
        return None
    energy, noise = second.energy - first.energy, ENERGY_ERROR_EV * len(one)
    cell, cell_change = one.cell.array, two.cell.array - one.cell.array
    if one.cell.rank < 3 or np.abs(cell_change).max() < 1e-7:
        moved = two.positions - one.positions
        if one.pbc.any():
            complete = one.cell.complete().array
            fractions = moved @ np.linalg.inv(complete)
            moved = (fractions - np.round(fractions) * one.pbc) @ complete
        if not 1e-6 < _largest(moved) <= MOST_DISPLACEMENT_ANGSTROM:
            return None
        forces = np.array([-(end.forces * moved).sum() for end in (first, second)])
        return "forces", forces.mean(), energy, np.hypot(CURVATURE_ERROR * np.diff(forces)[0], noise)
    if not (one.pbc.all() and np.isfinite(first.stress).all() and np.isfinite(second.stress).all()):
        return None
    fractions = two.cell.scaled_positions(two.positions) - one.cell.scaled_positions(one.positions)
    fractions -= np.round(fractions)
    strain = np.linalg.solve(cell, cell_change)
    if np.linalg.norm(strain) > MOST_STRAIN or _largest(fractions @ cell) > MOST_DISPLACEMENT_ANGSTROM:
        return None
    forces, stress = np.transpose([_work(end, fractions, cell_change) for end in (first, second)])
    curvature = CURVATURE_ERROR * np.diff(forces + stress)[0]
    uncertainty = np.linalg.norm([curvature, FORCE_ERROR * np.abs(forces).max(), noise])
    return "stress", stress.mean(), energy - forces.mean(), float(uncertainty)


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

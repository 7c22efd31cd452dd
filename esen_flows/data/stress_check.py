"""A check of unit and sign of forces and stresses: whether they are derivatives of the energies.

Between two similar records of the same atoms, the energy difference is the work of the forces along the internal
displacement and of the stress along the strain, here by the trapezoidal rule. The slope of the differences against the
work is 1 if the labels have the unit and sign that they are read with, -1 if the sign is wrong, and the ratio of the
units if the unit is wrong. Normal and shear components of the stress have a slope each: six numbers in another order
leave the normal ones right and exchange the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from esen_flows.data.labelled import LabelledStructure, can_have_stress
from esen_flows.errors import InputError
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA

if TYPE_CHECKING:
    from esen_flows.data.dataset import Dataset

MOST_TRIED = 4000
MOST_STRAIN = 0.06  # Frobenius norm
LEAST_PART = 1e-3  # of the largest component of a strain, for normal and shear components to be judged
MOST_DISPLACEMENT_ANGSTROM = 0.25
FEWEST_PAIRS = 8
SAMPLES, TURNS = 200, 30  # of the resampling, and of the search for the least deviation
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
NORMAL, SHEAR = "normal stress", "shear stress"
# Where the shear components come from (rows of _OTHER_ORDERS), if six numbers were read in the wrong order: xy, yz and
# zx of a stress in VASP's order are read as yz, zx and xy.
_SHEAR_PLACES = ((0, 1), (1, 2), (2, 0))
_OTHER_ORDERS = {
    "as they are read, they are in VASP's order: --stress-order vasp": ((1, 2), (2, 0), (0, 1)),
    "as they are read, they are in Voigt's order: --stress-order voigt": ((2, 0), (0, 1), (1, 2)),
}
# Another order is likely if it leaves less than this part of the energies unexplained.
_MUCH_BETTER = 2 / 3


@dataclass(frozen=True)
class Slope:
    """Slope of the energy differences against the work of the labels, over pairs of records.

    Attributes
    ----------
    quantity
        "forces", "normal stress" or "shear stress".
    slope
        1 if the labels are derivatives of the energies; None without pairs.
    standard_error
        Standard error of the slope, by resampling the pairs; None without pairs.
    pairs
        Number of pairs between which the labels do work; without a slope, of pairs that were looked at.
    likely
        Another way to read the labels that explains the energies far better; "" for none.
    """

    quantity: str
    slope: float | None
    standard_error: float | None
    pairs: int
    likely: str = ""

    @property
    def verdict(self) -> str:
        """One of "right", "wrong" and "not known", the last one for too few pairs or too scattered ones."""
        if self.likely:
            return "wrong"
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
            if not self.pairs:
                return f"{self.quantity}: not checked, no two records are similar enough"
            return f"{self.quantity}: not checked, the labels do no work between {self.pairs} pairs of similar records"
        text = (
            f"{self.quantity}: slope {self.slope:.3g} +- {self.standard_error:.2g}, {self.pairs} pairs, {self.verdict}"
        )
        if self.likely:
            text += f"; {self.likely}"
        elif self.verdict == "wrong" and self.quantity != "forces":
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


def check_labels_by_strain(dataset: "Dataset", seed: int = 0) -> tuple[Slope, Slope, Slope]:
    """Slopes of forces, of normal stresses and of shear stresses.

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
    tuple[Slope, Slope, Slope]
        Slopes of the forces, of the normal stresses and of the shear stresses.
    """
    points: dict[str, list[_Point]] = {"forces": [], "stress": []}
    for first, second in _pairs(dataset, seed):
        judged = _judged(dataset[first], dataset[second])
        if judged is None:
            continue
        quantity, point = judged
        # Either of them: labels that are far too small do no work.
        if max(*map(abs, point.work), abs(point.energy)) > point.uncertainty:
            points[quantity].append(point)
    (forces,) = _slopes(("forces",), points["forces"], seed)
    normal, shear = _slopes((NORMAL, SHEAR), points["stress"], seed)
    if (order := _likely_order(points["stress"])) is not None:
        # The normal components are judged beside the shear components that are probably right.
        corrected = [replace(point, work=(point.work[0], point.in_other_orders[order])) for point in points["stress"]]
        normal = _slopes((NORMAL, SHEAR), corrected, seed)[0]
        shear = replace(shear, likely=list(_OTHER_ORDERS)[order])
    return forces, normal, shear


def require_right(slopes: Sequence[Slope]) -> None:
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


@dataclass(frozen=True)
class _Point:
    """Work of labels between two records, the energy that it should equal, and their uncertainty, in eV.

    `work` is that of the forces, or that of the normal and of the shear stresses. `in_other_orders` is the work of the
    shear stresses if the six numbers were in another order.
    """

    work: tuple[float, ...]
    energy: float
    uncertainty: float
    in_other_orders: tuple[float, ...] = ()


def _judged(first: LabelledStructure, second: LabelledStructure) -> tuple[str, _Point] | None:
    """The label that a pair of records judges, and the pair's point.

    None for records that are too different, or that have different cells and no stress.
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
        uncertainty = float(np.hypot(CURVATURE_ERROR * np.diff(forces)[0], noise))
        return "forces", _Point((float(forces.mean()),), energy, uncertainty)
    if not (
        can_have_stress(one)
        and can_have_stress(two)
        and np.isfinite(first.stress).all()
        and np.isfinite(second.stress).all()
    ):
        return None
    fractions = two.cell.scaled_positions(two.positions) - one.cell.scaled_positions(one.positions)
    fractions -= np.round(fractions)
    strain = np.linalg.solve(cell, cell_change)
    if np.linalg.norm(strain) > MOST_STRAIN or _largest(fractions @ cell) > MOST_DISPLACEMENT_ANGSTROM:
        return None
    forces, normal, shear, *others = np.transpose([_work(end, fractions, cell_change) for end in (first, second)])
    curvature = CURVATURE_ERROR * np.diff(forces + normal + shear)[0]
    uncertainty = float(np.linalg.norm([curvature, FORCE_ERROR * np.abs(forces).max(), noise]))
    work = (float(normal.mean()), float(shear.mean()))
    return "stress", _Point(work, energy - forces.mean(), uncertainty, tuple(float(other.mean()) for other in others))


def _work(end: LabelledStructure, fractions: np.ndarray, cell_change: np.ndarray) -> list[float]:
    """Work in eV of forces, normal and shear stress, and of shear stress in other orders, with the labels of an end."""
    cell = end.atoms.cell.array
    strain = np.linalg.solve(cell, cell_change)
    volume, size = end.atoms.get_volume(), np.abs(strain).max()
    by_place = [strain[place] + strain[place[::-1]] for place in _SHEAR_PLACES]
    # A strain of one kind has rounding errors of the other kind, whose work says nothing.
    on_diagonal = np.diag(strain) * (np.abs(np.diag(strain)).max() > LEAST_PART * size)
    by_place = np.multiply(by_place, np.abs(by_place).max() > LEAST_PART * size)
    shear = [
        volume * float(np.dot([end.stress[place] for place in places], by_place))
        for places in (_SHEAR_PLACES, *_OTHER_ORDERS.values())
    ]
    return [
        -float((end.forces * (fractions @ cell)).sum()),
        volume * float(np.diag(end.stress) @ on_diagonal),
        *shear,
    ]


def _largest(moved: np.ndarray) -> float:
    """Length of the longest displacement in Angstrom, after the mean one is subtracted."""
    return float(np.linalg.norm(moved - moved.mean(axis=0), axis=1).max())


def _slopes(quantities: Sequence[str], points: Sequence[_Point], seed: int) -> list[Slope]:
    """The slopes that together leave the least absolute deviation: a few pairs of unlike calculations do not turn them.

    A quantity whose labels do no work between any two records has no slope.
    """
    work = np.array([point.work for point in points]).reshape(-1, len(quantities))
    does_work = np.abs(work).max(axis=0, initial=0.0) > 0.0
    if not does_work.any():
        return [Slope(quantity, None, None, len(points)) for quantity in quantities]
    columns, energy = _weighted(points, work[:, does_work])
    random = np.random.default_rng(seed)
    chosen = random.integers(0, len(points), size=(SAMPLES, len(points)))
    fitted = iter(_least_deviation(columns[None], energy[None])[0])
    errors = iter(_least_deviation(columns[chosen], energy[chosen]).std(axis=0))
    return [
        Slope(quantity, float(next(fitted)), float(next(errors)), int(np.count_nonzero(work[:, number])))
        if does_work[number]
        else Slope(quantity, None, None, len(points))
        for number, quantity in enumerate(quantities)
    ]


def _weighted(points: Sequence[_Point], work: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Work (n, k) and energy (n,) of pairs, in units of their uncertainty."""
    uncertainty = np.array([point.uncertainty for point in points])
    return work / uncertainty[:, None], np.array([point.energy for point in points]) / uncertainty


def _least_deviation(work: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """(samples, k) slopes of least absolute deviation, from (samples, n, k) work and (samples, n) energies.

    They are found by least squares, in which each pair is divided by its deviation in the turn before.
    """
    weight = np.ones_like(energy)
    for _ in range(TURNS):
        weighted = work * weight[..., None]
        normal_matrix, right = weighted.swapaxes(1, 2) @ work, (weighted * energy[..., None]).sum(axis=1)
        slopes = (np.linalg.pinv(normal_matrix) @ right[..., None])[..., 0]
        deviation = np.abs(energy - (work @ slopes[..., None])[..., 0])
        weight = 1.0 / np.maximum(deviation, 1e-6 * np.abs(energy) + 1e-12)
    return slopes


def _likely_order(points: Sequence[_Point]) -> int | None:
    """The one of `_OTHER_ORDERS` that explains the energies far better than the order that was read; None for none."""
    if len(points) < FEWEST_PAIRS:
        return None
    left: list[float] = []
    for number in (None, *range(len(_OTHER_ORDERS))):
        work = [p.work if number is None else (p.work[0], p.in_other_orders[number]) for p in points]
        columns, energy = _weighted(points, np.array(work))
        slopes = _least_deviation(columns[None], energy[None])[0]
        is_possible = number is None or abs(slopes[1] - 1.0) <= TOLERANCE
        left.append(float(np.abs(energy - columns @ slopes).sum()) if is_possible else np.inf)
    best = int(np.argmin(left[1:]))
    return best if left[1 + best] < _MUCH_BETTER * left[0] else None

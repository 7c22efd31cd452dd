"""Curves of homonuclear diatomic molecules: twelve metrics of smoothness and of agreement with PBE."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers, covalent_radii
from ase.data.vdw_alvarez import vdw_radii
from numpy.typing import NDArray

from esen_flows.errors import InputError
from esen_flows.schemas.diatomics import ELEMENTS, DiatomicsOutput

Floats = NDArray[np.float64]
# Made by benchmarks/published_board.py from the leaderboard's diatomics-dft.json.gz (MIT): PBE_64 of VASP, lowest spin.
PBE_FILE = Path(__file__).with_name("diatomics_pbe.json.gz")
# PBE's curves of these elements jump between spin states, so that they are not compared with them.
UNRELIABLE_REFERENCES = ("Pr", "Pm", "Sm", "Tb", "Dy", "Ho", "Er", "Tm")
REFERENCE_FREE = (
    "tortuosity", "energy_diff_flips", "energy_jump", "force_flips", "force_total_variation", "force_jump",
)  # fmt: skip
AGAINST_REFERENCE = (
    "pbe_energy_mae", "pbe_force_mae", "pbe_bond_length_error", "pbe_well_depth_error", "pbe_vib_freq_error",
    "pbe_wall_dist_mae",
)  # fmt: skip
_MIN_POINTS = 5
_N_GRID = 200
_MIN_DEPTH_EV = 0.05
_WALL_THRESHOLDS_EV = (1.0, 5.0, 10.0, 20.0, 50.0, 100.0)
# sqrt(1 eV/Angstrom^2/u) / (2 pi c) in 1/cm.
_WAVENUMBER = 521.4709004


@dataclass(frozen=True)
class DiatomicCurve:
    """Energies and forces of two equal atoms at increasing separations along x.

    Attributes
    ----------
    distances_angstrom
        (n,) separations in Angstrom, increasing.
    energies_ev
        (n,) energies of the pair in eV.
    forces_ev_per_angstrom
        (n, 2, 3) forces on both atoms in eV/Angstrom.
    """

    distances_angstrom: Floats
    energies_ev: Floats
    forces_ev_per_angstrom: Floats

    def between(self, low: float, high: float) -> "DiatomicCurve":
        """The points between two separations.

        Parameters
        ----------
        low, high
            Lowest and highest separation in Angstrom, inclusive.

        Returns
        -------
        DiatomicCurve
            Curve of the chosen points.
        """
        chosen = (self.distances_angstrom >= low) & (self.distances_angstrom <= high)
        return DiatomicCurve(
            self.distances_angstrom[chosen], self.energies_ev[chosen], self.forces_ev_per_angstrom[chosen]
        )


def read_curves(path: Path, functional: str | None = None) -> dict[str, DiatomicCurve]:
    """Curves of a file in the leaderboard's format.

    Parameters
    ----------
    path
        Predictions of a model ("homo-nuclear" at the top) or the DFT reference (functionals at the top), as JSON,
        compressed or not.
    functional
        Functional of the reference, "PBE" or "r2SCAN"; None for predictions.

    Returns
    -------
    dict
        Curve of each element.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        data = path.read_bytes()
        content = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
        pairs: dict[str, dict[str, Any]] = content[functional or "homo-nuclear"]
        return {
            pair.partition("-")[0]: DiatomicCurve(
                np.array(curve["distances"], dtype=float),
                np.array(curve["energies"], dtype=float),
                np.array(curve["forces"], dtype=float),
            )
            for pair, curve in pairs.items()
        }
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no diatomic curves can be read ({type(error).__name__}: {error})") from None


@cache
def pbe_curves() -> dict[str, DiatomicCurve]:
    """PBE's curves that the leaderboard compares with.

    Returns
    -------
    dict
        Curve of each of the 87 elements.
    """
    return read_curves(PBE_FILE, "PBE")


def curves_of(output: DiatomicsOutput) -> dict[str, DiatomicCurve]:
    """Curves of a result as the leaderboard scores them.

    Parameters
    ----------
    output
        The result.

    Returns
    -------
    dict
        Curve of each element, without points that are not finite; an element that lacks one at a separation that is
        scored has none.
    """
    curves = {}
    for element, energies, forces in zip(
        output.elements, output.energies_ev, output.forces_ev_per_angstrom, strict=True
    ):
        distances = np.asarray(output.distances_angstrom)
        finite = np.isfinite(energies) & np.isfinite(forces).all(axis=(1, 2))
        low, high = _wall_window(element, float(distances.max()))
        if finite[(distances >= low) & (distances <= high)].all():
            curves[element] = DiatomicCurve(distances[finite], energies[finite], forces[finite])
    return curves


def scored_window(element: str, largest_angstrom: float, inner_factor: float = 0.9) -> tuple[float, float]:
    """Separations that are scored.

    Parameters
    ----------
    element
        Symbol of the element.
    largest_angstrom
        Largest separation of the curve in Angstrom.
    inner_factor
        Lower end in covalent radii; the wall metric alone has 0.8.

    Returns
    -------
    tuple of float
        Lower and upper end in Angstrom: the upper end is 3.1 van der Waals radii (Alvarez) where one is known.
    """
    number = atomic_numbers[element]
    radius = float(vdw_radii[number]) if number < len(vdw_radii) else float("nan")
    high = min(3.1 * radius, largest_angstrom) if np.isfinite(radius) else largest_angstrom
    return inner_factor * float(covalent_radii[number]), high


def diatomic_metrics(element: str, curve: DiatomicCurve, reference: DiatomicCurve | None) -> dict[str, float]:
    """Metrics of one element, under the keys of the leaderboard's model cards.

    Parameters
    ----------
    element
        Symbol of the element.
    curve
        Curve of the force field.
    reference
        PBE's curve; None, or an element of `UNRELIABLE_REFERENCES`, for the metrics without a reference alone.

    Returns
    -------
    dict
        "tortuosity", "energy_diff_flips", "energy_jump" (eV), "force_flips", "force_total_variation" (eV/Angstrom),
        "force_jump" (eV/Angstrom), and against PBE "pbe_energy_mae" (eV), "pbe_force_mae" (eV/Angstrom),
        "pbe_bond_length_error" (Angstrom), "pbe_well_depth_error" (eV), "pbe_vib_freq_error" (1/cm) and
        "pbe_wall_dist_mae" (Angstrom). NaN where a metric is not defined; empty with fewer than five points.
    """
    low, high = scored_window(element, float(curve.distances_angstrom.max(initial=0.0)))
    scored = curve.between(low, high)
    if len(scored.distances_angstrom) < _MIN_POINTS:
        return {}
    found = _smoothness(scored)
    if reference is None or element in UNRELIABLE_REFERENCES:
        return found
    theirs = reference.between(*scored_window(element, float(reference.distances_angstrom.max(initial=0.0))))
    if len(theirs.distances_angstrom) < _MIN_POINTS:
        return found
    found |= _curve_errors(scored, theirs)
    found |= _well_errors(scored, theirs, float(atomic_masses[atomic_numbers[element]]))
    inner = [each.between(*_wall_window(element, float(each.distances_angstrom.max()))) for each in (curve, reference)]
    return found | {"pbe_wall_dist_mae": _wall_error(*inner)}


def model_metrics(curves: Mapping[str, DiatomicCurve], reference: Mapping[str, DiatomicCurve]) -> dict[str, float]:
    """Means over the elements, as on a model card.

    Parameters
    ----------
    curves
        Curve of the force field by element.
    reference
        PBE's curve by element.

    Returns
    -------
    dict
        Mean of each metric over the elements with a finite value, to four significant digits; NaN if there is none.
    """
    rows = [
        diatomic_metrics(element, curves[element], reference.get(element)) for element in ELEMENTS if element in curves
    ]
    means = {}
    for name in (*REFERENCE_FREE, *AGAINST_REFERENCE):
        values = np.array([row[name] for row in rows if name in row and np.isfinite(row[name])], dtype=float)
        means[name] = float(f"{values.mean():.4g}") if values.size else float("nan")
    return means


def _smoothness(curve: DiatomicCurve) -> dict[str, float]:
    """The metrics that need no reference."""
    energies, forces = curve.energies_ev, curve.forces_ev_per_angstrom[:, 0, 0]
    steps = np.diff(energies)
    lowest = energies.min()
    direct = abs(energies[0] - lowest) + abs(energies[-1] - lowest)
    energy_steps = steps[np.abs(steps) >= 1e-3]
    return {
        "tortuosity": float(np.abs(steps).sum() / direct) if direct else float("nan"),
        "energy_diff_flips": _flips(energy_steps),
        "energy_jump": _jump(energy_steps),
        "force_flips": _flips(forces[np.abs(forces) >= 1e-2]),
        "force_total_variation": float(np.abs(np.diff(forces)).sum()),
        "force_jump": _jump(np.diff(forces)),
    }


def _flips(values: Floats) -> float:
    signs = np.sign(values)
    return float((signs[1:] != signs[:-1]).sum())


def _jump(steps: Floats) -> float:
    """Sum of the steps before and after each change of direction."""
    signs = np.sign(steps)
    turns = np.flatnonzero(signs[1:] != signs[:-1])
    return float((np.abs(steps[turns]) + np.abs(steps[turns + 1])).sum())


def _curve_errors(ours: DiatomicCurve, theirs: DiatomicCurve) -> dict[str, float]:
    """Mean deviations of energies and forces on 200 points of the overlap."""
    low = max(ours.distances_angstrom[0], theirs.distances_angstrom[0])
    high = min(ours.distances_angstrom[-1], theirs.distances_angstrom[-1])
    if low >= high:
        return {"pbe_energy_mae": float("nan"), "pbe_force_mae": float("nan")}
    grid = np.linspace(low, high, _N_GRID)
    energies = [np.interp(grid, curve.distances_angstrom, curve.energies_ev) for curve in (ours, theirs)]
    shifted = [energy - energy[-1] for energy in energies]
    forces = [
        np.stack(
            [
                np.interp(grid, curve.distances_angstrom, curve.forces_ev_per_angstrom[:, atom, axis])
                for atom in range(2)
                for axis in range(3)
            ]
        )
        for curve in (ours, theirs)
    ]
    return {
        "pbe_energy_mae": float(np.abs(shifted[0] - shifted[1]).mean()),
        "pbe_force_mae": float(np.abs(forces[0] - forces[1]).mean()),
    }


@dataclass(frozen=True)
class _Well:
    """Minimum of a curve by a parabola: distance in Angstrom, curvature in eV/Angstrom^2, depth in eV."""

    distance: float
    curvature: float
    depth: float


def _well(curve: DiatomicCurve) -> _Well:
    """The minimum by a parabola through five points around the lowest one."""
    distances, energies = curve.distances_angstrom, curve.energies_ev
    lowest = int(np.argmin(energies))
    begin = min(max(lowest - 2, 0), len(distances) - _MIN_POINTS)
    near = slice(begin, begin + _MIN_POINTS)
    square, linear, _ = np.polyfit(distances[near] - distances[lowest], energies[near], 2)
    distance = distances[lowest] - linear / (2 * square) if square > 0 else distances[lowest]
    if not distances[near][0] <= distance <= distances[near][-1]:
        distance = distances[lowest]
    return _Well(float(distance), float(2 * square), float(energies[-1] - energies.min()))


def _well_errors(ours: DiatomicCurve, theirs: DiatomicCurve, mass: float) -> dict[str, float]:
    """Deviations of bond length, well depth and vibration, where PBE binds at all."""
    wells = [_well(curve) for curve in (ours, theirs)]
    bound = wells[1].depth >= _MIN_DEPTH_EV
    wavenumbers = [
        _WAVENUMBER * np.sqrt(well.curvature / (mass / 2)) if well.curvature > 0 else float("nan") for well in wells
    ]
    return {
        "pbe_bond_length_error": abs(wells[0].distance - wells[1].distance) if bound else float("nan"),
        "pbe_well_depth_error": abs(wells[0].depth - wells[1].depth) if bound else float("nan"),
        "pbe_vib_freq_error": float(abs(wavenumbers[0] - wavenumbers[1])) if bound else float("nan"),
    }


def _wall_window(element: str, largest_angstrom: float) -> tuple[float, float]:
    low, high = scored_window(element, largest_angstrom, 0.8)
    return low - 1e-12, high


def _wall(curve: DiatomicCurve) -> list[float | None]:
    """Separations in Angstrom at which the energy rises by each threshold above its minimum; None where it does not."""
    lowest = int(np.argmin(curve.energies_ev))
    # From the minimum inwards; the running maximum removes dips of the inner branch.
    distances = curve.distances_angstrom[lowest::-1]
    energies = np.maximum.accumulate(curve.energies_ev[lowest::-1] - curve.energies_ev[lowest])
    found: list[float | None] = []
    for threshold in _WALL_THRESHOLDS_EV:
        if energies[-1] < threshold:
            found.append(None)
            continue
        after = int(np.argmax(energies >= threshold))
        share = (threshold - energies[after - 1]) / (energies[after] - energies[after - 1])
        found.append(float(distances[after - 1] + share * (distances[after] - distances[after - 1])))
    return found


def _wall_error(ours: DiatomicCurve, theirs: DiatomicCurve) -> float:
    """Mean deviation of the radii at the thresholds that PBE reaches; one not reached costs PBE's whole radius."""
    errors = [
        radius if predicted is None else abs(predicted - radius)
        for predicted, radius in zip(_wall(ours), _wall(theirs), strict=True)
        if radius is not None
    ]
    return float(np.mean(errors)) if errors else float("nan")

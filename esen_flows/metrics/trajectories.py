"""Two trajectories of one system compared: pair distances, bond angles, vibrations and pressure."""

from fractions import Fraction
from itertools import pairwise
from math import lcm

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from esen_flows.errors import InputError
from esen_flows.physics.md.analysis import (
    Trajectory,
    minimum_image_radius,
    pair_distribution,
    vibrational_spectrum,
)
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA

Floats = NDArray[np.float64]
_MIN_FRAMES = 4
_RDF_BINS, _ADF_BINS, _PRESSURE_BINS = 500, 180, 80
_BOND_FACTOR = 1.25
_SPECTRUM_MASS = 0.999


def common_frames(first: Trajectory, second: Trajectory) -> tuple[Trajectory, Trajectory]:
    """Frames of two trajectories at the same times: the same span, on the least common multiple of the intervals.

    Parameters
    ----------
    first, second
        Trajectories of the same atoms.

    Returns
    -------
    tuple of Trajectory
        Both trajectories at the common times.

    Raises
    ------
    InputError
        The atoms differ, or fewer than four frames are common.
    """
    if not np.array_equal(first.numbers, second.numbers):
        raise InputError("the two trajectories have different atoms; compare trajectories of one system")
    intervals = [Fraction(each.interval_fs).limit_denominator(10_000) for each in (first, second)]
    denominator = lcm(*(interval.denominator for interval in intervals))
    ticks = [int(interval * denominator) for interval in intervals]
    step = lcm(*ticks)
    span = min(first.duration_fs, second.duration_fs)
    n_frames = int(np.floor(span * denominator / step + 1e-9)) + 1
    if n_frames < _MIN_FRAMES:
        raise InputError(
            f"the two trajectories have {n_frames} frames at the same times; at least {_MIN_FRAMES} are needed"
        )
    return first.every(step // ticks[0], n_frames), second.every(step // ticks[1], n_frames)


def trajectory_metrics(predicted: Trajectory, reference: Trajectory) -> dict[str, float]:
    """Metrics of the molecular dynamics task, under the names of the leaderboard's table.

    Parameters
    ----------
    predicted
        Trajectory of the force field.
    reference
        Trajectory by DFT, of the same atoms.

    Returns
    -------
    dict
        "rdf_error", "adf_error" and "vdos_error" in %, and where both have stresses "pressure_mae" and
        "pressure_wasserstein" in GPa and "pressure_error" in %.
    """
    ours, theirs = common_frames(predicted, reference)
    found = {
        "rdf_error": _rdf_error(theirs, ours),
        "adf_error": _adf_error(theirs, ours),
        "vdos_error": spectrum_error(ours, theirs),
    }
    if ours.stress_ev_per_angstrom3 is not None and theirs.stress_ev_per_angstrom3 is not None:
        found |= _pressure_errors(theirs.stress_ev_per_angstrom3, ours.stress_ev_per_angstrom3)
    return found


def _rdf_error(reference: Trajectory, predicted: Trajectory) -> float:
    longest = minimum_image_radius(reference, predicted)
    distances, theirs = pair_distribution(reference, _RDF_BINS, longest)
    _, ours = pair_distribution(predicted, _RDF_BINS, longest)
    difference = np.trapezoid(np.abs(theirs - ours), distances)
    structure = np.trapezoid(np.abs(theirs - 1), distances)
    return 100 * min(1.0, float(difference / structure)) if structure else float("nan")


def bond_angles(trajectory: Trajectory, longest_angstrom: float) -> Floats:
    """Histogram of the angles between bonds, over all frames.

    Parameters
    ----------
    trajectory
        Trajectory.
    longest_angstrom
        Bonds longer than this are not counted, in Angstrom.

    Returns
    -------
    ndarray
        (180,) number of angles in each degree.
    """
    edges = np.linspace(0, 180, _ADF_BINS + 1)
    counts = np.zeros(_ADF_BINS)
    radii = covalent_radii[trajectory.numbers]
    from vesin import NeighborList  # it imports torch

    search = NeighborList(cutoff=min(_BOND_FACTOR * 2 * float(radii.max()), longest_angstrom), full_list=True)
    for positions, cell in zip(trajectory.positions_angstrom, trajectory.cells_angstrom, strict=True):
        first, second, vectors, distances = search.compute(positions, cell, periodic=True, quantities="ijDd")
        bonded = (distances <= _BOND_FACTOR * (radii[first] + radii[second])) & (distances > 0)
        first, vectors = first[bonded], vectors[bonded] / distances[bonded, None]
        order = np.argsort(first, kind="stable")
        first, vectors = first[order], vectors[order]
        begins = np.searchsorted(first, np.arange(len(radii) + 1))
        for begin, end in pairwise(begins):
            if end - begin < 2:
                continue
            cosines = vectors[begin:end] @ vectors[begin:end].T
            upper = cosines[np.triu_indices(end - begin, 1)]
            counts += np.histogram(np.degrees(np.arccos(np.clip(upper, -1, 1))), edges)[0]
    return counts


def _adf_error(reference: Trajectory, predicted: Trajectory) -> float:
    longest = minimum_image_radius(reference, predicted)
    middles = np.arange(_ADF_BINS) + 0.5
    theirs, ours = bond_angles(reference, longest), bond_angles(predicted, longest)
    if not theirs.sum():
        return float("nan")
    if not ours.sum():
        return 100.0
    uniform = wasserstein_distance(middles, middles, theirs, np.sin(np.radians(middles)))
    return 100 * min(1.0, float(wasserstein_distance(middles, middles, theirs, ours) / uniform))


def spectrum_error(predicted: Trajectory, reference: Trajectory) -> float:
    """Distance of two vibrational spectra within the band of the reference.

    Parameters
    ----------
    predicted
        Trajectory of the force field.
    reference
        Trajectory by DFT, with frames at the same times.

    Returns
    -------
    float
        Wasserstein distance in % of the reference's standard deviation, at most 100; NaN if nothing moves in the
        reference.
    """
    (their_thz, theirs), (our_thz, ours) = vibrational_spectrum(reference), vibrational_spectrum(predicted)
    grid = np.union1d(their_thz, our_thz)
    grid = grid[grid <= min(their_thz[-1], our_thz[-1])]
    widths = np.diff(grid)
    middles = (grid[1:] + grid[:-1]) / 2
    masses = []
    for thz, density in ((their_thz, theirs), (our_thz, ours)):
        values = np.interp(grid, thz, density)
        masses.append((values[1:] + values[:-1]) / 2 * widths)
    their_mass, our_mass = masses
    if not their_mass.sum():
        return float("nan")
    band = int(np.searchsorted(np.cumsum(their_mass) / their_mass.sum(), _SPECTRUM_MASS)) + 1
    middles, their_mass, our_mass = middles[:band], their_mass[:band], our_mass[:band]
    if not our_mass.sum():
        return 100.0
    mean = np.average(middles, weights=their_mass)
    width = float(np.sqrt(np.average((middles - mean) ** 2, weights=their_mass)))
    return 100 * min(1.0, float(wasserstein_distance(middles, middles, their_mass, our_mass) / width))


def _pressure_errors(reference: Floats, predicted: Floats) -> dict[str, float]:
    theirs, ours = (-stress.mean(axis=1) * EV_PER_ANGSTROM3_TO_GPA for stress in (reference, predicted))
    edges = np.linspace(min(theirs.min(), ours.min()), max(theirs.max(), ours.max()), _PRESSURE_BINS + 1)
    if edges[0] == edges[-1]:
        overlap = 0.0
    else:
        densities = [np.histogram(pressure, edges, density=True)[0] for pressure in (theirs, ours)]
        overlap = float(np.abs(densities[0] - densities[1]).sum() * (edges[1] - edges[0]))
    return {
        "pressure_mae": float(abs(ours.mean() - theirs.mean())),
        "pressure_wasserstein": float(wasserstein_distance(theirs, ours)),
        "pressure_error": 50 * overlap,
    }

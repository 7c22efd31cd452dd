"""The drift of the total energy in constant-energy dynamics: numbers of one trajectory, as pure functions.

All of them take arrays along one trajectory - times in ps, total energies in eV of the whole cell - and know no force
field. `energy_drift` returns all statistics of one trajectory, `step_dependence` compares three time steps of one
system. `physics.conservation.nve_runs` makes the trajectories of all systems of a protocol:
`nve_runs(force_field, protocol) -> NveOutput`.

Thresholds are not applied here.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

from esen_flows.errors import InputError
from esen_flows.schemas.nve import EnergyDrift, StepDependence

# LAMBench (2026-04): three times the slope of MACE-MPA-0; crashes and slopes five decades above count 5.
LAMBENCH_TOLERANCE_EV_PER_ATOM_PS, LAMBENCH_WORST, LAMBENCH_WARM_UP = 5e-4, 5.0, 0.2
# The runner of eSEN's authors: rows dropped at the start, and rows of the moving mean.
FAIRCHEM_DROPPED, FAIRCHEM_WINDOW = 0.1, 20
LEAST_FRAMES = 40
_BLOCKS, _CONFIDENCE = 20, 0.95
# Fluctuations of one system with half and a quarter of the time step, and their tolerances.
SECOND_ORDER_RATIOS, RATIO_TOLERANCES = (4.0, 16.0), (0.15, 0.30)


def energy_drift(
    times_ps: np.ndarray, total_energies_ev: np.ndarray, kinetic_energies_ev: np.ndarray, n_atoms: int
) -> EnergyDrift:
    """All statistics of the total energy along one trajectory.

    Parameters
    ----------
    times_ps
        (frames,) times in ps, at equal distances.
    total_energies_ev
        (frames,) potential plus kinetic energy of the cell in eV.
    kinetic_energies_ev
        (frames,) kinetic energy of the cell in eV.
    n_atoms
        Number of atoms.

    Returns
    -------
    EnergyDrift
        The statistics.

    Raises
    ------
    InputError
        There are fewer than 40 frames, or the arrays differ in length.
    """
    times, energies = _checked(times_ps, total_energies_ev)
    slope, interval, fluctuation = linear_drift(times, energies)
    per_atom = 1000.0 / n_atoms
    lambench = lambench_slope(times, energies, n_atoms)
    return EnergyDrift(
        slope_mev_per_atom_ps=per_atom * slope,
        slope_interval_mev_per_atom_ps=per_atom * interval,
        fluctuation_mev_per_atom=per_atom * fluctuation,
        fairchem_mev_per_atom_ps=fairchem_drift(times, energies, n_atoms),
        lambench_slope_ev_per_atom_ps=lambench,
        lambench_score=lambench_score(lambench),
        mlipaudit_drift_ratio=mlipaudit_drift_ratio(times, energies, kinetic_energies_ev),
    )


def linear_drift(times_ps: np.ndarray, energies_ev: np.ndarray) -> tuple[float, float, float]:
    """Slope of a line through the energies, the half-width of its 95 % interval, and the fluctuation about the line.

    The energy of velocity Verlet oscillates with the vibrations, so that neighbouring frames are no independent
    measurements. The interval is therefore that of a line through the means of 20 blocks, wider by the first-order
    autocorrelation of their residuals where that is positive.

    Parameters
    ----------
    times_ps
        (frames,) times in ps.
    energies_ev
        (frames,) energies in eV.

    Returns
    -------
    tuple of float
        Slope and half-width in eV/ps, standard deviation of the residuals in eV.

    Raises
    ------
    InputError
        There are fewer than 40 frames, or the arrays differ in length.
    """
    times, energies = _checked(times_ps, energies_ev)
    slope, residuals = _line(times, energies)
    usable = len(times) // _BLOCKS * _BLOCKS
    blocks = [values[-usable:].reshape(_BLOCKS, -1).mean(axis=1) for values in (times, energies)]
    _, scatter = _line(*blocks)
    spread = blocks[0] - blocks[0].mean()
    freedom = _BLOCKS - 2
    error = np.sqrt(scatter @ scatter / freedom / (spread @ spread))
    total = float(scatter @ scatter)
    found = scatter[1:] @ scatter[:-1] / total if total > 0.0 else 0.0
    # Residuals of a line look less correlated than they are: by (2 + 4 rho) / n in the mean, to first order.
    correlation = float(np.clip(found + (2.0 + 4.0 * found) / _BLOCKS, 0.0, 0.9))
    inflation = (1.0 + correlation) / (1.0 - correlation)
    width = float(student.ppf((1.0 + _CONFIDENCE) / 2.0, max(freedom / inflation, 2.0)) * error * np.sqrt(inflation))
    return slope, width, float(residuals.std())


def fairchem_drift(times_ps: np.ndarray, energies_ev: np.ndarray, n_atoms: int) -> float:
    """Drift as eSEN's authors compute it: moving means, and the difference of two of them over the time.

    Of the rows after the first 10 %, means of 20 neighbours are taken. The first mean that counts is again 10 % of all
    rows later, while the time is counted from the first of these rows, so that a linear drift gives 8/9 of its slope.

    Parameters
    ----------
    times_ps
        (frames,) times in ps; the authors log every tenth step.
    energies_ev
        (frames,) total energies in eV.
    n_atoms
        Number of atoms.

    Returns
    -------
    float
        Drift in meV/atom/ps, never negative.

    Raises
    ------
    InputError
        There are fewer than 40 frames, or the arrays differ in length.
    """
    times, energies = _checked(times_ps, energies_ev)
    first = int(FAIRCHEM_DROPPED * len(times))
    smooth = np.convolve(energies[first:] / n_atoms, np.ones(FAIRCHEM_WINDOW) / FAIRCHEM_WINDOW, mode="valid")
    return float(1000.0 * abs(smooth[-1] - smooth[first]) / (times[-1] - times[first]))


def lambench_slope(times_ps: np.ndarray, energies_ev: np.ndarray, n_atoms: int) -> float:
    """LAMBench's slope: by least squares, without the first 20 %, absolute and per atom.

    Parameters
    ----------
    times_ps
        (frames,) times in ps.
    energies_ev
        (frames,) total energies in eV.
    n_atoms
        Number of atoms.

    Returns
    -------
    float
        Slope in eV/atom/ps.

    Raises
    ------
    InputError
        There are fewer than 40 frames, or the arrays differ in length.
    """
    times, energies = _checked(times_ps, energies_ev)
    first = int(LAMBENCH_WARM_UP * len(times))
    return abs(_line(times[first:], energies[first:])[0]) / n_atoms


def lambench_score(slope_ev_per_atom_ps: float | None) -> float:
    """LAMBench's instability of one system: decades of the slope above the tolerance of 5e-4 eV/atom/ps.

    Parameters
    ----------
    slope_ev_per_atom_ps
        Absolute slope in eV/atom/ps; None for a run that crashed.

    Returns
    -------
    float
        0 at or below the tolerance, 5 for a crash or five decades.
    """
    if slope_ev_per_atom_ps is None or not np.isfinite(slope_ev_per_atom_ps):
        return LAMBENCH_WORST
    decades = np.log10(max(slope_ev_per_atom_ps / LAMBENCH_TOLERANCE_EV_PER_ATOM_PS, 1.0))
    return float(min(decades, LAMBENCH_WORST))


def mlipaudit_drift_ratio(times_ps: np.ndarray, energies_ev: np.ndarray, kinetic_energies_ev: np.ndarray) -> float:
    """MLIPAudit's drift ratio: change of the fitted line over the run, over the spread of the kinetic energy.

    Parameters
    ----------
    times_ps
        (frames,) times in ps.
    energies_ev
        (frames,) total energies in eV.
    kinetic_energies_ev
        (frames,) kinetic energies in eV.

    Returns
    -------
    float
        The ratio; infinite if the kinetic energy is constant and the total energy is not.

    Raises
    ------
    InputError
        There are fewer than 40 frames, or the arrays differ in length.
    """
    times, energies = _checked(times_ps, energies_ev)
    change, spread = abs(_line(times, energies)[0]) * (times[-1] - times[0]), float(np.std(kinetic_energies_ev))
    return float(change / spread) if spread > 0.0 else (np.inf if change > 0.0 else 0.0)


def step_dependence(time_steps_fs: Sequence[float], drifts: Sequence[EnergyDrift]) -> StepDependence:
    """Tell the integrator's error from that of the force field, from three time steps of one system.

    Parameters
    ----------
    time_steps_fs
        Three time steps in fs, each half of the one before.
    drifts
        Statistics of the trajectories with these steps, which start alike.

    Returns
    -------
    StepDependence
        Ratios of the fluctuations, and the drift that is left in the limit of short steps.

    Raises
    ------
    InputError
        There are not three steps, each half of the one before.
    """
    steps = np.asarray(time_steps_fs, dtype=float)
    if len(steps) != 3 or len(drifts) != 3 or not np.allclose(steps[:-1], 2.0 * steps[1:], rtol=1e-6):
        raise InputError(f"three time steps are needed, each half of the one before, got {list(time_steps_fs)}")
    fluctuations = np.array([drift.fluctuation_mev_per_atom for drift in drifts])
    slopes = np.array([drift.slope_mev_per_atom_ps for drift in drifts])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = fluctuations[0] / fluctuations[1:]
    second_order = bool(np.all(np.abs(ratios / SECOND_ORDER_RATIOS - 1.0) <= RATIO_TOLERANCES))
    _, intercept = np.polyfit(steps**2, slopes, 1)
    return StepDependence(
        time_steps_fs=tuple(steps.tolist()),
        fluctuations_mev_per_atom=tuple(fluctuations.tolist()),
        ratios=tuple(ratios.tolist()),
        second_order=second_order,
        slopes_mev_per_atom_ps=tuple(slopes.tolist()),
        intercept_mev_per_atom_ps=float(intercept),
    )


def _line(times: np.ndarray, energies: np.ndarray) -> tuple[float, np.ndarray]:
    """Slope of the line of least squares, and the residuals."""
    shifted, energies = times - times.mean(), energies - energies.mean()
    slope = float(shifted @ energies / (shifted @ shifted))
    return slope, energies - slope * shifted


def _checked(times: np.ndarray, energies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    times, energies = np.asarray(times, dtype=float), np.asarray(energies, dtype=float)
    if times.shape != energies.shape or len(times) < LEAST_FRAMES:
        raise InputError(
            f"the drift of an energy needs at least {LEAST_FRAMES} frames with one energy each, got {len(times)} times "
            f"and {len(energies)} energies; run longer, or record more frames (traj_interval)"
        )
    return times, energies

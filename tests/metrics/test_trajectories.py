"""Metrics of molecular dynamics: oscillators whose spectra, distances and pressures are known."""

import dataclasses

import numpy as np
import pytest
from ase.build import bulk

from esen_flows.errors import InputError
from esen_flows.metrics.trajectories import (
    Trajectory,
    common_frames,
    pair_distribution,
    spectrum_error,
    trajectory_metrics,
    vibrational_spectrum,
)


def crystal(
    n_frames: int = 200, seed: int = 0, thz: float = 5.0, pressure_gpa: float = 1.0, a: float = 3.6
) -> Trajectory:
    """Independent oscillators of one frequency about the sites of fcc copper, sampled every 5 fs."""
    atoms = bulk("Cu", cubic=True, a=a) * (2, 2, 2)
    dice = np.random.default_rng(seed)
    phases = dice.uniform(0, 2 * np.pi, (len(atoms), 3))
    times_ps = 0.005 * np.arange(n_frames)
    moves = 0.12 * np.sin(2 * np.pi * thz * times_ps[:, None, None] + phases)
    stress = -(pressure_gpa + dice.normal(0, 0.1, n_frames)) / 160.2176634
    return Trajectory(
        atoms.numbers,
        atoms.positions + moves,
        np.repeat(atoms.cell.array[None], n_frames, axis=0),
        5.0,
        np.repeat(stress[:, None], 3, axis=1),
    )


@pytest.fixture(scope="module")
def reference() -> Trajectory:
    return crystal()


def test_a_trajectory_against_itself(reference: Trajectory) -> None:
    found = trajectory_metrics(reference, reference)
    assert max(found.values()) == pytest.approx(0, abs=1e-9)


def test_another_sample_of_the_same_motion(reference: Trajectory) -> None:
    found = trajectory_metrics(crystal(seed=1), reference)
    assert found["rdf_error"] < 10
    assert found["adf_error"] < 2
    assert found["pressure_mae"] < 0.03


def test_vibrations_of_another_frequency(reference: Trajectory) -> None:
    """The peak is at its frequency; 1 THz more is many times the width of one line, which is capped at 100 %."""
    frequencies, density = vibrational_spectrum(reference)
    assert frequencies[np.argmax(density)] == pytest.approx(5.0)
    assert density.sum() == pytest.approx(3 * 32)
    assert spectrum_error(crystal(thz=6.0), reference) == 100


def test_a_shift_within_a_broad_spectrum() -> None:
    """Frequencies from 3 to 7 THz have the width 4 / sqrt(12); a shift by 0.2 THz is 17 % of it."""

    def broad(shift: float) -> Trajectory:
        dice = np.random.default_rng(2)
        thz = np.linspace(3, 7, 96).reshape(32, 3) + shift
        phases = dice.uniform(0, 2 * np.pi, (32, 3))
        still = crystal(2000)
        times = 0.005 * np.arange(2000)[:, None, None]
        rest = (bulk("Cu", cubic=True, a=3.6) * (2, 2, 2)).positions
        return dataclasses.replace(still, positions_angstrom=rest + 0.05 * np.sin(2 * np.pi * thz * times + phases))

    error = spectrum_error(broad(-0.2), broad(0.0))
    assert error == pytest.approx(100 * 0.2 / (4 / np.sqrt(12)), rel=0.1)


def test_pressures(reference: Trajectory) -> None:
    """Two distributions of width 0.1 GPa at 1 and 3 GPa do not overlap."""
    found = trajectory_metrics(crystal(pressure_gpa=3.0), reference)
    assert found["pressure_mae"] == pytest.approx(2.0, abs=0.02)
    assert found["pressure_wasserstein"] == pytest.approx(2.0, abs=0.02)
    assert found["pressure_error"] == pytest.approx(100.0)
    assert "pressure_mae" not in trajectory_metrics(
        dataclasses.replace(reference.every(1, 9), stress_ev_per_angstrom3=None), reference
    )


def test_first_neighbours_of_a_crystal(reference: Trajectory) -> None:
    """g(r) integrates to twelve neighbours in the first shell of fcc."""
    distances, g = pair_distribution(reference, 500, 3.6)
    shell = distances < 3.1
    density = 4 / 3.6**3
    neighbours = np.trapezoid(4 * np.pi * distances[shell] ** 2 * g[shell] * density, distances[shell])
    assert neighbours == pytest.approx(12, rel=0.01)


def test_positions_that_wrap_do_not_matter(reference: Trajectory) -> None:
    cell = reference.cells_angstrom[0]
    wrapped = (reference.positions_angstrom @ np.linalg.inv(cell) % 1) @ cell
    assert spectrum_error(dataclasses.replace(reference, positions_angstrom=wrapped), reference) < 1e-6


def test_intervals_that_differ(reference: Trajectory) -> None:
    """5 and 7.5 fs have every 15 fs in common."""
    slow = dataclasses.replace(reference, interval_fs=7.5)
    ours, theirs = common_frames(slow, reference)
    assert ours.interval_fs == theirs.interval_fs == 15.0
    assert len(ours.positions_angstrom) == len(theirs.positions_angstrom) == 67
    assert np.array_equal(ours.positions_angstrom[1], reference.positions_angstrom[2])
    assert np.array_equal(theirs.positions_angstrom[1], reference.positions_angstrom[3])


def test_trajectories_that_cannot_be_compared(reference: Trajectory) -> None:
    with pytest.raises(InputError, match="different atoms"):
        trajectory_metrics(dataclasses.replace(reference, numbers=reference.numbers + 1), reference)
    with pytest.raises(InputError, match="3 frames at the same times"):
        trajectory_metrics(reference.every(1, 3), reference)

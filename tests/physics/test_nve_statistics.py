"""The statistics of a trajectory's energy: their definitions, on energies whose drift is known."""

import numpy as np
import pytest

from esen_flows.errors import InputError
from esen_flows.physics.conservation.nve import energy_drift, lambench_score, linear_drift, step_dependence

TIMES = np.linspace(0.0, 10.0, 1001)
KINETIC = 1.0 + 0.1 * np.sqrt(2.0) * np.sin(2 * np.pi * 12.5 * TIMES)


def test_a_linear_drift_has_the_published_statistics() -> None:
    """8 atoms, 4 meV/ps: 0.5 meV/atom/ps, 8/9 of it by fairchem's indices, LAMBench's tolerance, 0.04 over 0.1 eV."""
    drift = energy_drift(TIMES, -40.0 + 0.004 * TIMES, KINETIC, 8)
    assert drift.slope_mev_per_atom_ps == pytest.approx(0.5, abs=1e-9)
    assert drift.slope_interval_mev_per_atom_ps < 1e-9
    assert drift.fairchem_mev_per_atom_ps == pytest.approx(0.5 * 8 / 9, rel=0.03)  # and the width of the moving mean
    assert drift.lambench_slope_ev_per_atom_ps == pytest.approx(5e-4)
    assert drift.lambench_score == pytest.approx(0.0, abs=1e-6)
    assert drift.mlipaudit_drift_ratio == pytest.approx(0.4, rel=1e-3)


def test_scores_count_decades_and_crashes() -> None:
    assert [lambench_score(slope) for slope in (0.0, 5e-3, 1e4, None)] == [0.0, 1.0, 5.0, 5.0]


def test_the_interval_holds_the_slope_in_95_of_100_correlated_trajectories() -> None:
    """Noise that forgets in 50 frames: an interval that took the frames as independent would hold it in 20 of 100."""
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(400):
        noise = np.convolve(rng.normal(size=1300), np.exp(-np.arange(300) / 50.0), mode="valid")[:1001]
        slope, width, _ = linear_drift(TIMES, noise + 0.3 * TIMES)
        inside += abs(slope - 0.3) < width
    assert 0.91 < inside / 400 < 0.995


def test_three_steps_tell_the_integrator_from_the_force_field() -> None:
    def drift(step: float, lost: float) -> object:
        energy = 0.01 * step**2 * np.sin(2 * np.pi * 15.0 * TIMES) + 8e-3 * lost * TIMES
        return energy_drift(TIMES, energy, KINETIC, 8)

    found = step_dependence((4, 2, 1), [drift(step, 0.5) for step in (4, 2, 1)])  # type: ignore[misc]
    assert found.second_order
    assert found.ratios == pytest.approx((4.0, 16.0), rel=1e-3)
    assert found.intercept_mev_per_atom_ps == pytest.approx(0.5, abs=0.02)  # none of it is the integrator's
    rough = step_dependence((4, 2, 1), [drift(4, 0.5), drift(3.5, 0.5), drift(3, 0.5)])  # type: ignore[misc]
    assert not rough.second_order
    with pytest.raises(InputError, match="each half of the one before"):
        step_dependence((4, 2, 2), [drift(4, 0.0)] * 3)  # type: ignore[list-item]


def test_short_trajectories_are_refused() -> None:
    with pytest.raises(InputError, match="at least 40 frames"):
        energy_drift(TIMES[:30], TIMES[:30], TIMES[:30], 8)

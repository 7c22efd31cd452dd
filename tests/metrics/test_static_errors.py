"""Static errors: units, subsets, and energies with another zero."""

import numpy as np
import pytest
from ase.build import bulk

from esen_flows.data.label_errors import error_sums
from esen_flows.data.labelled import LabelledStructure
from esen_flows.metrics.static_errors import aligned_energies, static_errors


def test_errors_by_hand() -> None:
    """Two frames of one subset and one of another, of which the last has no stress."""
    copper, salt = bulk("Cu"), bulk("NaCl", "rocksalt", a=5.6)
    stress = np.zeros((3, 3))
    frames = [
        (LabelledStructure(copper, -3.0, np.zeros((1, 3)), stress), -2.99, [[0.03, 0.0, 0.0]], stress + 1e-3),
        (LabelledStructure(salt, -6.0, np.zeros((2, 3)), stress), -6.04, np.full((2, 3), 0.02), stress),
        (LabelledStructure(copper, -3.0, np.zeros((1, 3)), np.full((3, 3), np.nan)), -3.0, [[0.0, 0.0, 0.0]], stress),
    ]
    sums = np.array([error_sums(item, energy, np.array(forces), given) for item, energy, forces, given in frames])
    found = static_errors(sums, ["a", "a", "b"], np.array([0.01, -0.02, 0.0]), np.ones((3, 1)))
    assert found["frames"] == 3
    assert found["energy_mae_mev_per_atom"] == pytest.approx(10.0)
    assert found["a: energy_mae_mev_per_atom"] == pytest.approx(15.0)
    assert found["force_mae_mev_per_angstrom"] == pytest.approx((30 + 6 * 20) / 12)  # over components
    assert found["a: stress_mae_mev_per_angstrom3"] == pytest.approx(0.5)
    assert found["b: stress_mae_mev_per_angstrom3"] is None
    assert found["aligned_energy_mae_mev_per_atom"] == pytest.approx((13.3333 + 16.6667 + 3.3333) / 3, abs=1e-3)
    assert found["a: aligned_energy_mae_mev_per_atom"] == pytest.approx(15.0)
    assert found["b: aligned_energy_mae_mev_per_atom"] is None  # of one frame no shift can be told
    assert "a: frames" not in static_errors(sums[:2], ["a", "a"], np.array([0.01, -0.02]), np.ones((2, 1)))


def test_shifts_of_elements_are_removed() -> None:
    rng = np.random.default_rng(0)
    fractions = rng.dirichlet(np.ones(3), size=20)
    noise = 1e-3 * rng.standard_normal(20)
    shifted = fractions @ np.array([0.7, -1.2, 0.1]) + noise
    left = aligned_energies(shifted, np.column_stack([fractions, np.zeros(20)]))
    assert left is not None
    assert np.abs(left).mean() < 1.01 * np.abs(noise).mean()
    assert aligned_energies(shifted[:5], fractions[:5]) is None

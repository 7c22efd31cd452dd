"""Errors by group against hand-made numbers."""

import numpy as np
import pytest
from ase.build import bulk

from esen_flows.data.dataset import from_structures, subset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.forcefield.load import load_force_field
from esen_flows.training.evaluate import evaluate_dataset


@pytest.fixture(scope="module")
def force_field():
    return load_force_field("esen_silicon", dtype="float64")


@pytest.fixture(scope="module")
def data(force_field):
    """The force field's own labels, off by known amounts."""
    items = []
    for index in range(4):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.05, seed=index)
        (result,) = force_field.evaluate([atoms])
        stress = result.stress - 0.001 if index < 3 else np.full((3, 3), np.nan)
        energy = result.energy - 0.016 * (1 if index < 2 else -2)
        group = "near" if index < 2 else "far"
        items.append(LabelledStructure(atoms, energy, result.forces - 0.05, stress, group))
    return from_structures(items)


def test_errors_equal_the_offsets_of_the_labels(force_field, data):
    errors = evaluate_dataset(force_field, data)
    assert set(errors) == {"near", "far", "all"}
    assert errors["near"]["energy_mae_mev_per_atom"] == pytest.approx(2.0)
    assert errors["far"]["energy_mae_mev_per_atom"] == pytest.approx(4.0)
    assert errors["all"]["energy_rmse_mev_per_atom"] == pytest.approx(10**0.5)
    assert errors["all"]["force_mae_mev_per_angstrom"] == pytest.approx(50.0)
    assert errors["all"]["force_rmse_mev_per_angstrom"] == pytest.approx(50.0)
    assert errors["far"]["stress_mae_mev_per_angstrom3"] == pytest.approx(1.0)
    assert errors["far"]["stress_rmse_gpa"] == pytest.approx(0.1602177, rel=1e-6)
    assert (errors["all"]["frames"], errors["all"]["atoms"]) == (4, 32)


def test_without_stress_labels_the_stress_error_is_nan(force_field, data):
    errors = evaluate_dataset(force_field, subset(data, [3]))
    assert np.isnan(errors["all"]["stress_rmse_gpa"])

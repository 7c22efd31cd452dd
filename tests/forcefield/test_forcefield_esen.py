"""An eSEN behind the contract: the whole suite, batches of anything, clear refusals."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from esen_flows.errors import UnknownElementError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.esen import EsenForceField
from esen_flows.network.esen import ESEN, ESENConfig
from esen_flows.testing import check_force_field


def small_checkpoint(seed=0, elements=(1, 6, 8, 14)):
    torch.manual_seed(seed)
    sizes = {"sphere_channels": 8, "hidden_channels": 10, "edge_channels": 6, "cutoff_angstrom": 4.0}
    return Checkpoint(ESEN(ESENConfig(**sizes)), 1.7, {14: -5.4, 8: -2.0}, elements, model_key="k" * 64)


@pytest.fixture(scope="module")
def force_field():
    return EsenForceField(small_checkpoint())


def rattled(atoms, seed=0):
    atoms.rattle(0.05, seed=seed)
    return atoms


def mixed_structures():
    slab = Atoms("Si2", cell=[3.8, 3.8, 20], pbc=[True, True, False], positions=[[0, 0, 5], [1.9, 1.9, 6.4]])
    return [
        rattled(bulk("Si", cubic=True)),
        rattled(bulk("Si", "diamond", a=5.4)),
        rattled(molecule("CH3OH")),
        rattled(slab),
        Atoms("O"),
        rattled(bulk("Si", "fcc", a=3.87) * (1, 1, 2)),
    ]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_contract(dtype):
    deviations = check_force_field(EsenForceField(small_checkpoint(), dtype=dtype), mixed_structures())
    assert set(deviations) >= {"translation", "permutation", "periodic images", "rotation", "inversion", "batch"}
    if dtype == "float64":
        assert deviations["forces are the gradient"] < 1e-8
        assert deviations["inversion"] > 1e-9  # complex SO(2) weights break mirrors: declared SO3, not O3


def test_memory_bounded_batches_equal_single_evaluations(force_field):
    structures = mixed_structures()
    tight = EsenForceField(small_checkpoint(), memory_bytes=1.0)
    assert tight.max_edges == 1
    for one, many in zip(tight.evaluate(structures), force_field.evaluate(structures), strict=True):
        assert one.energy == pytest.approx(many.energy, abs=1e-11)
        assert np.allclose(one.forces, many.forces, atol=1e-12)


def test_scale_and_references_enter_the_energy(force_field):
    plain = EsenForceField(small_checkpoint())
    plain.references_ev = np.zeros_like(plain.references_ev)
    plain.scale_ev = 1.0
    atoms = rattled(bulk("Si", cubic=True))
    (scaled,), (raw,) = force_field.evaluate([atoms]), plain.evaluate([atoms])
    assert scaled.energy == pytest.approx(1.7 * raw.energy - 5.4 * len(atoms), abs=1e-12)
    assert np.allclose(scaled.forces, 1.7 * raw.forces, atol=1e-14)
    assert np.allclose(scaled.energies.sum(), scaled.energy)


def test_stress_is_nan_without_a_volume_and_a_number_with_one(force_field):
    lone, crystal = force_field.evaluate([molecule("H2O"), bulk("Si")])
    assert np.isnan(lone.stress).all()
    assert np.isfinite(crystal.stress).all()


def test_unknown_element_is_named(force_field):
    with pytest.raises(UnknownElementError, match=r"structure 1 \(AsGa\) holds As, Ga"):
        force_field.evaluate([bulk("Si"), bulk("GaAs", "zincblende", a=5.6)])


def test_the_caller_can_count(force_field):
    before = force_field.force_evaluations
    force_field.evaluate([bulk("Si"), bulk("Si")])
    assert force_field.force_evaluations == before + 2
    assert force_field.evaluate([]) == []

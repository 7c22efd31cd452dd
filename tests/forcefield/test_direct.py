"""Direct forces lose their net force, and those of molecules their net torque; nothing else changes."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from two_kinds import TwoKinds

from esen_flows.data.batch_state import BatchState
from esen_flows.errors import ModelError, NotDifferentiableError
from esen_flows.forcefield.direct import DirectForces, with_forces
from esen_flows.forcefield.symmetrized import with_parity
from esen_flows.forcefield.third_party.emt import emt

SITES = np.random.default_rng(0).normal(size=(8, 3))


def torque(atoms: Atoms, forces: np.ndarray) -> np.ndarray:
    return np.asarray(np.cross(atoms.positions - atoms.positions.mean(axis=0), forces).sum(axis=0))


def test_the_net_force_is_removed_and_of_molecules_the_net_torque() -> None:
    inner = TwoKinds(SITES, push=0.7)
    structures = [bulk("Cu", cubic=True), molecule("CH3OH"), molecule("CO2"), Atoms("O")]
    found = with_forces(inner, "direct")
    raw, balanced = inner.direct().evaluate(structures), found.evaluate(structures)
    for before, after in zip(raw, balanced, strict=True):
        assert np.abs(after.forces.sum(axis=0)).max() < 1e-13
        assert after.energy == before.energy
    assert np.abs(raw[0].forces.sum(axis=0)).max() > 1
    # A crystal has no torque to keep: the same force is taken from every atom.
    np.testing.assert_allclose(balanced[0].forces, raw[0].forces - raw[0].forces.mean(axis=0), atol=1e-14)
    for number in (1, 2):  # a linear molecule too, whose inertia about its axis is zero
        assert np.abs(torque(structures[number], raw[number].forces)).max() > 0.1
        assert np.abs(torque(structures[number], balanced[number].forces)).max() < 1e-12
    # The change is the smallest: no part of it is neither a translation nor a rotation.
    change = (raw[1].forces - balanced[1].forces).ravel()
    arms = structures[1].positions - structures[1].positions.mean(axis=0)
    rigid = [np.tile(axis, (6, 1)).ravel() for axis in np.eye(3)] + [np.cross(axis, arms).ravel() for axis in np.eye(3)]
    assert np.linalg.lstsq(np.transpose(rigid), change, rcond=None)[1] < 1e-20


def test_a_batch_on_a_device_has_the_same_forces_and_all_evaluations_count() -> None:
    inner = TwoKinds(SITES, push=0.7)
    structures = [molecule("H2O"), bulk("Cu", cubic=True)]
    found = with_parity(DirectForces(inner), "as_is")
    alone = np.concatenate([result.forces for result in found.evaluate(structures)])
    together = found.evaluate_batch(BatchState.of(structures)).forces.numpy()
    np.testing.assert_allclose(together, alone, atol=1e-14)
    assert (found.force_evaluations, inner.force_evaluations) == (4, 4)
    assert DirectForces(with_parity(inner, "average")).declaration.force_kinds == ("direct",)
    with pytest.raises(NotDifferentiableError):
        found.hessian_vector_products(structures[0], np.zeros((1, 3, 3)))


def test_force_fields_without_direct_heads_are_refused() -> None:
    assert emt().declaration.force_kinds == ("conservative",)
    with pytest.raises(ModelError, match="no heads that predict forces directly"):
        with_forces(emt(), "direct")
    with pytest.raises(ValueError, match="must be 'conservative' or 'direct'"):
        with_forces(emt(), "mts(8)")  # type: ignore[arg-type]

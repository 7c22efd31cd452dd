"""CHGNet behind the contract; where chgnet is not installed, only the message that says so is tested."""

import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import atomic_numbers

from esen_flows.errors import ModelError, StructureError, UnknownElementError
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.third_party.chgnet import ELEMENTS, chgnet
from esen_flows.schemas.card import read_card, resolve_model
from esen_flows.testing import check_force_field


@pytest.fixture(name="double", scope="module")
def _double() -> ForceField:
    pytest.importorskip("chgnet")
    return load_force_field("chgnet", dtype="float64")


def _rattled(atoms: Atoms) -> Atoms:
    atoms.rattle(0.1, seed=3)
    return atoms


def test_without_its_package_the_message_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "chgnet.model.model", None)  # as Python marks what cannot be imported
    with pytest.raises(ModelError, match=r"pip install 'esen_flows\[chgnet\]'"):
        chgnet()


def test_float64_passes_the_contract(double):
    assert double.key == resolve_model("chgnet").key
    structures = [_rattled(bulk("MgO", "rocksalt", a=4.3)), _rattled(bulk("Si", a=5.43, cubic=True))]
    # Mirror images are exact (O3), forces and stress are derivatives of the energy: sign and size of both.
    deviations = check_force_field(double, structures)
    assert deviations["inversion"] < 1e-12
    assert double.force_evaluations > 0


def test_float32_prints_nothing_and_agrees_with_the_packages_own_calculator(double, capfd, recwarn):
    from chgnet.model.dynamics import CHGNetCalculator
    from chgnet.model.model import CHGNet

    single = load_force_field("chgnet", dtype="float32")
    atoms = _rattled(bulk("NaCl", "rocksalt", a=5.7, cubic=True))
    (result,) = single.evaluate([atoms])
    assert capfd.readouterr().out == ""
    assert not recwarn.list
    (exact,) = double.evaluate([atoms])
    atoms.calc = CHGNetCalculator(CHGNet.load(use_device="cpu", verbose=False), use_device="cpu")
    assert result.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    np.testing.assert_allclose(result.forces, atoms.get_forces(), atol=1e-5)
    np.testing.assert_allclose(result.stress, atoms.get_stress(voigt=False), atol=1e-6)
    np.testing.assert_allclose(result.forces, exact.forces, atol=1e-4)
    check_force_field(single, [atoms])


def test_the_declared_elements_are_those_of_the_card():
    assert frozenset(atomic_numbers[symbol] for symbol in read_card("chgnet").elements or ()) == ELEMENTS


def test_structures_that_cannot_be_evaluated_are_refused_before_anything_is_computed(double):
    before = double.force_evaluations
    with pytest.raises(StructureError, match=r"structure 1 \(H2O\) is not periodic in three directions.*pbc=True"):
        double.evaluate([bulk("Si"), molecule("H2O")])
    with pytest.raises(UnknownElementError, match=r"atomic numbers \[84\]"):
        double.evaluate([bulk("Po", "sc", a=3.4)])
    assert double.force_evaluations == before


def test_an_atom_alone_is_evaluated(double):
    (alone,) = double.evaluate([Atoms("Ar", cell=[20.0] * 3, pbc=True)])
    assert np.abs(alone.forces).max() == 0.0


def test_unknown_weights_are_named():
    pytest.importorskip("chgnet")
    with pytest.raises(ModelError, match=r"chgnet cannot load 'no-such-model'.*try 0.3.0"):
        chgnet("no-such-model")


def test_forces_without_the_stress_are_the_same_to_the_bit():
    pytest.importorskip("chgnet")
    force_field = load_force_field("chgnet", dtype="float32")
    structures = [_rattled(bulk("NaCl", "rocksalt", a=5.7, cubic=True)), _rattled(bulk("Si", a=5.43))]
    for whole, alone in zip(force_field.evaluate(structures), force_field.evaluate_forces(structures), strict=True):
        assert alone.energy == whole.energy
        np.testing.assert_array_equal(alone.forces, whole.forces)
        assert np.isnan(alone.stress).all()
        assert np.isfinite(whole.stress).all()
    assert force_field.force_evaluations == 4

"""Force fields as ASE calculators."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from esen_flows.errors import ModelError
from esen_flows.forcefield import load
from esen_flows.forcefield.ase_calculator import ForceFieldCalculator
from esen_flows.forcefield.contract import Declaration
from esen_flows.forcefield.third_party.any_ase import AseForceField


def _emt() -> AseForceField:
    return AseForceField(EMT(), key="emt", label="EMT", declaration=Declaration(True, "O3", False, None, "float64"))


def test_a_calculator_behind_the_contract_gives_the_same_numbers():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    strained = np.array([[1, 0.02, 0], [0, 1, 0.01], [0, 0, 1]])
    atoms.set_cell(atoms.cell.array @ strained, scale_atoms=True)
    reference = atoms.copy()
    reference.calc = EMT()
    atoms.calc = ForceFieldCalculator(_emt())
    assert atoms.get_potential_energy() == reference.get_potential_energy()
    assert atoms.get_potential_energy(force_consistent=True) == reference.get_potential_energy()
    np.testing.assert_array_equal(atoms.get_forces(), reference.get_forces())
    np.testing.assert_allclose(atoms.get_stress(), reference.get_stress(), atol=1e-15)
    np.testing.assert_allclose(atoms.get_stress(voigt=False), reference.get_stress(voigt=False), atol=1e-15)
    np.testing.assert_array_equal(atoms.get_potential_energies(), reference.get_potential_energies())


def test_one_evaluation_gives_all_properties_until_the_structure_changes():
    force_field = _emt()
    atoms = bulk("Cu", cubic=True)
    atoms.calc = ForceFieldCalculator(force_field)
    atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    assert force_field.force_evaluations == 1
    atoms.rattle(0.01)
    atoms.get_forces()
    assert force_field.force_evaluations == 2


def test_ase_relaxes_with_it():
    atoms = bulk("Cu", a=3.7)
    atoms.calc = ForceFieldCalculator(_emt())
    FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=200)
    # EMT copper: a0 = 3.59 Angstrom, J. Jacobsen, J. Norskov, M. Puska, Phys. Rev. B 35, 7423 (1987), as ASE has it.
    assert (4 * atoms.get_volume()) ** (1 / 3) == pytest.approx(3.59, abs=0.01)


def test_a_molecule_has_forces_but_no_stress():
    water = molecule("H2O")
    water.calc = ForceFieldCalculator(_emt())
    assert water.get_forces().shape == (3, 3)
    with pytest.raises(PropertyNotImplementedError, match="gives no stress for H2O"):
        water.get_stress()


def test_a_model_is_loaded_once_and_only_when_needed(monkeypatch):
    requests: list[tuple[str, str, str]] = []

    def load_force_field(model: str, *, device: str, dtype: str) -> AseForceField:
        requests.append((model, device, dtype))
        return _emt()

    monkeypatch.setattr(load, "load_force_field", load_force_field)
    atoms = bulk("Cu")
    atoms.calc = ForceFieldCalculator(model="a_card", dtype="float32")
    assert requests == []
    atoms.get_forces()
    atoms.rattle(0.01)
    atoms.get_forces()
    assert requests == [("a_card", "cpu", "float32")]


def test_exactly_one_of_force_field_and_model():
    with pytest.raises(ModelError, match="either a force field or a model"):
        ForceFieldCalculator()
    with pytest.raises(ModelError, match="either a force field or a model"):
        ForceFieldCalculator(_emt(), model="esen_silicon")


@pytest.mark.slow
def test_atomate2_builds_it_from_plain_keywords():
    forcefields = pytest.importorskip("atomate2.forcefields.utils")
    calculator = forcefields.ase_calculator(
        "esen_flows.forcefield.ase_calculator.ForceFieldCalculator", model="esen_silicon", dtype="float64"
    )
    assert isinstance(calculator, ForceFieldCalculator)

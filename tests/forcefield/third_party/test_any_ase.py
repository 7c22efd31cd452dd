"""ASE calculators behind the contract."""

from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms

from esen_flows.errors import EvaluationError, StructureError, UnknownElementError
from esen_flows.forcefield.contract import Declaration
from esen_flows.forcefield.third_party.any_ase import AseForceField
from esen_flows.testing import check_force_field


def _adapted(calculator: Calculator, elements: frozenset[int] | None = None) -> AseForceField:
    declaration = Declaration(True, "O3", False, elements, "float64")
    return AseForceField(calculator, key="k", label="adapted", declaration=declaration)


class Broken(Calculator):
    """Calculator with the results that it was given."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "stress"]

    def __init__(self, energy: float, force: float, stress: float) -> None:
        super().__init__()
        self.values = energy, force, stress

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        energy, force, stress = self.values
        self.results = {"energy": energy, "forces": np.full((len(atoms), 3), force), "stress": np.full(6, stress)}


@pytest.fixture(name="copper")
def _copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def test_an_evaluation_has_the_results_of_the_calculator(copper):
    force_field = _adapted(EMT())
    (result,) = force_field.evaluate([copper])
    copper.calc = EMT()
    assert result.energy == copper.get_potential_energy()
    np.testing.assert_array_equal(result.forces, copper.get_forces())
    np.testing.assert_array_equal(result.stress, copper.get_stress(voigt=False))
    np.testing.assert_allclose(result.energies.sum(), result.energy, rtol=1e-12)
    assert force_field.force_evaluations == 1


def test_an_adapted_lennard_jones_passes_the_contract():
    atoms = bulk("Ar", cubic=True, a=5.3)
    atoms.rattle(0.1, seed=2)
    force_field = _adapted(LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0, smooth=True))
    assert check_force_field(force_field, [atoms, atoms[:3]])["inversion"] < 1e-12


def test_the_structure_of_the_caller_is_not_changed(copper):
    copper.calc = LennardJones()
    copper.set_constraint(FixAtoms([0]))
    calculator, constraints = copper.calc, list(copper.constraints)
    (result,) = _adapted(EMT()).evaluate([copper])
    assert copper.calc is calculator
    assert [type(c) for c in copper.constraints] == [type(c) for c in constraints]
    # Constraints belong to the caller's dynamics and not to the physics.
    assert np.abs(result.forces[0]).max() > 1e-3


def test_no_stress_without_a_volume_or_a_stress_method():
    (water,) = _adapted(LennardJones()).evaluate([molecule("H2O")])
    assert np.isnan(water.stress).all()

    class EnergyOnly(EMT):
        implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    (copper,) = _adapted(EnergyOnly()).evaluate([bulk("Cu")])
    assert np.isnan(copper.stress).all()
    assert copper.energies is None


def test_a_slab_is_evaluated():
    slab = fcc111("Cu", (1, 1, 3), vacuum=8.0)
    (result,) = _adapted(EMT()).evaluate([slab])
    assert np.isfinite(result.forces).all()


def test_structures_are_refused_before_anything_is_computed(copper):
    force_field = _adapted(EMT(), elements=frozenset({29}))
    with pytest.raises(UnknownElementError, match=r"structure 1 \(Al\) holds atomic numbers \[13\]"):
        force_field.evaluate([copper, bulk("Al")])
    nan = copper.copy()
    nan.positions[0, 0] = np.nan
    with pytest.raises(StructureError, match=r"structure 1 .*NaN or infinite"):
        force_field.evaluate([copper, nan])
    with pytest.raises(StructureError, match="structure 0 has no atoms"):
        force_field.evaluate([Atoms()])
    assert force_field.force_evaluations == 0


@pytest.mark.parametrize("values", [(np.nan, 0.0, 0.0), (0.0, np.inf, 0.0), (0.0, 0.0, np.nan)])
def test_a_result_of_nan_or_infinity_is_an_error(copper, values):
    with pytest.raises(EvaluationError, match="NaN or infinite"):
        _adapted(Broken(*values)).evaluate([copper])


def test_the_card_emt_is_the_calculator_of_ase_and_passes_the_contract():
    from esen_flows.forcefield.load import load_force_field
    from esen_flows.schemas.card import resolve_model

    force_field = load_force_field("emt")
    reference = resolve_model("emt")
    assert force_field.key == reference.key
    assert force_field.declaration.elements == reference.elements
    alloy = bulk("Au", cubic=True)
    alloy.symbols[0] = "Cu"
    alloy.rattle(0.05, seed=1)
    alloy.calc = EMT()
    assert force_field.evaluate([alloy])[0].energy == alloy.get_potential_energy()
    nickel = bulk("Ni", cubic=True)
    nickel.rattle(0.05, seed=2)
    check_force_field(force_field, [alloy, nickel])

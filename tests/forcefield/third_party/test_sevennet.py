"""SevenNet behind the contract; where sevenn is not installed, only the message that says so is tested."""

import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from esen_flows.errors import ModelError
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.symmetry_images import inverted
from esen_flows.forcefield.third_party.sevennet import sevennet
from esen_flows.schemas.card import resolve_model
from esen_flows.testing import check_force_field


@pytest.fixture(name="silicon")
def _silicon() -> Atoms:
    atoms = bulk("Si", a=5.4667)
    atoms.rattle(0.1, seed=0)
    return atoms


def test_without_its_package_the_message_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "sevenn.calculator", None)  # as Python marks what cannot be imported
    with pytest.raises(ModelError, match=r"pip install 'esen_flows\[sevennet\]'"):
        sevennet()


@pytest.fixture(name="both", scope="module")
def _both() -> tuple[ForceField, ForceField]:
    pytest.importorskip("sevenn")
    return load_force_field("sevennet_0", dtype="float32"), load_force_field("sevennet_0", dtype="float64")


def test_float64_passes_the_contract(both, silicon):
    single, double = both
    assert single.key == double.key == resolve_model("sevennet_0").key
    assert (single.declaration.dtype, double.declaration.dtype) == ("float32", "float64")
    check_force_field(double, [silicon])  # forces and stress are derivatives of the energy, to 1e-6


def test_float32_agrees_to_its_precision(both, silicon):
    (rough,), (fine,) = (force_field.evaluate([silicon]) for force_field in both)
    assert rough.energy == pytest.approx(fine.energy, abs=1e-4)
    np.testing.assert_allclose(rough.forces, fine.forces, atol=1e-4)
    np.testing.assert_allclose(rough.stress, fine.stress, atol=1e-5)
    # Newton's third law, to the precision of the arithmetic
    assert np.abs(fine.forces.sum(axis=0)).max() < 1e-12


def test_mirror_images_are_not_exact_even_in_float64(both):
    three = Atoms("SiSiC", [[0, 0, 0], [1.4, 1.3, 1.5], [0.2, 2.0, 2.8]], cell=[4.5, 4.7, 4.9], pbc=True)
    result, image = both[1].evaluate([three, inverted(three)])
    assert np.abs(result.forces + image.forces).max() > 1e-4


def test_a_molecule_without_a_cell_is_evaluated_in_both_precisions(both):
    molecule = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    (single,), (double,) = (force_field.evaluate([molecule]) for force_field in both)
    np.testing.assert_allclose(single.forces, double.forces, atol=1e-4)


def test_a_batch_gives_what_each_structure_gives(both, silicon):
    """Crystals, a molecule in a box, and two atoms beyond the cutoff, which have no edge."""
    far = Atoms("H2", [[25, 25, 25], [33, 25, 25]], cell=[50, 50, 50], pbc=True)
    structures = [silicon, bulk("Cu"), far, Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])]
    for force_field, tolerance in zip(both, (1e-5, 1e-12), strict=True):
        before = force_field.force_evaluations
        together = force_field.evaluate(structures)
        assert force_field.force_evaluations == before + len(structures)
        for atoms, batched in zip(structures, together, strict=True):
            (alone,) = force_field.evaluate([atoms])
            assert batched.energy == pytest.approx(alone.energy, abs=tolerance)
            for name in ("forces", "stress", "energies"):
                np.testing.assert_allclose(getattr(batched, name), getattr(alone, name), atol=tolerance)


@pytest.mark.slow
def test_sevennet_l3i5_on_silicon(silicon):
    pytest.importorskip("sevenn")
    force_field = load_force_field("sevennet_l3i5")
    assert force_field.key == resolve_model("sevennet_l3i5").key
    assert force_field.declaration.dtype == "float32"  # its card says so
    assert {14, 29} <= force_field.declaration.elements
    # The lattice constant of this labeller is 5.4667 Angstrom: there the pressure is zero, to 0.1 GPa.
    (result,) = force_field.evaluate([bulk("Si", a=5.4667)])
    assert np.abs(result.stress).max() < 0.1 / 160.2
    assert np.abs(result.forces).max() < 1e-4
    check_force_field(force_field, [silicon])
    with pytest.raises(ModelError, match="sevenn cannot load 'no-such-model'"):
        sevennet("no-such-model")

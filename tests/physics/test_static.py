"""Energies, forces and stresses of structures as they are, alone and in batches."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from two_kinds import TwoKinds

from esen_flows.errors import EsenFlowsError, StructureError
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.symmetrized import Symmetrized
from esen_flows.makers.summaries import static_summary
from esen_flows.physics.relax import relax
from esen_flows.physics.static import static, static_many
from esen_flows.schemas.documents import StaticOutput
from esen_flows.schemas.protocols import RelaxProtocol, StaticProtocol
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA

DIMER = Atoms("CuAu", [[0, 0, 0], [0, 0, 2.4]])


def rattled() -> Atoms:
    atoms = bulk("Cu", cubic=True, a=3.7).repeat((1, 1, 2))
    atoms.rattle(0.1, seed=1)
    return atoms


def test_numbers_are_those_of_ase() -> None:
    atoms = rattled()
    output = static(atoms, load_force_field("emt"), StaticProtocol())
    atoms.calc = EMT()
    assert output.energy_ev == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
    assert output.energy_per_atom_ev == output.energy_ev / 8
    np.testing.assert_allclose(output.forces_ev_per_angstrom, atoms.get_forces(), atol=1e-12)
    np.testing.assert_allclose(output.stress_ev_per_angstrom3, atoms.get_stress(voigt=False), atol=1e-12)
    np.testing.assert_allclose(output.atom_energies_ev, atoms.get_potential_energies(), atol=1e-12)
    np.testing.assert_array_equal(output.structure.positions_angstrom, atoms.positions)
    summary = static_summary(output)
    pressure = -atoms.get_stress()[:3].mean() * EV_PER_ANGSTROM3_TO_GPA
    assert summary["pressure_gpa"] == pytest.approx(pressure)
    assert summary["fmax_ev_per_angstrom"] == pytest.approx(np.linalg.norm(atoms.get_forces(), axis=1).max())
    assert summary["volume_per_atom_angstrom3"] == pytest.approx(atoms.get_volume() / 8)


@pytest.mark.parametrize("atoms_at_once", [1, 9, 4000])
def test_batches_give_what_single_evaluations_give(atoms_at_once: int) -> None:
    structures = [bulk("Cu"), rattled(), DIMER, bulk("Au"), Atoms(), bulk("Fe"), bulk("Al", cubic=True)]
    force_field, seen = load_force_field("emt"), []
    found = dict(
        static_many(
            structures, force_field, StaticProtocol(), atoms_at_once=atoms_at_once,
            watch=lambda index, steps, fmax: seen.append((index, steps)),
        )
    )  # fmt: skip
    assert sorted(found) == list(range(7))
    assert sorted(seen) == [(index, 1) for index in (0, 1, 2, 3, 6)]
    for index, atoms in enumerate(structures):
        outcome = found[index]
        if index in (4, 5):  # no atoms; an element that EMT does not know
            assert isinstance(outcome, StructureError)
            with pytest.raises(type(outcome)):
                static(atoms, force_field, StaticProtocol())
        else:
            assert isinstance(outcome, StaticOutput)
            assert outcome.energy_ev == static(atoms, force_field, StaticProtocol()).energy_ev


def test_a_molecule_has_no_pressure() -> None:
    summary = static_summary(static(DIMER, load_force_field("emt"), StaticProtocol()))
    assert (summary["pressure_gpa"], summary["volume_per_atom_angstrom3"]) == (None, None)


def test_mirror_images_are_averaged_on_demand() -> None:
    atoms, silicon = bulk("Si", a=5.5, cubic=True), load_force_field("esen_silicon")
    atoms.rattle(0.1, seed=2)
    plain, averaged = (static(atoms, silicon, StaticProtocol(parity=parity)) for parity in ("as_is", "average"))
    assert averaged.energy_ev == pytest.approx(Symmetrized(silicon).evaluate([atoms])[0].energy, abs=1e-9)
    assert averaged.energy_ev != plain.energy_ev


def test_errors_of_the_program_are_not_hidden() -> None:
    class Broken(type(load_force_field("emt"))):  # type: ignore[misc]
        def evaluate(self, structures: object) -> object:
            raise ZeroDivisionError

    force_field = load_force_field("emt")
    broken = Broken(force_field.calculator, key="k", label="b", declaration=force_field.declaration)
    with pytest.raises(ZeroDivisionError):
        list(static_many([bulk("Cu")], broken, StaticProtocol()))
    assert not issubclass(ZeroDivisionError, EsenFlowsError)


def test_direct_forces_beside_a_final_energy_have_to_be_accepted() -> None:
    inner = TwoKinds(np.zeros((9, 3)), push=0.3)
    with pytest.raises(ValueError, match="accept_direct=true to compute with them"):
        StaticProtocol(forces="direct")
    accepted = StaticProtocol(forces="direct", accept_direct=True)
    outputs = [static(DIMER, inner, protocol) for protocol in (StaticProtocol(), accepted)]
    assert outputs[0].energy_ev == outputs[1].energy_ev
    assert np.abs(outputs[1].forces_ev_per_angstrom.sum(axis=0)).max() < 1e-13
    assert StaticProtocol().key_fields() == {"parity": "as_is"}
    relaxed = relax(DIMER, TwoKinds(DIMER.positions), RelaxProtocol(forces="direct"))
    assert relaxed.n_steps == 0

"""Snapshots of molecular dynamics for datasets."""

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT

from esen_flows.data.generate import generate
from esen_flows.data.recipes import Group, recipe_from_dict
from esen_flows.forcefield.contract import Declaration
from esen_flows.forcefield.third_party.any_ase import AseForceField
from esen_flows.training.snapshots import langevin, trajectory


def emt(key: str = "emt") -> AseForceField:
    """An interatomic potential of ASE's, exact and fast."""
    declaration = Declaration(
        conservative=True,
        equivariance="O3",
        differentiable=False,
        elements=frozenset({13, 29}),
        dtype="float64",
        cutoff_angstrom=6.0,
    )
    return AseForceField(EMT(), key=key, label=key, declaration=declaration)


def recipe(**changes: object):
    group = {
        "name": "warm", "prototype": "fcc", "species": "Cu", "lattice_angstrom": 3.65, "cubic": True, "count": 2,
        "snapshots": 3, "temperature_kelvin": [300, 600], "warm_up_femtoseconds": 10, "interval_femtoseconds": 10,
    }  # fmt: skip
    return recipe_from_dict({"seed": 1, "groups": [{**group, **changes}]})


def test_a_finished_trajectory_is_read_and_not_run_again(tmp_path):
    force_field = emt()
    told: list[str] = []
    first = generate(recipe(), dynamics=langevin(force_field, tmp_path, told.append))
    assert told == ["Cu4, 4 atoms"] * 2
    # Per trajectory: the start, 5 steps of warming up and 3 x 5 to the snapshots.
    assert force_field.force_evaluations == 2 * 21
    second = generate(recipe(), dynamics=langevin(force_field, tmp_path, told.append))
    assert force_field.force_evaluations == 2 * 21
    assert len(told) == 2
    assert len(first) == len(second) == 6
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        assert one.info == {"group": "warm"}
        assert one.calc is None
    assert not np.allclose(first[0].positions, first[1].positions)
    assert not np.allclose(first[0].positions, first[3].positions)


@pytest.mark.parametrize("change", [{"temperature_kelvin": 300}, {"interval_femtoseconds": 20}, {"snapshots": 2}])
def test_other_settings_run_another_trajectory(tmp_path, change):
    generate(recipe(), dynamics=langevin(emt(), tmp_path))
    force_field = emt()
    generate(recipe(**change), dynamics=langevin(force_field, tmp_path))
    assert force_field.force_evaluations > 0
    other = emt("another")
    generate(recipe(), dynamics=langevin(other, tmp_path))
    assert other.force_evaluations > 0


def test_the_potential_energy_follows_equipartition():
    perfect = bulk("Cu", a=3.69, cubic=True).repeat(2)
    group = Group(
        "warm", 1, snapshots=12, temperature_kelvin=(300.0, 300.0), warm_up_femtoseconds=200, interval_femtoseconds=80
    )
    force_field = emt()
    frames = [perfect.copy() for _ in range(group.snapshots)]
    for frame, positions in zip(frames, trajectory(perfect, group, force_field, 5), strict=True):
        frame.positions = positions
    energies = [result.energy for result in force_field.evaluate([perfect, *frames])]
    thermal = (np.mean(energies[1:]) - energies[0]) / (3 * len(perfect) - 3)
    # Twelve frames of 93 degrees of freedom scatter by 4 % if they are independent.
    assert thermal == pytest.approx(units.kB * 300 / 2, rel=0.15)

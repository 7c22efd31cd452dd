"""Structures from a flat recipe."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from recipe_of import SILICON, recipe_of, recipe_of_crystals

from esen_flows.assets import asset_dir
from esen_flows.data.generate import generate
from esen_flows.data.recipes import read_recipe, recipe_from_dict
from esen_flows.errors import InputError
from esen_flows.schemas.keys import atoms_key, sha256_of


def _deformation_of(atoms: Atoms, reference: Atoms) -> np.ndarray:
    return np.linalg.solve(reference.cell.array, atoms.cell.array)


def test_the_same_seed_gives_the_same_structures_beside_other_groups():
    group = {**SILICON, "name": "a", "count": 4, "rattle_angstrom": [0.01, 0.1]}
    other = {**group, "name": "b"}
    alone = generate(recipe_from_dict({"seed": 3, "groups": [group]}))
    after = generate(recipe_from_dict({"seed": 3, "groups": [other, group]}))[4:]
    for first, second in zip(alone, after, strict=True):
        np.testing.assert_array_equal(first.positions, second.positions)
    moved = generate(recipe_from_dict({"seed": 4, "groups": [group]}))
    assert not np.allclose(alone[0].positions, moved[0].positions)


def test_volume_scan_is_even_and_spans_its_range():
    made = generate(recipe_of(count=5, volume_strain=[-0.1, 0.1], volume_scan=True))
    perfect = bulk("Si", "diamond", a=5.43)
    changes = [atoms.get_volume() / perfect.get_volume() - 1 for atoms in made]
    np.testing.assert_allclose(changes, [-0.1, -0.05, 0.0, 0.05, 0.1], atol=1e-12)


def test_shear_keeps_the_volume_and_has_no_rotation():
    made = generate(recipe_of(shear=0.03, count=4))
    perfect = bulk("Si", "diamond", a=5.43)
    for atoms in made:
        assert atoms.get_volume() == pytest.approx(perfect.get_volume(), rel=1e-12)
        strain = _deformation_of(atoms, perfect) - np.eye(3)
        np.testing.assert_allclose(strain, strain.T, atol=1e-12)
        # The determinant is divided out, which changes the norm to second order: 0.03^2.
        assert np.linalg.norm(strain) == pytest.approx(0.03, rel=0.05)


def test_rattle_has_the_standard_deviation_of_the_recipe():
    made = generate(recipe_of(cubic=True, repeat=[2, 2, 2], rattle_angstrom=0.02, count=20))
    perfect = bulk("Si", "diamond", a=5.43, cubic=True).repeat(2)
    moved = np.concatenate([atoms.positions - perfect.positions for atoms in made])
    # 3840 samples: the standard error of the standard deviation is 1.1 %.
    assert moved.std() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("atoms_moved", [1, 2])
def test_displaced_atoms_move_by_the_given_lengths_and_the_others_stay(atoms_moved):
    made = generate(
        recipe_of(
            cubic=True, repeat=[2, 2, 2], count=12, displaced_atoms=atoms_moved, displacement_angstrom=[0.01, 0.03]
        )
    )
    perfect = bulk("Si", "diamond", a=5.43, cubic=True).repeat(2)
    seen = set()
    for atoms in made:
        lengths = np.linalg.norm(atoms.positions - perfect.positions, axis=1)
        moved = np.flatnonzero(lengths > 1e-12)
        assert len(moved) == atoms_moved
        seen |= {round(float(length), 9) for length in lengths[moved]}
        if atoms_moved == 2:
            assert perfect.get_distance(*moved, mic=True) < 5.0
    assert seen == {0.01, 0.03}


def test_minimum_distance_is_kept_and_impossible_ones_are_refused():
    group = {**SILICON, "cubic": True, "count": 20, "rattle_angstrom": 0.25}
    made = generate(recipe_from_dict({"seed": 1, "minimum_distance_angstrom": 1.9, "groups": [group]}))
    assert min(neighbor_list("d", atoms, 3.0).min() for atoms in made) >= 1.9
    free = generate(recipe_from_dict({"seed": 1, "groups": [group]}))
    assert min(neighbor_list("d", atoms, 3.0).min() for atoms in free) < 1.9
    with pytest.raises(InputError, match="lower the rattle"):
        generate(recipe_from_dict({"seed": 1, "minimum_distance_angstrom": 2.4, "groups": [group]}))


# Coordination numbers of the ideal crystals, with the distance that separates the first shell.
@pytest.mark.parametrize(
    ("prototype", "lattice", "options", "within", "coordination"),
    [
        ("diamond", 5.43, {}, 2.6, 4),
        ("hexagonal_diamond", 3.84, {}, 2.6, 4),
        ("beta_tin", 4.81, {"c_over_a": 0.55}, 2.8, 6),
        ("fcc", 3.87, {"cubic": True}, 3.2, 12),
        ("bcc", 3.09, {}, 2.9, 8),
        ("sc", 2.54, {}, 2.9, 6),
    ],
)
def test_prototypes_have_the_coordination_of_their_crystal(prototype, lattice, options, within, coordination):
    atoms = generate(recipe_of(prototype=prototype, lattice_angstrom=lattice, count=1, **options))[0]
    assert set(np.bincount(neighbor_list("i", atoms, within))) == {coordination}


def test_a_given_structure_is_a_prototype():
    given = bulk("GaAs", "zincblende", a=5.65)
    made = generate(recipe_of(prototype="mine", count=2, rattle_angstrom=0.01), {"mine": given})
    assert [atoms.get_chemical_formula() for atoms in made] == ["AsGa", "AsGa"]
    assert all(atoms.info == {"group": "g"} for atoms in made)
    assert given.info == {}


CRYSTALS = {
    "GaAs": {"prototype": "zincblende", "species": ["Ga", "As"], "lattice_angstrom": 5.7},
    "Ge": {"prototype": "diamond", "species": "Ge", "lattice_angstrom": 5.7},
    "ZnO": {"prototype": "wurtzite", "species": ["Zn", "O"], "lattice_angstrom": 3.2, "c_over_a": 1.6, "u": 0.38},
}


def test_a_group_of_crystals_draws_separately_for_each_crystal():
    group = {"cubic": True, "rattle_angstrom": 0.02}
    made = generate(recipe_of_crystals(CRYSTALS, crystals_of=["diamond", "zincblende"], **group))
    assert [atoms.info for atoms in made] == 2 * [{"group": "g", "crystal": "GaAs"}] + 2 * [
        {"group": "g", "crystal": "Ge"}
    ]
    assert [atoms.get_chemical_formula() for atoms in made] == 2 * ["As4Ga4"] + 2 * ["Ge8"]
    alone = generate(recipe_of_crystals({"Ge": CRYSTALS["Ge"]}, **group))
    np.testing.assert_array_equal(made[2].positions, alone[0].positions)
    # Of one lattice and one displacement pattern, the first would be the other with its elements changed.
    assert not np.allclose(made[0].positions, made[2].positions)


def test_wurtzite_has_the_given_c_over_a_and_u():
    atoms = generate(recipe_of_crystals(CRYSTALS, crystals_of=["wurtzite"], count=1))[0]
    a, b, c = atoms.cell.lengths()
    assert (a, b, c) == pytest.approx((3.2, 3.2, 1.6 * 3.2))
    i, j, d, vectors = neighbor_list("ijdD", atoms, 2.2)
    assert set(np.bincount(i)) == {4}
    assert (atoms.numbers[i] != atoms.numbers[j]).all()
    along_c = d[np.abs(vectors[:, 2]) > 0.99 * d]
    np.testing.assert_allclose(along_c, 0.38 * c, atol=1e-9)


def test_the_minimum_distance_can_be_relative_to_the_crystal():
    content = {"seed": 1, "minimum_distance_fraction": 0.8, "crystals": CRYSTALS}
    group = {"name": "g", "crystals_of": ["zincblende", "wurtzite"], "count": 12, "rattle_angstrom": 0.15}
    made = generate(recipe_from_dict({**content, "groups": [group]}))
    # Of wurtzite, the bond along c and the three others.
    shortest = {"GaAs": 5.7 * 3**0.5 / 4, "ZnO": min(0.38 * 5.12, (3.2**2 / 3 + (0.12 * 5.12) ** 2) ** 0.5)}

    def closest(structures):
        return min(neighbor_list("d", atoms, 3.0).min() / shortest[atoms.info["crystal"]] for atoms in structures)

    assert closest(made) >= 0.8
    assert closest(generate(recipe_from_dict({**content, "minimum_distance_fraction": 0, "groups": [group]}))) < 0.8


def test_snapshots_take_the_place_of_their_start_and_need_dynamics():
    group = {"snapshots": 3, "temperature_kelvin": [300, 900]}
    seeds = []

    def dynamics(start, group, seed):
        assert group.temperature_kelvin == (300.0, 900.0)
        seeds.append(seed)
        return [start.copy() for _ in range(group.snapshots)]

    made = generate(recipe_of_crystals(CRYSTALS, **group), dynamics=dynamics)
    assert [atoms.info for atoms in made] == 6 * [{"group": "g", "crystal": "Ge"}]
    assert len(set(seeds)) == 2
    with pytest.raises(InputError, match="need a force field"):
        generate(recipe_of_crystals(CRYSTALS, **group))


def test_the_silicon_recipe_makes_the_labelled_structures():
    made = generate(read_recipe(asset_dir("models") / "esen_silicon" / "data.yaml"))
    # The hash in the provenance of the dataset that models/esen_silicon was trained on.
    expected = "1688763ccafc857a95543137aceac928114460be29e0527f1d406e3f98048605"
    assert sha256_of([atoms_key(atoms) for atoms in made]) == expected


def test_prototypes_that_cannot_be_built_are_refused():
    with pytest.raises(InputError, match="unknown prototype 'quartz'"):
        generate(recipe_of(prototype="quartz"))
    with pytest.raises(InputError, match="lattice_angstrom must be positive"):
        generate(recipe_of(lattice_angstrom=0))
    with pytest.raises(InputError, match="diamond takes 1 species, got"):
        generate(recipe_of(species=["Ga", "As"]))
    with pytest.raises(InputError, match="wurtzite has no cubic cell"):
        generate(recipe_of_crystals(CRYSTALS, crystals_of=["wurtzite"], cubic=True))

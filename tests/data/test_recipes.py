"""Recipes: errors that name the value, and the recipes of the models."""

from collections import Counter

import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from hypothesis import given
from hypothesis import strategies as st
from recipe_of import SILICON, recipe_of, recipe_of_crystals

from esen_flows.assets import asset_dir
from esen_flows.data.prototypes import perfect
from esen_flows.data.recipes import read_recipe, recipe_from_dict
from esen_flows.errors import InputError

CRYSTAL = {"prototype": "diamond", "species": "Ge", "lattice_angstrom": 5.7}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, r"unknown keys \['colour'\]"),
        ({"count": 0}, "count must be a positive integer, got 0"),
        ({"element": "Si"}, r"unknown keys \['element'\].*species"),
        ({"species": ["Xx"]}, r"chemical symbols.*got \['Xx'\]"),
        ({"species": [False]}, r"chemical symbols.*got \[False\]"),
        ({"repeat": [2, 2]}, "three positive integers"),
        ({"repeat": 2}, "three positive integers of at most 100, got 2"),
        ({"prototype": False}, "prototype must be text, got False"),
        ({"crystals_of": ["diamond"]}, "either prototype or crystals_of"),
        ({"cubic": "yes"}, "cubic must be true or false, got 'yes'"),
        ({"c_over_a": "tall"}, "c_over_a must be a number"),
        ({"volume_strain": [0.1, -0.1]}, r"\[low, high\]"),
        ({"volume_strain": -1.5}, "must stay above -1"),
        ({"rattle_angstrom": [0.0, 0.1]}, "low end must be above zero"),
        ({"rattle_angstrom": "much"}, "got 'much'"),
        ({"displaced_atoms": 2}, "go together"),
        ({"displaced_atoms": 3, "displacement_angstrom": 0.1}, "must be 0, 1 or 2, got 3"),
        ({"count": 10**400}, "count must be a positive integer, got 1000"),
        ({"count": 10**9}, r"it makes 1e\+09 structures of up to .* lower count, snapshots or repeat"),
        ({"count": 1000, "snapshots": 10**6, "temperature_kelvin": 300}, r"it makes 1e\+09 structures"),
        ({"count": 2000, "repeat": [50, 50, 50]}, r"of up to 2e\+09 atoms together, at most 1e\+06 and 5e\+07"),
        ({"repeat": [10**6, 1, 1]}, "three positive integers of at most 100"),
        ({"lattice_angstrom": 1e300}, r"\[low, high\], of at most 1e\+06, got 1e\+300"),
        ({"lattice_angstrom": float("nan")}, "lattice_angstrom must be a number"),
        ({"lattice_angstrom": 10**400}, "lattice_angstrom must be a number"),
        ({"species": [["Si"]]}, "chemical symbols"),
        ({"species": ["X"]}, "chemical symbols"),
        ({"displaced_atoms": True, "displacement_angstrom": 0.1}, "must be 0, 1 or 2, got True"),
        ({"shear": 5.0}, "shear must be at most 1"),
        ({"c_over_a": -1.0}, "c_over_a must be positive"),
        ({"snapshots": -1}, "non-negative integer, got -1"),
        ({"snapshots": 2}, "positive temperature_kelvin go together"),
        ({"temperature_kelvin": 300}, "positive temperature_kelvin go together"),
        (
            {"snapshots": 2, "temperature_kelvin": 300, "interval_femtoseconds": 0},
            "interval_femtoseconds must be positive, got 0",
        ),
    ],
)
def test_errors_of_a_group_name_the_value(change, message):
    with pytest.raises(InputError, match=message):
        recipe_of(**change)


def test_errors_of_a_recipe(tmp_path):
    with pytest.raises(InputError, match="seed must be a non-negative integer, got None"):
        recipe_from_dict({"groups": [SILICON]})
    with pytest.raises(InputError, match="group names must differ"):
        recipe_from_dict({"seed": 1, "groups": [SILICON, SILICON]})
    with pytest.raises(InputError, match="'count' is missing"):
        recipe_from_dict({"seed": 1, "groups": [{"name": "g", "prototype": "diamond"}]})
    with pytest.raises(InputError, match="no recipe at"):
        read_recipe(tmp_path / "absent.yaml")
    for content in (b"seed: [1\n", b"\xff\xfe\x00\x80"):
        (tmp_path / "broken.yaml").write_bytes(content)
        with pytest.raises(InputError, match="is not YAML"):
            read_recipe(tmp_path / "broken.yaml")


@pytest.mark.parametrize(
    ("crystals", "group", "message"),
    [
        ([], {}, "crystals must map names"),
        ({"Ge": {"prototype": "diamond", "species": ["Ge"], "u": 0.4}}, {}, "give lattice_angstrom too"),
        ({"Ge": {"prototype": "bcc", "species": ["Ge"]}}, {}, "give lattice_angstrom; it is found by relaxation for"),
        ({"Ge": {**CRYSTAL, "colour": 1}}, {}, r"crystal 'Ge': unknown keys \['colour'\]"),
        ({"Ge": {**CRYSTAL, "prototype": "quartz"}}, {}, "unknown prototype 'quartz'"),
        ({"Ge": {**CRYSTAL, "prototype": "rocksalt"}}, {}, "'Ge': rocksalt takes 2 species, got"),
        (
            {"Ge": CRYSTAL},
            {"crystals_of": ["rocksalt"]},
            r"ask for crystals of \['rocksalt'\], but the recipe lists none",
        ),
        ({"Ge": {**CRYSTAL, "prototype": ["diamond"]}}, {}, r"prototype must be text, got \['diamond'\]"),
        ({"Ge": CRYSTAL}, {"crystals_of": [["diamond"]]}, "crystals_of must be a list"),
        ({"Ge": CRYSTAL}, {"crystals_of": "diamond"}, "crystals_of must be a list"),
        (
            {"Ge": {**CRYSTAL, "lattice_angstrom": [5.6, 5.7]}},
            {},
            r"lattice_angstrom must be a single number, got \[5.6",
        ),
        ({"Ge/Si": CRYSTAL}, {}, "a crystal's name is that of its folder of phonons: no / in it"),
        ({"": CRYSTAL}, {}, "a crystal's name"),
        ({"..": CRYSTAL}, {}, "no dot before it"),
        ({"Ge": CRYSTAL}, {"lattice_angstrom": 5.0}, "from the crystals; leave them out"),
    ],
)
def test_errors_of_a_crystal_name_the_value(crystals, group, message):
    with pytest.raises(InputError, match=message):
        recipe_of_crystals(crystals, **group)


def test_a_lattice_constant_that_is_null_is_unknown():
    (crystal,) = recipe_of_crystals({"Ge": {**CRYSTAL, "lattice_angstrom": None}}).crystals
    assert crystal.lattice_angstrom is None


def test_the_silicon_recipe_is_what_its_card_describes():
    recipe = read_recipe(asset_dir("models") / "esen_silicon" / "data.yaml")
    # Groups may be added, not taken away: labels that exist are of these.
    assert sum(group.count for group in recipe.groups) >= 789
    assert {group.species for group in recipe.groups} == {("Si",)}
    assert max(group.rattle_angstrom[1] for group in recipe.groups) == 0.3
    assert min(group.volume_strain[0] for group in recipe.groups if group.name.startswith("cell8")) == -0.08


def test_the_nano_recipe_names_the_crystals_of_its_card():
    recipe = read_recipe(asset_dir("models") / "esen_nano" / "data.yaml")
    assert len(recipe.crystals) == 22  # with silicon, whose structures are esen_silicon's, 23
    elements = {symbol for crystal in recipe.crystals for symbol in crystal.species}
    assert " ".join(sorted(elements)) == "Al As C Ca Cl F Ga Ge K Li Mg N Na O P S Se Si Zn"
    for crystal in recipe.crystals:
        # Bonds from 1.5 Angstrom (C) to 3.2 (KCl): a slip of the pen in a lattice constant leaves this range.
        atoms = perfect(crystal)
        assert 1.5 < neighbor_list("d", atoms, 3.3).min() < 3.2
    kinds = {name: [g for g in recipe.groups if name in g.crystals_of] for name in ("diamond", "rocksalt", "wurtzite")}
    for groups in kinds.values():
        assert any(group.snapshots for group in groups)
        assert any(group.displaced_atoms == 2 and np.prod(group.repeat) >= 8 for group in groups)
        assert {-0.1, 0.1} <= {strain for group in groups for strain in group.volume_strain}


def test_aliases_that_multiply_are_refused(tmp_path):
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefg", "bcdefgh", strict=True)]
    (tmp_path / "bomb.yaml").write_text("\n".join([*lines, "seed: 1", "groups: *h"]))
    with pytest.raises(InputError, match="more than 1000000 values"):
        read_recipe(tmp_path / "bomb.yaml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["Si", "diamond", "", "No"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "count", "u"]), inner),
    max_leaves=6,
)
GROUP = {"name": "g", "count": 2, "prototype": "diamond", "species": ["Si"], "lattice_angstrom": 5.4}
FIELDS = [*GROUP, "crystals_of", "repeat", "shear", "volume_strain", "snapshots", "displaced_atoms", "u", "colour"]


@given(changes=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3), outer=st.dictionaries(
    st.sampled_from(["seed", "groups", "crystals", "minimum_distance_angstrom"]), VALUES, max_size=1
))  # fmt: skip
def test_any_values_give_a_recipe_or_one_message(changes, outer):
    content = {"seed": 1, "groups": [{**GROUP, **changes}], **outer}
    try:
        recipe = recipe_from_dict(content, "recipe.yaml")
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert recipe.groups


def test_a_crystal_may_leave_its_geometry_to_a_relaxation():
    recipe = recipe_of_crystals({"Ge": {"prototype": "diamond", "species": "Ge"}})
    assert recipe.crystals[0].lattice_angstrom is None


def test_esen_nano103_has_the_crystals_of_the_kappa_benchmark():
    recipe = read_recipe(asset_dir("models") / "esen_nano103" / "data.yaml")
    counts = Counter(crystal.prototype for crystal in recipe.crystals)
    assert counts == {"diamond": 3, "rocksalt": 37, "zincblende": 33, "wurtzite": 33}
    assert len({crystal.species for crystal in recipe.crystals if len(crystal.species) == 2}) == 70
    assert all(crystal.lattice_angstrom is None for crystal in recipe.crystals)

"""Crystals of a recipe at the lattice constants of a force field."""

import json

import numpy as np
import pytest

from esen_flows.data.generate import generate
from esen_flows.data.prototypes import Crystal, guessed, perfect, with_geometry_of
from esen_flows.data.recipes import recipe_from_dict
from esen_flows.errors import InputError
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.crystals import relaxed, with_relaxed_crystals

ROCKSALT = {"prototype": "rocksalt", "species": ["Cu", "Au"]}
GROUP = {"name": "perfect", "crystals_of": ["rocksalt", "wurtzite"], "count": 1}


def _recipe(**crystals):
    groups = [{**GROUP, "crystals_of": sorted({each["prototype"] for each in crystals.values()})}]
    return recipe_from_dict({"seed": 1, "groups": groups, "crystals": crystals})


@pytest.fixture(scope="module", name="emt")
def _emt():
    return load_force_field("emt")


def test_a_relaxed_crystal_has_no_stress_and_keeps_its_structure_type(emt):
    found = relaxed(Crystal("CuAu", "rocksalt", ("Cu", "Au"), None), emt)
    (result,) = emt.evaluate(perfect(found))
    assert np.abs(result.stress).max() < 1e-4
    assert np.abs(result.forces).max() < 1e-6


def test_wurtzite_keeps_its_geometry_through_a_cell():
    crystal = Crystal("GaN", "wurtzite", ("Ga", "N"), 3.2, 1.62, 0.378)
    found = with_geometry_of(guessed(crystal), perfect(crystal))
    values = (found.lattice_angstrom, found.c_over_a, found.u)
    np.testing.assert_allclose(values, (3.2, 1.62, 0.378), atol=1e-12)


def test_only_missing_lattice_constants_are_relaxed_once_and_kept(emt, tmp_path):
    recipe = _recipe(CuAu=ROCKSALT, known={**ROCKSALT, "lattice_angstrom": 5.0})
    with pytest.raises(InputError, match="'CuAu' has no lattice_angstrom"):
        generate(recipe)
    file, seen = tmp_path / "crystals.json", []
    whole = with_relaxed_crystals(recipe, emt, file, lambda *progress: seen.append(progress))
    assert whole.crystals[1].lattice_angstrom == 5.0
    assert seen == [("CuAu", 1, 1)]
    assert len(generate(whole)) == 2
    before = emt.force_evaluations
    assert with_relaxed_crystals(recipe, emt, file) == whole
    assert emt.force_evaluations == before
    other = load_force_field("emt")
    other.key = "another"
    with pytest.raises(InputError, match="relaxed by another force field"):
        with_relaxed_crystals(recipe, other, file)
    assert with_relaxed_crystals(whole, other, file) is whole


def test_crystals_that_cannot_be_relaxed_are_named_together_and_the_others_kept(emt, tmp_path):
    recipe = _recipe(NaCl={**ROCKSALT, "species": ["Na", "Cl"]}, CuAu=ROCKSALT)
    file = tmp_path / "crystals.json"
    with pytest.raises(InputError, match=r"cannot relax 1 of 2 crystals: NaCl \(.*leave them out"):
        with_relaxed_crystals(recipe, emt, file)
    assert [each["name"] for each in json.loads(file.read_text())["crystals"]] == ["CuAu"]
    file.write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        with_relaxed_crystals(recipe, emt, file)

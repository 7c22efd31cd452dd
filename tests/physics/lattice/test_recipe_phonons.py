"""Phonons of the crystals of a recipe by a labelling force field."""

import numpy as np
import pytest

from esen_flows.data.prototypes import Crystal
from esen_flows.errors import InputError
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.crystals import relaxed
from esen_flows.physics.lattice.phonon_labels import read_force_constants
from esen_flows.physics.lattice.recipe_phonons import write_phonons


@pytest.fixture(scope="module", name="emt")
def _emt():
    return load_force_field("emt")


def test_phonons_are_written_once_and_predict_forces(emt, tmp_path):
    crystal, seen = relaxed(Crystal("CuAu", "rocksalt", ("Cu", "Au"), None), emt), []
    files = write_phonons([crystal], emt, tmp_path, lambda *progress: seen.append(progress))
    assert files == [tmp_path / "CuAu" / "phonopy_params.yaml"]
    assert seen == [("CuAu", 1, 1)]
    (found,) = read_force_constants(tmp_path)
    assert len(found.supercell) == 64
    moved = np.zeros((64, 3))
    moved[3] = [0.004, -0.003, 0.005]
    atoms = found.supercell.copy()
    atoms.positions += moved
    (result,) = emt.evaluate(atoms)
    np.testing.assert_allclose(-found.products(moved[None])[0], result.forces, atol=0.03 * np.abs(result.forces).max())
    calls, written = emt.force_evaluations, files[0].stat().st_mtime_ns
    write_phonons([crystal], emt, tmp_path)
    assert (emt.force_evaluations, files[0].stat().st_mtime_ns) == (calls, written)
    with pytest.raises(InputError, match="with other displacements"):
        write_phonons([crystal], emt, tmp_path, displacement_angstrom=0.03)


def test_a_crystal_without_a_geometry_is_refused(emt, tmp_path):
    with pytest.raises(InputError, match="has no lattice_angstrom"):
        write_phonons([Crystal("CuAu", "rocksalt", ("Cu", "Au"), None)], emt, tmp_path)

"""Phonons of the crystals of a recipe by a labelling force field."""

from dataclasses import replace

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


def test_a_folder_that_was_interrupted_or_holds_others_is_not_taken_for_all_crystals(emt, tmp_path):
    def stop(*progress):
        raise KeyboardInterrupt

    copper, gold = Crystal("Cu", "fcc", ("Cu",), 3.6), Crystal("Au", "fcc", ("Au",), 4.1)
    with pytest.raises(KeyboardInterrupt):
        write_phonons([copper, gold], emt, tmp_path, stop)
    with pytest.raises(InputError, match=r"1 of 2 crystals .* are not computed yet .*run the command"):
        read_force_constants(tmp_path)
    write_phonons([copper, gold], emt, tmp_path)
    assert len(read_force_constants(tmp_path)) == 2
    calls = emt.force_evaluations
    write_phonons([copper], emt, tmp_path)
    assert emt.force_evaluations == calls
    with pytest.raises(InputError, match="also holds Au, which are not crystals of the labelling"):
        read_force_constants(tmp_path)
    (tmp_path / "Cu" / "phonopy_params.yaml").rename(tmp_path / "elsewhere.yaml")
    with pytest.raises(InputError, match="lacks phonons of Cu; run esen-flows label"):
        read_force_constants(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_phonons([Crystal("Cu", "fcc", ("Cu",), 3.7), replace(gold, lattice_angstrom=4.2)], emt, tmp_path, stop)
    with pytest.raises(InputError, match="1 of 2 crystals"):  # a file of gold is there, of its former geometry
        read_force_constants(tmp_path)

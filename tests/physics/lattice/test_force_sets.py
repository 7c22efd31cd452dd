from pathlib import Path

import numpy as np
import pytest
from alloys import forces_one_by_one
from phono3py import Phono3py
from phono3py.file_IO import write_FORCES_FC2, write_FORCES_FC3
from phonopy import Phonopy
from phonopy.file_IO import write_FORCE_SETS
from phonopy.structure.atoms import PhonopyAtoms

from esen_flows.errors import InputError
from esen_flows.physics.lattice.force_sets import read_phono3py_forces, read_phonopy_forces
from esen_flows.physics.lattice.phonon import phonon
from esen_flows.schemas.protocols import HarmonicProtocol

COPPER = PhonopyAtoms(
    symbols=["Cu"] * 4, scaled_positions=[(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)], cell=3.59 * np.eye(3)
)


@pytest.fixture
def phono3py_files(metals, tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """phono3py's own files of copper, and the forces in them."""
    ph3 = Phono3py(COPPER, [1, 1, 1], "auto", phonon_supercell_matrix=[2, 2, 2])
    ph3.generate_displacements(distance=0.04)
    ph3.save(tmp_path / "phono3py_disp.yaml", settings={"force_sets": False})
    ph3.forces = fc3 = forces_one_by_one(metals, ph3.supercells_with_displacements)
    ph3.phonon_forces = fc2 = forces_one_by_one(metals, ph3.phonon_supercells_with_displacements)
    write_FORCES_FC3(ph3.dataset, filename=tmp_path / "FORCES_FC3")
    write_FORCES_FC2(ph3.phonon_dataset, filename=tmp_path / "FORCES_FC2")
    ph3.save(tmp_path / "phono3py_params.yaml", settings={"force_sets": True})
    return tmp_path, fc3, fc2


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_phono3py_files_are_read_back(phono3py_files) -> None:
    folder, fc3, fc2 = phono3py_files
    apart, nac = read_phono3py_forces(folder / "phono3py_disp.yaml", folder / "FORCES_FC3", folder / "FORCES_FC2")
    assert nac is None
    assert apart.forces_fc3 == pytest.approx(fc3, abs=1e-9)
    assert apart.forces_fc2 == pytest.approx(fc2, abs=1e-9)
    assert apart.displacement_angstrom == pytest.approx(0.04)
    assert np.diag(apart.supercell_matrix_fc2).tolist() == [2, 2, 2]
    together, _ = read_phono3py_forces(folder / "phono3py_params.yaml")
    assert together.forces_fc3 == pytest.approx(fc3, abs=1e-9)
    assert together.displacements_fc2 == apart.displacements_fc2


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_missing_forces_are_named(phono3py_files) -> None:
    folder, _, _ = phono3py_files
    with pytest.raises(InputError, match=r"phono3py_disp\.yaml holds no forces; give its FORCES_FC3 too"):
        read_phono3py_forces(folder / "phono3py_disp.yaml")
    with pytest.raises(InputError, match="give its FORCES_FC2 too"):
        read_phono3py_forces(folder / "phono3py_disp.yaml", folder / "FORCES_FC3")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("random", [False, True], ids=["systematic", "random displacements"])
def test_phonopy_files_give_the_phonons_of_phonopy(metals, tmp_path: Path, random: bool) -> None:
    ph = Phonopy(COPPER, [2, 2, 2], "auto")
    ph.generate_displacements(distance=0.01, number_of_snapshots=4 if random else None, random_seed=5)
    ph.save(tmp_path / "phonopy_disp.yaml", settings={"force_sets": False})
    ph.forces = forces_one_by_one(metals, ph.supercells_with_displacements)
    write_FORCE_SETS(ph.dataset, filename=tmp_path / "FORCE_SETS")
    ph.produce_force_constants(fc_calculator="symfc" if random else None, show_drift=False)
    if not random:
        ph.symmetrize_force_constants(level=3, show_drift=False)
    forces, nac = read_phonopy_forces(tmp_path / "phonopy_disp.yaml", tmp_path / "FORCE_SETS")
    assert nac is None
    protocol = HarmonicProtocol(
        mesh=(4, 4, 4), band_points=5, temperatures_kelvin=(300.0,), imaginary_tolerance_thz=0.05
    )
    x_point = phonon(forces, protocol).band_frequencies_thz[0][-1]
    assert x_point == pytest.approx(ph.run_qpoints([[0.5, 0.0, 0.5]]).frequencies[0], abs=1e-5)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*nowhere\.yaml"):
        read_phono3py_forces(tmp_path / "nowhere.yaml")
    foreign = tmp_path / "foreign.yaml"
    foreign.write_text("a: 1\n")
    for reader in (read_phono3py_forces, read_phonopy_forces):
        with pytest.raises(InputError, match=r"foreign\.yaml"):
            reader(foreign)


@pytest.mark.shared
@pytest.mark.slow
def test_published_random_displacements_carry_their_charges(shared_dir) -> None:
    forces, nac = read_phono3py_forces(shared_dir / "data/phono3py/NaCl-rd/phono3py_params_NaCl.yaml.xz")
    assert forces.forces_fc3.shape == (100, 64, 3)
    assert forces.forces_fc2.shape == (2, 512, 3)
    assert forces.displacement_angstrom == pytest.approx(0.03, rel=1e-6)
    assert nac["born"].shape == (2, 3, 3)
    assert nac["born"].sum(axis=0) == pytest.approx(np.zeros((3, 3)), abs=1e-6)

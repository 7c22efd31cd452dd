"""Exported files, read with the interfaces of phonopy and phono3py."""

from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import phono3py
import phonopy
import pytest
import yaml
from alloys import copper_gold
from phono3py.file_IO import parse_FORCES_FC3
from phonopy.file_IO import parse_FORCE_SETS, read_thermal_properties_yaml

from esen_flows.errors import InputError
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.physics.lattice.conductivity import conductivity
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.export import write_phono3py_files, write_phonopy_files
from esen_flows.physics.lattice.phonon import phonon
from esen_flows.schemas.born_charges import BornCharges
from esen_flows.schemas.lattice_documents import ForcesOutput, PhononOutput
from esen_flows.schemas.protocols import (
    ConductivityProtocol,
    DisplacementProtocol,
    HarmonicProtocol,
    PhononProtocol,
    TransportProtocol,
)


@pytest.fixture(scope="module")
def forces() -> ForcesOutput:
    """Displaced CuAu; the second order has a supercell of its own, pairs beyond the cutoff were left out."""
    protocol = DisplacementProtocol(
        order=3, fc2_supercell=(3, 3, 2), fc3_supercell=(2, 2, 2), fc3_pair_cutoff_angstrom=4.0
    )
    return displaced_forces(copper_gold(), emt(), protocol)


@pytest.fixture(scope="module")
def born() -> BornCharges:
    """Opposite charges, which no CuAu has: they only have to come back."""
    atoms = copper_gold()
    return BornCharges(
        numbers=tuple(atoms.numbers.tolist()),
        fractions=atoms.get_scaled_positions().tolist(),
        cell_angstrom=atoms.cell.tolist(),
        charges_e=[(0.5 * sign * np.eye(3)).tolist() for sign in (1, -1)],
        dielectric=(4 * np.eye(3)).tolist(),
        factor_ev_angstrom=14.4,
    )


@pytest.fixture(scope="module")
def phonons(forces: ForcesOutput, born: BornCharges) -> PhononOutput:
    """Phonons whose force constants have no symmetry imposed: those that phonopy would fit to the forces differ."""
    protocol = PhononProtocol(mesh=(2, 2, 2), band_points=5, remove_drift=True, symmetrize=False, born=born)
    return phonon(forces, HarmonicProtocol.of(protocol))


def test_phonopy_reads_the_same_phonons(
    forces: ForcesOutput, born: BornCharges, phonons: PhononOutput, tmp_path: Path
) -> None:
    output = phonons
    files = write_phonopy_files(forces, output, born, tmp_path)
    assert sorted(files) == sorted(tmp_path.iterdir())

    read = phonopy.load(tmp_path / "phonopy_params.yaml", symmetrize_fc=False)
    assert read.force_constants == pytest.approx(output.force_constants_ev_per_angstrom2, abs=1e-12)
    bands = yaml.safe_load((tmp_path / "band.yaml").read_text())
    assert [len(output.band_distances), 5 * len(output.band_distances)] == [bands["npath"], bands["nqpoint"]]
    ticks = [label.split("|") for label in output.band_labels]
    assert bands["labels"] == [[start[-1], end[0]] for start, end in pairwise(ticks)]
    stored = np.concatenate(output.band_frequencies_thz)
    listed = [[band["frequency"] for band in point["band"]] for point in bands["phonon"]]
    assert listed == pytest.approx(stored, abs=1e-6)
    points = [point["q-position"] for point in bands["phonon"]]
    inner = np.linalg.norm(points, axis=1) > 0  # the limit at Gamma has a direction
    assert read.run_qpoints(points).frequencies[inner] == pytest.approx(stored[inner], abs=1e-6)

    kelvin, heat_capacity, entropy, free_energy, *_ = read_thermal_properties_yaml(
        [tmp_path / "thermal_properties.yaml"]
    )
    assert kelvin == pytest.approx(output.temperatures_kelvin)
    assert heat_capacity[:, 0] == pytest.approx(output.heat_capacity_j_per_k_mol, abs=1e-6)
    assert entropy[:, 0] == pytest.approx(output.entropy_j_per_k_mol, abs=1e-6)
    assert free_energy[:, 0] == pytest.approx(output.free_energy_kj_per_mol, abs=1e-6)
    sets = parse_FORCE_SETS(tmp_path / "FORCE_SETS")
    assert np.array([entry["forces"] for entry in sets["first_atoms"]]) == pytest.approx(forces.forces_fc2, abs=1e-9)


def test_phono3py_reads_the_same_conductivity(
    forces: ForcesOutput, born: BornCharges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = ConductivityProtocol(mesh=(4, 4, 3), temperatures_kelvin=(100.0, 310.0), born=born)
    output = conductivity(forces, TransportProtocol.of(protocol))
    files = write_phono3py_files(forces, output, born, tmp_path)
    assert sorted(files) == sorted(tmp_path.iterdir())

    monkeypatch.chdir(tmp_path)
    read = phono3py.load("phono3py_disp.yaml", fc3_filename="fc3.hdf5", fc2_filename="fc2.hdf5")
    assert read.fc3 == pytest.approx(output.fc3_ev_per_angstrom3, abs=1e-12)
    assert read.fc2 == pytest.approx(output.fc2_ev_per_angstrom2, abs=1e-12)
    read.mesh_numbers = [4, 4, 3]
    read.init_phph_interaction(average_degenerate_weights=True, symmetrize_tetrahedra=True, exclude_gamma_acoustic=True)
    for from_file in (True, False):  # linewidths of the file, and those that phono3py makes of the force constants
        read.run_thermal_conductivity(temperatures=[100, 310], read_gamma=from_file)
        kappa = read.thermal_conductivity.kappa[0]
        assert kappa == pytest.approx(output.methods["rta"].kappa_w_per_m_k, rel=1e-6, abs=1e-8)
        assert read.thermal_conductivity.frequencies == pytest.approx(output.frequencies_thz, abs=1e-6)
    with h5py.File("kappa-m443.wigner.hdf5") as file:
        assert file["kappa"][()] == pytest.approx(output.methods["wigner"].kappa_w_per_m_k)
        assert file["kappa_intra"][()] + file["kappa_inter"][()] == pytest.approx(file["kappa"][()])
        assert file["group_velocity"][()] == pytest.approx(read.thermal_conductivity.group_velocities, abs=1e-6)

    dataset = read.dataset
    parse_FORCES_FC3(dataset, "FORCES_FC3")
    pairs = [pair["forces"] for entry in dataset["first_atoms"] for pair in entry["second_atoms"]]
    first = [entry["forces"] for entry in dataset["first_atoms"]]
    assert np.array([*first, *pairs]) == pytest.approx(forces.forces_fc3, abs=1e-9)


def test_products_of_hessians_are_not_written_as_forces(
    forces: ForcesOutput, phonons: PhononOutput, tmp_path: Path
) -> None:
    exact = forces.model_copy(update={"force_constants": "autodiff"})
    write_phonopy_files(exact, phonons, None, tmp_path)
    assert not (tmp_path / "FORCE_SETS").exists()
    read = phonopy.load(tmp_path / "phonopy_params.yaml", symmetrize_fc=False)
    assert read.dataset is None
    assert read.force_constants == pytest.approx(phonons.force_constants_ev_per_angstrom2, abs=1e-12)


def test_isotopes_are_refused(forces: ForcesOutput, phonons: PhononOutput, tmp_path: Path) -> None:
    cell = forces.unitcell.model_copy(update={"masses_u": np.array([63.0, 65.0]), "numbers": np.array([29, 29])})
    with pytest.raises(InputError, match="several masses"):
        write_phonopy_files(forces.model_copy(update={"unitcell": cell}), phonons, None, tmp_path)

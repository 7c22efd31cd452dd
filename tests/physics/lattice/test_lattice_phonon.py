"""Phonons against analytical lattice dynamics, and against phonopy used directly."""

import numpy as np
import pytest
from alloys import copper_gold, forces_one_by_one, phonopy_cell
from ase import Atoms, units
from ase.build import bulk
from phonopy import Phonopy

from esen_flows.errors import InputError
from esen_flows.metrics.phonons import read_mdr_reference
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.force_sets import read_phonopy_forces
from esen_flows.physics.lattice.phonon import band_path, phonon
from esen_flows.schemas.lattice_documents import ForcesOutput, PhononOutput
from esen_flows.schemas.property_lookup import named_protocol
from esen_flows.schemas.protocols import DisplacementProtocol, HarmonicProtocol
from esen_flows.units import KELVIN_PER_THZ

NEAREST_ANGSTROM = 2 ** (1 / 6) * 3.40
PROTOCOL = HarmonicProtocol(
    mesh=(6, 6, 6), band_points=11, temperatures_kelvin=(0.0, 20.0, 2000.0), imaginary_tolerance_thz=0.05
)
# Stiffness of the Lennard-Jones pair at its minimum, epsilon 0.0104 eV and sigma 3.40 Angstrom.
STIFFNESS_EV_PER_ANGSTROM2 = 72 * 0.0104 / (2 ** (1 / 3) * 3.40**2)


def thz(stiffness: float, mass: float) -> float:
    """Frequency of sqrt(stiffness / mass), stiffness in eV/Angstrom^2 and mass in amu."""
    return float(np.sqrt(stiffness * 1e20 * units._e / (mass * units._amu)) / (2 * np.pi) * 1e-12)


@pytest.fixture
def argon_forces(argon: Atoms, argon_force_field) -> ForcesOutput:
    protocol = DisplacementProtocol(fc2_supercell=(2, 2, 2), displacement_angstrom=1e-3)
    return displaced_forces(argon, argon_force_field, protocol)


@pytest.fixture
def argon_phonon(argon_forces: ForcesOutput) -> PhononOutput:
    return phonon(argon_forces, PROTOCOL)


def at_label(output: PhononOutput, label: str) -> np.ndarray:
    index = output.band_labels.index(label)
    return output.band_frequencies_thz[index - 1][-1]


def test_nearest_neighbour_fcc_crystal_is_analytical(argon_phonon: PhononOutput) -> None:
    # D(q) = k/m sum over the 12 neighbours of n n^T (1 - cos q.R); at X: 8 k/m along q, 4 k/m across.
    mass = 39.948
    along, across = thz(8 * STIFFNESS_EV_PER_ANGSTROM2, mass), thz(4 * STIFFNESS_EV_PER_ANGSTROM2, mass)
    assert at_label(argon_phonon, "X") == pytest.approx([across, across, along], rel=1e-5)
    # At L: k/m (6 neighbours with cos = -1), 8 k/m along, 2 k/m across.
    along, across = thz(8 * STIFFNESS_EV_PER_ANGSTROM2, mass), thz(2 * STIFFNESS_EV_PER_ANGSTROM2, mass)
    assert at_label(argon_phonon, "L") == pytest.approx([across, across, along], rel=1e-5)
    assert argon_phonon.verdict == "stable"
    assert argon_phonon.instability is None
    assert argon_phonon.max_frequency_thz == pytest.approx(along, rel=1e-5)


def test_an_element_without_a_mass_in_phonopy_has_that_of_ase(argon_force_field) -> None:
    plutonium = bulk("Pu", "fcc", a=np.sqrt(2) * NEAREST_ANGSTROM)
    protocol = DisplacementProtocol(fc2_supercell=(2, 2, 2), displacement_angstrom=1e-3)
    output = phonon(displaced_forces(plutonium, argon_force_field, protocol), PROTOCOL)
    assert output.max_frequency_thz == pytest.approx(thz(8 * STIFFNESS_EV_PER_ANGSTROM2, 244.06), rel=1e-4)


def test_path_of_an_fcc_crystal(argon_phonon: PhononOutput) -> None:
    assert argon_phonon.band_labels == ["Γ", "X", "U|K", "Γ", "L", "W", "X"]
    assert len(argon_phonon.band_distances) == len(argon_phonon.band_frequencies_thz) == 6
    ticks = argon_phonon.band_label_distances
    for start, end, distances in zip(ticks[:-1], ticks[1:], argon_phonon.band_distances, strict=True):
        assert (start, end) == pytest.approx(distances[[0, -1]])
    # Gamma-X of an fcc crystal is 1/a long (without 2 pi).
    assert argon_phonon.band_label_distances[1] == pytest.approx(1 / (np.sqrt(2) * NEAREST_ANGSTROM))


def test_thermal_properties_have_their_limits(argon_phonon: PhononOutput) -> None:
    gas_constant = units.kB * units.mol / units.J
    assert argon_phonon.heat_capacity_j_per_k_mol[-1] == pytest.approx(3 * gas_constant, rel=1e-3)  # Dulong and Petit
    assert argon_phonon.entropy_j_per_k_mol[0] == argon_phonon.heat_capacity_j_per_k_mol[0] == 0.0
    # At T = 0 the free energy is the zero-point energy, half h times the first moment of the density of states.
    moment = np.trapezoid(
        argon_phonon.dos_states_per_thz * argon_phonon.dos_frequencies_thz, argon_phonon.dos_frequencies_thz
    )
    zero_point = 0.5 * units._hplanck * 1e12 * moment * units.mol / 1e3
    assert argon_phonon.free_energy_kj_per_mol[0] == pytest.approx(zero_point, rel=1e-2)  # two meshes


def test_densities_count_the_modes_and_their_atoms(argon_phonon: PhononOutput) -> None:
    total = np.trapezoid(argon_phonon.dos_states_per_thz, argon_phonon.dos_frequencies_thz)
    assert total == pytest.approx(3.0, rel=0.01)
    assert argon_phonon.projected_dos_states_per_thz.sum(axis=0) == pytest.approx(argon_phonon.dos_states_per_thz)


def test_phonons_equal_those_of_phonopy_used_directly(metals) -> None:
    atoms = copper_gold()
    ours = phonon(
        displaced_forces(atoms, metals, DisplacementProtocol(fc2_supercell=(2, 2, 2))),
        PROTOCOL.model_copy(update={"mesh": (5, 5, 5)}),
    )
    theirs = Phonopy(phonopy_cell(atoms), supercell_matrix=[2, 2, 2], primitive_matrix="P")
    theirs.generate_displacements(distance=0.01)
    theirs.forces = forces_one_by_one(metals, theirs.supercells_with_displacements)
    theirs.produce_force_constants(show_drift=False)
    theirs.symmetrize_force_constants(level=3, show_drift=False)
    mesh = theirs.run_mesh([5, 5, 5], is_mesh_symmetry=False, with_eigenvectors=True)
    frequencies = ours.dos_frequencies_thz
    projected = theirs.run_projected_dos(
        freq_min=frequencies[0], freq_max=frequencies[-1], freq_pitch=frequencies[1] - frequencies[0]
    ).projected_dos[:, : len(frequencies)]
    thermal = theirs.run_thermal_properties(temperatures=[0, 20, 2000], exclude_gamma_acoustic=True)
    assert ours.max_frequency_thz >= mesh.frequencies.max() - 1e-6
    assert ours.heat_capacity_j_per_k_mol == pytest.approx(thermal.heat_capacity, rel=1e-6)
    assert ours.entropy_j_per_k_mol == pytest.approx(thermal.entropy, rel=1e-6)
    # phonopy samples all q-points, ours are irreducible.
    assert ours.projected_dos_states_per_thz == pytest.approx(projected, abs=1e-6 * projected.max())


def test_mesh_that_breaks_the_symmetry_is_refused(argon_forces: ForcesOutput) -> None:
    with pytest.raises(InputError, match=r"mesh \(6, 6, 5\) breaks the symmetry"):
        phonon(argon_forces, PROTOCOL.model_copy(update={"mesh": (6, 6, 5)}))


def test_forces_of_third_order_give_the_same_phonons(argon, argon_force_field, argon_phonon: PhononOutput) -> None:
    protocol = DisplacementProtocol(
        order=3, fc2_supercell=(2, 2, 2), fc3_supercell=(1, 1, 1), displacement_angstrom=1e-3
    )
    other = phonon(displaced_forces(argon, argon_force_field, protocol), PROTOCOL)
    assert other.max_frequency_thz == pytest.approx(argon_phonon.max_frequency_thz, rel=1e-6)


def frozen_in(force_field, output: PhononOutput) -> float:
    """Frequency (THz) of the instability from the energy of a supercell with the frozen displacement pattern."""
    found, crystal = output.instability, output.structure.to_atoms()
    repeats = (2, 2, 2)
    assert found.q_point * repeats == pytest.approx(np.rint(found.q_point * repeats), abs=1e-9)
    undisturbed = crystal.repeat(repeats)
    places = np.tile(crystal.positions, (8, 1))
    translations = np.rint((undisturbed.positions - places) @ np.linalg.inv(crystal.cell.array))
    phases = np.cos(2 * np.pi * translations @ found.q_point)
    moves = 0.02 * phases[:, None] * np.tile(found.displacement_pattern, (8, 1))
    frozen = undisturbed.copy()
    frozen.positions += moves
    before, after = force_field.evaluate([undisturbed, frozen])
    curvature = 2 * (after.energy - before.energy) / float((frozen.get_masses()[:, None] * moves**2).sum())
    assert curvature < 0
    return -thz(-curvature, 1.0)


def test_simple_cubic_argon_is_unstable_and_its_pattern_lowers_the_energy(argon_force_field) -> None:
    crystal = bulk("Ar", "sc", a=NEAREST_ANGSTROM)
    # Compressed nearest neighbours only push: the crystal buckles sideways.
    crystal.set_cell(0.98 * crystal.cell.array, scale_atoms=True)
    output = phonon(
        displaced_forces(crystal, argon_force_field, DisplacementProtocol(fc2_supercell=(2, 2, 2))), PROTOCOL
    )
    assert output.verdict == "unstable"
    assert output.instability.frequency_thz == pytest.approx(output.min_frequency_thz)
    assert np.linalg.norm(output.instability.displacement_pattern, axis=1).max() == pytest.approx(1.0)
    assert frozen_in(argon_force_field, output) == pytest.approx(output.instability.frequency_thz, rel=0.02)


def test_pattern_at_the_edge_of_the_zone_has_the_phases_of_one_cell(metals) -> None:
    # phonopy's eigenvectors have a phase at the position of each atom, which differs between gold and copper here.
    crystal = bulk("CuAu", "rocksalt", a=5.4)
    output = phonon(
        displaced_forces(crystal, metals, DisplacementProtocol(fc2_supercell=(2, 2, 2), displacement_angstrom=0.005)),
        PROTOCOL.model_copy(update={"mesh": (4, 4, 4)}),
    )
    assert np.abs(output.instability.displacement_pattern).max(axis=1).min() > 0.1  # both atoms move
    assert frozen_in(metals, output) == pytest.approx(output.instability.frequency_thz, rel=0.01)


def test_band_path_is_in_the_reduced_coordinates_of_the_cell_given() -> None:
    # The same fcc crystal by another primitive cell: its X point has the same distance from Gamma.
    usual = bulk("Cu", a=3.6)
    other = usual.copy()
    other.set_cell(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) @ usual.cell.array)
    lengths = []
    for cell in (usual, other):
        path = band_path(cell, 3, 1e-5)
        assert path.labels[0] == ("Γ", "X")
        lengths.append(np.linalg.norm(path.segments[0][-1] @ np.linalg.inv(cell.cell.array).T))
    assert lengths == pytest.approx([1 / 3.6, 1 / 3.6])


@pytest.mark.shared
@pytest.mark.parametrize("name", ["NaCl", "MgO"])
def test_dft_salts_split_longitudinal_and_transverse_modes_by_their_charges(shared_dir, name: str) -> None:
    folder = shared_dir / "data/phonopy/example" / name
    forces, nac = read_phonopy_forces(folder / "phonopy_disp.yaml", folder / "FORCE_SETS", folder / "BORN")
    output = phonon(forces, PROTOCOL, nac)
    assert output.verdict == "stable"
    optical = output.band_frequencies_thz[0][0]  # Gamma, approached along the path
    transverse, longitudinal = optical[3], optical[5]
    # Cochran and Cowley, J. Phys. Chem. Solids 23, 447 (1962), for a cubic diatomic crystal, from the file's numbers.
    cell = output.structure.to_atoms()
    reduced_mass = 1 / (1 / cell.get_masses()).sum() * units._amu
    charge = np.abs(np.array(nac["born"])[:, 0, 0]).mean() * units._e
    volume = cell.get_volume() * 1e-30
    difference = charge**2 / (units._eps0 * nac["dielectric"][0][0] * reduced_mass * volume) / (2 * np.pi) ** 2 * 1e-24
    assert longitudinal**2 - transverse**2 == pytest.approx(difference, rel=1e-3)
    assert phonon(forces, PROTOCOL).band_frequencies_thz[0][0][5] == pytest.approx(transverse, rel=1e-3)


@pytest.mark.shared
def test_dft_anatase_is_stable(shared_dir) -> None:
    folder = shared_dir / "data/phonopy/example/TiO2-anatase"
    forces, nac = read_phonopy_forces(folder / "phonopy_disp.yaml", folder / "FORCE_SETS", folder / "BORN")
    output = phonon(forces, PROTOCOL, nac)
    assert output.verdict == "stable"
    assert len(output.structure.numbers) == 6
    oxygen = output.structure.numbers == 8
    high = output.dos_frequencies_thz > 15.0
    light, heavy = (output.projected_dos_states_per_thz[mask][:, high].mean() for mask in (oxygen, ~oxygen))
    assert light > 2 * heavy
    assert np.trapezoid(output.dos_states_per_thz, output.dos_frequencies_thz) == pytest.approx(18, rel=0.02)


@pytest.mark.shared
def test_published_mdr_entry_is_reproduced(shared_dir) -> None:
    """BaTe from its DFT forces: 165.18 K, 104.13 J/K/mol, -16.10 kJ/mol, 49.30 J/K/mol at 300 K, without NAC."""
    file = shared_dir / "data/mdr/mp-1000.yaml.bz2"
    forces, _ = read_phonopy_forces(file)
    for name in ("mdr", "mdr-esen", "mdr-loew"):
        protocol = HarmonicProtocol.of(named_protocol("phonon", name, {}))
        output = phonon(forces, protocol.model_copy(update={"band_points": 2}))
        assert output.max_commensurate_frequency_thz * KELVIN_PER_THZ == pytest.approx(165.18, abs=0.01)
        room = protocol.temperatures_kelvin.index(300.0)
        assert output.entropy_j_per_k_mol[room] == pytest.approx(104.13, abs=0.01)
        assert output.free_energy_kj_per_mol[room] == pytest.approx(-16.10, abs=0.01)
        assert output.heat_capacity_j_per_k_mol[room] == pytest.approx(49.30, abs=0.01)
    # Its authors' values, in which modes of 1e-8 THz at Gamma count, are in the file.
    published = read_mdr_reference(file)
    assert published.max_frequency_k == pytest.approx(165.18, abs=0.01)
    assert published.entropy_j_per_k_mol == pytest.approx(104.146, abs=0.001)
    assert output.entropy_j_per_k_mol[room] == pytest.approx(published.entropy_j_per_k_mol, abs=0.03)
    assert output.heat_capacity_j_per_k_mol[room] == pytest.approx(published.heat_capacity_j_per_k_mol, abs=0.002)

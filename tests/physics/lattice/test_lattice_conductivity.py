"""Conductivities against published ones, against phono3py used directly, and against their own sum rules."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from alloys import copper_gold, forces_one_by_one, phonopy_cell
from ase.build import bulk
from phono3py import Phono3py

from esen_flows.errors import ImaginaryModesError, InputError
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.physics.lattice.conductivity import conductivity
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.force_sets import read_phono3py_forces
from esen_flows.schemas.lattice_documents import ConductivityOutput, ForcesOutput
from esen_flows.schemas.lattice_versions import lattice_versions
from esen_flows.schemas.protocols import ConductivityProtocol, DisplacementProtocol, TransportProtocol

PROTOCOL = TransportProtocol.of(ConductivityProtocol(mesh=(4, 4, 3), temperatures_kelvin=(100.0, 310.0, 900.0)))


def third_order(metals, fc2: tuple[int, int, int]) -> ForcesOutput:
    protocol = DisplacementProtocol(order=3, displacement_angstrom=0.03, fc2_supercell=fc2, fc3_supercell=(2, 2, 2))
    return displaced_forces(copper_gold(), metals, protocol)


@pytest.fixture(scope="module")
def forces() -> ForcesOutput:
    return third_order(emt(), (3, 3, 2))


@pytest.fixture(scope="module")
def output(forces: ForcesOutput) -> ConductivityOutput:
    return conductivity(forces, PROTOCOL)


def phono3py_used_directly(metals, fc2: tuple[int, int, int] | None) -> Phono3py:
    """phono3py as its manual uses it, with supercells evaluated one by one."""
    ph3 = Phono3py(
        phonopy_cell(copper_gold()), supercell_matrix=[2, 2, 2], phonon_supercell_matrix=fc2, primitive_matrix="P"
    )
    ph3.generate_displacements(distance=0.03)
    ph3.forces = forces_one_by_one(metals, ph3.supercells_with_displacements)
    ph3.produce_fc3()
    if fc2 is not None:
        ph3.phonon_forces = forces_one_by_one(metals, ph3.phonon_supercells_with_displacements)
        ph3.produce_fc2()
    ph3.symmetrize_fc3()
    ph3.symmetrize_fc2()
    ph3.mesh_numbers = [4, 4, 3]
    ph3.init_phph_interaction(average_degenerate_weights=True, symmetrize_tetrahedra=True, exclude_gamma_acoustic=True)
    return ph3


@pytest.mark.parametrize("fc2", [(3, 3, 2), (2, 2, 2)], ids=["own fc2 supercell", "one supercell"])
def test_conductivities_equal_those_of_phono3py_used_directly(metals, fc2: tuple[int, int, int]) -> None:
    ours = conductivity(third_order(metals, fc2), PROTOCOL)
    theirs = phono3py_used_directly(metals, None if fc2 == (2, 2, 2) else fc2)
    theirs.run_thermal_conductivity(temperatures=[100, 310, 900])
    rta = theirs.thermal_conductivity
    assert ours.fc3_ev_per_angstrom3 == pytest.approx(theirs.fc3, abs=1e-8)
    assert ours.fc2_ev_per_angstrom2 == pytest.approx(theirs.fc2, abs=1e-9)
    assert ours.methods["rta"].kappa_w_per_m_k == pytest.approx(rta.kappa[0], rel=1e-6, abs=1e-8)
    # Here phono3py computes the linewidths again; ours are those of the relaxation-time run.
    theirs.run_thermal_conductivity(temperatures=[100, 310, 900], transport_type="SMM19")
    wigner = ours.methods["wigner"]
    assert wigner.kappa_w_per_m_k == pytest.approx(theirs.thermal_conductivity.kappa[0], rel=1e-6, abs=1e-8)
    assert wigner.kappa_w_per_m_k == pytest.approx(wigner.kappa_particle_w_per_m_k + wigner.kappa_coherence_w_per_m_k)
    assert (wigner.kappa_coherence_w_per_m_k[:, :3] > 0).all()


def test_both_implementations_of_linewidths_agree(forces: ForcesOutput, output: ConductivityOutput) -> None:
    theirs = conductivity(forces, PROTOCOL, backend="Rust")
    assert theirs.backend == "Rust"
    assert output.linewidths_thz == pytest.approx(theirs.linewidths_thz, rel=1e-11)
    for method, found in theirs.methods.items():
        assert output.methods[method].kappa_w_per_m_k == pytest.approx(found.kappa_w_per_m_k, rel=1e-10, abs=1e-12)


def test_isotopes_of_both_implementations_are_nearly_the_same(forces: ForcesOutput) -> None:
    """phono3py's depend on the last digits of the frequencies, which moves a conductivity by 1e-5 to 1e-3."""
    protocol = PROTOCOL.model_copy(update={"isotope_scattering": True})
    ours, theirs = (conductivity(forces, protocol, backend=backend) for backend in ("native", "Rust"))
    for method, found in theirs.methods.items():
        kappa = ours.methods[method].kappa_w_per_m_k[:, :3]
        assert kappa == pytest.approx(found.kappa_w_per_m_k[:, :3], rel=3e-3)


def test_shapes_and_values_of_the_document_agree(output: ConductivityOutput) -> None:
    n_q = len(output.q_points)
    assert output.q_weights.sum() == 4 * 4 * 3
    assert output.frequencies_thz.shape == (n_q, 6)
    assert output.linewidths_thz.shape == (3, n_q, 6)
    assert output.group_velocities_m_per_s.shape == (n_q, 6, 3)
    assert np.abs(output.group_velocities_m_per_s).max() == pytest.approx(4e3, rel=0.5)  # sound in copper and gold
    assert output.structure.numbers.tolist() == [29, 79]
    assert output.fc3_ev_per_angstrom3.shape == (2, 16, 16, 3, 3, 3)
    assert output.phono3py_version.startswith(lattice_versions()["phono3py"])
    assert output.backend == lattice_versions()["lattice_backend"] == "native"


def test_conductivity_is_the_sum_over_the_modes_of_the_document(output: ConductivityOutput) -> None:
    # kappa = 1/(N V) sum C v v tau, tau = 1/(4 pi gamma); xx + yy + zz is the same for all q of a star.
    thz, kelvin = 1e12, output.temperatures_kelvin[1]
    x = 6.62607015e-34 * output.frequencies_thz * thz / (1.380649e-23 * kelvin)
    with np.errstate(divide="ignore", invalid="ignore"):  # acoustic modes at Gamma carry no heat
        capacity = 1.380649e-23 * x**2 * np.exp(x) / np.expm1(x) ** 2
        lifetime = 1 / (4 * np.pi * output.linewidths_thz[1] * thz)
        speed2 = (output.group_velocities_m_per_s**2).sum(axis=-1)
        counted = (output.linewidths_thz[1] > 0) & (output.frequencies_thz > 1e-4)
        modes = np.where(counted, capacity * speed2 * lifetime, 0.0).sum(axis=1)
    volume = output.structure.to_atoms().get_volume() * 1e-30
    total = (modes * output.q_weights).sum() / output.q_weights.sum() / volume
    assert total == pytest.approx(output.methods["rta"].kappa_w_per_m_k[1, :3].sum(), rel=1e-5)


def test_cumulative_conductivity_climbs_to_the_total_nearest_300_kelvin(output: ConductivityOutput) -> None:
    cumulative = output.cumulative_kappa_w_per_m_k
    assert output.cumulative_temperature_kelvin == 310.0
    assert (np.diff(cumulative) >= -1e-12).all()
    assert cumulative[0] == pytest.approx(0.0, abs=1e-9)
    assert cumulative[-1] == pytest.approx(output.methods["rta"].kappa_w_per_m_k[1, :3].mean(), rel=1e-9)
    assert output.cumulative_frequencies_thz[-1] == pytest.approx(output.max_frequency_thz)


def test_protocol_chooses_methods_and_scattering(forces: ForcesOutput, output: ConductivityOutput) -> None:
    wigner = conductivity(forces, PROTOCOL.model_copy(update={"methods": ("wigner",), "isotope_scattering": True}))
    assert set(wigner.methods) == {"wigner"}
    assert set(wigner.mode_kappa_w_per_m_k) == {
        "rta",
        "wigner",
    }  # lifetimes are those of RTA
    clean = output.methods["wigner"]
    assert (wigner.methods["wigner"].kappa_particle_w_per_m_k[:, 0] < clean.kappa_particle_w_per_m_k[:, 0]).all()
    grains = conductivity(forces, PROTOCOL.model_copy(update={"methods": ("rta",), "boundary_mfp_micrometre": 0.01}))
    assert (grains.methods["rta"].kappa_w_per_m_k[:, 0] < 0.9 * output.methods["rta"].kappa_w_per_m_k[:, 0]).all()


def test_elements_without_isotopes_in_nature(argon_force_field) -> None:
    technetium = bulk("Tc", "fcc", a=np.sqrt(2) * 2 ** (1 / 6) * 3.40)  # as argon, but heavier
    forces = displaced_forces(
        technetium, argon_force_field, DisplacementProtocol(order=3, fc2_supercell=(2, 2, 2), fc3_supercell=(2, 2, 2))
    )
    coarse = PROTOCOL.model_copy(update={"mesh": (3, 3, 3), "methods": ("rta",), "isotope_scattering": True})
    with pytest.raises(InputError, match=r"Tc has no natural abundances .* set isotope_scattering=false"):
        conductivity(forces, coarse)
    assert conductivity(forces, coarse.model_copy(update={"isotope_scattering": False})).max_frequency_thz > 0


def test_nothing_is_printed_and_no_file_is_left(
    metals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    conductivity(third_order(metals, (2, 2, 2)), PROTOCOL)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_unstable_crystal_has_no_conductivity(metals) -> None:
    stretched = copper_gold()
    stretched.set_cell(stretched.cell.array * 1.25, scale_atoms=True)
    protocol = DisplacementProtocol(order=3, fc2_supercell=(2, 2, 2), fc3_supercell=(2, 2, 2))
    forces = displaced_forces(stretched, metals, protocol)
    with pytest.raises(ImaginaryModesError, match=r"AuCu has an imaginary mode of -\d+\.\d+ THz \(band 1\) at q = \("):
        conductivity(forces, PROTOCOL)


def test_supercell_whose_symmetry_forbids_a_third_order_is_refused(metals) -> None:
    # Inversion at an atom leaves all four atoms of the conventional cell in place: linewidths would be rounding errors.
    protocol = DisplacementProtocol(order=3, fc2_supercell=(2, 2, 2), fc3_supercell=(1, 1, 1))
    forces = displaced_forces(bulk("Cu", a=3.6), metals, protocol)
    with pytest.raises(InputError, match=r"Cu vanish in a supercell of 4 atoms .* take a larger fc3_supercell"):
        conductivity(forces, PROTOCOL.model_copy(update={"mesh": (3, 3, 3)}))


def test_turning_the_crystal_changes_nothing(metals, output: ConductivityOutput) -> None:
    # By default phono3py cuts tetrahedra along one diagonal in every orientation, which makes 1.5 % here.
    turned = copper_gold()
    turned.rotate(41.0, (1, 2, 3), rotate_cell=True)
    protocol = DisplacementProtocol(
        order=3, displacement_angstrom=0.03, fc2_supercell=(3, 3, 2), fc3_supercell=(2, 2, 2)
    )
    other = conductivity(displaced_forces(turned, metals, protocol), PROTOCOL)
    for method, result in output.methods.items():
        trace = other.methods[method].kappa_w_per_m_k[:, :3].sum(axis=1)
        assert trace == pytest.approx(result.kappa_w_per_m_k[:, :3].sum(axis=1), rel=1e-6)


def test_mesh_that_breaks_the_symmetry_is_refused(forces: ForcesOutput) -> None:
    with pytest.raises(InputError, match=r"mesh \(4, 3, 3\) breaks the symmetry"):
        conductivity(forces, PROTOCOL.model_copy(update={"mesh": (4, 3, 3)}))


def test_second_order_is_not_enough(metals) -> None:
    forces = displaced_forces(copper_gold(), metals, DisplacementProtocol(fc2_supercell=(2, 2, 2)))
    with pytest.raises(InputError, match="needs third-order forces"):
        conductivity(forces, PROTOCOL)


def at_300_kelvin(mesh: tuple[int, int, int]) -> TransportProtocol:
    return PROTOCOL.model_copy(update={"mesh": mesh, "temperatures_kelvin": (300.0,), "methods": ("rta",)})


def test_rounding_of_forces_does_not_reach_the_conductivity(forces: ForcesOutput, output: ConductivityOutput) -> None:
    # phono3py's default weights depend on the eigenvectors of degenerate modes: 1 % in this crystal on this mesh.
    noise = 1e-11 * np.random.default_rng(0).normal(size=forces.forces_fc2.shape)
    again = conductivity(forces.model_copy(update={"forces_fc2": forces.forces_fc2 + noise}), PROTOCOL)
    for method, result in output.methods.items():
        assert again.methods[method].kappa_w_per_m_k == pytest.approx(result.kappa_w_per_m_k, rel=1e-6, abs=1e-8)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(("name", "documented"), [("Si-PBEsol", 109.1), ("Si-PBE", 119.5)])
def test_dft_silicon_has_its_documented_conductivity(shared_dir, name: str, documented: float) -> None:
    # W/m/K at 300 K on an 11^3 mesh, from the README beside the data (phono3py's examples).
    folder = shared_dir / "data/phono3py" / name
    forces, nac = read_phono3py_forces(folder / "phono3py_disp.yaml", folder / "FORCES_FC3")
    assert nac is None
    kappa = conductivity(forces, at_300_kelvin((11, 11, 11))).methods["rta"].kappa_w_per_m_k[0]
    assert kappa[:3] == pytest.approx([documented] * 3, rel=2e-3)


@pytest.mark.shared
def test_dft_rock_salt_with_its_charges_has_its_documented_conductivity(shared_dir) -> None:
    forces, nac = read_phono3py_forces(shared_dir / "data/phono3py/phono3py_params_NaCl222.yaml.xz")
    kappa = conductivity(forces, at_300_kelvin((9, 9, 9)), nac).methods["rta"].kappa_w_per_m_k[0]
    assert kappa[:3] == pytest.approx([7.86] * 3, rel=2e-3)


@pytest.mark.shared
@pytest.mark.slow
def test_dft_silicon_agrees_with_the_output_of_phono3py_3(shared_dir) -> None:
    # kappa-m111111_si_pbesol.hdf5 was written by phono3py 3.28; integration weights changed by about 1 % since.
    folder = shared_dir / "data/phono3py"
    forces, _ = read_phono3py_forces(folder / "Si-PBEsol/phono3py_disp.yaml", folder / "Si-PBEsol/FORCES_FC3")
    protocol = at_300_kelvin((11, 11, 11)).model_copy(update={"temperatures_kelvin": (100.0, 300.0, 500.0)})
    output = conductivity(forces, protocol)
    with h5py.File(folder / "kappa-m111111_si_pbesol.hdf5") as reference:
        assert np.array_equal(output.q_weights, reference["weight"][:])
        assert output.frequencies_thz == pytest.approx(reference["frequency"][:], abs=1e-6)
        assert output.group_velocities_m_per_s / 100 == pytest.approx(reference["group_velocity"][:], abs=1e-6)
        gamma = reference["gamma"][[0, 2, 4]]
    assert output.linewidths_thz.sum(axis=(1, 2)) == pytest.approx(gamma.sum(axis=(1, 2)), rel=0.01)


def test_modes_add_up_to_every_method(forces: ForcesOutput) -> None:
    protocol = PROTOCOL.model_copy(
        update={"methods": ("rta", "wigner", "lbte"), "isotope_scattering": True, "boundary_mfp_micrometre": 10.0}
    )
    output = conductivity(forces, protocol)
    nearest = 1  # 310 K
    means = {name: result.kappa_w_per_m_k[nearest, :3].mean() for name, result in output.methods.items()}
    for name, mean in means.items():
        assert output.mode_kappa_w_per_m_k[name].shape == output.frequencies_thz.shape
        assert output.mode_kappa_w_per_m_k[name].sum() == pytest.approx(mean, rel=1e-6)
    # From the same linewidths; on such a coarse mesh, repopulation may lower the conductivity.
    assert 0.001 < abs(means["lbte"] / means["rta"] - 1) < 0.1
    speeds = np.linalg.norm(output.group_velocities_m_per_s, axis=2)
    free = 1 / (4 * np.pi * np.where(output.linewidths_thz[nearest] > 0, output.linewidths_thz[nearest], np.nan))
    moving = np.isfinite(free) & (speeds > 1.0)  # m/s; at symmetric points group velocities are rounding noise
    assert (output.lifetimes_ps[moving] <= free[moving]).all()
    assert (output.lifetimes_ps[moving] < 0.999 * free[moving]).any()  # isotopes and the boundary shorten them
    assert (speeds * output.lifetimes_ps)[
        moving
    ].max() * 1e-6 < 10.0  # m/s ps = 1e-12 m; all paths are below the boundary


def test_lifetimes_without_boundary_are_those_of_the_linewidths(output: ConductivityOutput) -> None:
    linewidths = output.linewidths_thz[1]
    scattered = linewidths > 0
    assert output.lifetimes_ps[scattered] == pytest.approx(1 / (4 * np.pi * linewidths[scattered]))
    assert np.isnan(output.lifetimes_ps[~scattered]).all()

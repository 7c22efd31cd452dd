"""Averages over equivalent supercells and over orientations, with exact force fields and with one that has none."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from esen_flows.data.neighbors import neighbor_pairs
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.makers.summaries import conductivity_summary
from esen_flows.physics.lattice import conductivity as solver
from esen_flows.physics.lattice.conductivity import conductivity
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.force_averages import jackknife_error
from esen_flows.physics.lattice.harmonic import HarmonicLattice
from esen_flows.physics.lattice.phonon import phonon
from esen_flows.physics.lattice.supercell_symmetry import supercell_symmetry
from esen_flows.schemas.lattice_documents import ConductivityOutput, ForcesOutput, TransportResult
from esen_flows.schemas.protocols import DisplacementProtocol, HarmonicProtocol, TransportProtocol
from esen_flows.structures.inputs import AnyStructures, as_structures

AT_X = np.array([[0.5, 0.0, 0.5]])
REACH = 5.0  # Angstrom, beyond the nearest neighbours of argon


class Oriented(ForceField):
    """A force field with an energy of each pair that depends on its angle with an axis, z: a w(r) (z/r)^4."""

    def __init__(self, inner: ForceField, strength: float = 2e-3, axis: int = 2) -> None:
        self.axis = np.eye(3)[axis]
        self.inner, self.strength, self.key, self.label = inner, strength, "oriented", "oriented"
        self.declaration = replace(inner.declaration, equivariance="approximate")

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        batch = as_structures(structures)
        self.force_evaluations += len(batch)
        return [self._changed(atoms, one) for atoms, one in zip(batch, self.inner.evaluate(batch), strict=True)]

    def _changed(self, atoms: Atoms, one: Evaluation) -> Evaluation:
        pairs = neighbor_pairs(atoms, REACH)
        v, s = pairs.vectors.numpy(), (pairs.vectors.numpy() ** 2).sum(axis=1)
        envelope, power = (1 - s / REACH**2) ** 3, (v @ self.axis) ** 4 / s**2
        slope = -6 * ((1 - s / REACH**2) ** 2 / REACH**2 * power)[:, None] * v
        slope += envelope[:, None] * (
            4 * ((v @ self.axis) ** 3 / s**2)[:, None] * self.axis - 4 * (power / s)[:, None] * v
        )
        forces = one.forces.copy()
        np.add.at(forces, pairs.target.numpy(), self.strength * slope)
        return replace(one, energy=one.energy + self.strength * float((envelope * power).sum()) / 2, forces=forces)


def forces_of(atoms: Atoms, force_field: ForceField, average: str, **more: object) -> ForcesOutput:
    values = {"fc2_supercell": (2, 2, 2), "displacement_angstrom": 0.01, "parity": "as_is"}
    values |= ({"fc_frames": 3} if average == "rotations" else {}) | more
    return displaced_forces(atoms, force_field, DisplacementProtocol.model_validate({**values, "fc_average": average}))


def test_all_averages_agree_for_an_exact_force_field() -> None:
    silicon, exact = bulk("Si", a=5.46), load_force_field("esen_silicon")
    found = {
        average: forces_of(silicon, exact, average, fc2_supercell=(1, 1, 1), parity="average", **frames)
        for average, frames in (("none", {}), ("equivalents", {}), ("rotations", {"fc_frames": 2}))
    }
    plain = HarmonicLattice(found["none"]).force_constants
    for average in ("equivalents", "rotations"):
        lattice = HarmonicLattice(found[average])
        assert np.abs(lattice.force_constants - plain).max() < 1e-9 * np.abs(plain).max()
        assert found[average].force_spread_fc2_ev_per_angstrom < 1e-11
        assert lattice.residuals is not None
        assert lattice.residuals["space_group"] < 1e-9
    # One displacement along an axis, which either atom can have in six directions; each with its inverse.
    assert [found[one].n_evaluations for one in found] == [2, 2 * 12, 2 * 2 * 2]


def test_equivalents_take_the_choice_of_the_displacement_out(argon: Atoms, argon_force_field) -> None:
    # phonopy displaces an atom along x. Turning the axis of the force field is turning the crystal, a cubic one.
    fields = [Oriented(argon_force_field, axis=axis) for axis in (0, 2)]
    highest = {
        average: [HarmonicLattice(forces_of(argon, one, average)).modes(AT_X)[0].max() for one in fields]
        for average in ("none", "equivalents")
    }
    assert abs(highest["none"][1] - highest["none"][0]) > 1e-3
    assert highest["equivalents"][1] == pytest.approx(highest["equivalents"][0], abs=1e-7)


def test_forces_of_the_perfect_crystal_are_not_divided_by_the_displacement(argon_force_field) -> None:
    # In a turned diamond crystal this force field pulls at atoms whose places forbid any force.
    crystal, oriented = bulk("Ar", "diamond", a=2.3 * 3.816), Oriented(argon_force_field, strength=1e-3)
    small, large = (
        HarmonicLattice(
            forces_of(crystal, oriented, "rotations", fc2_supercell=(1, 1, 1), displacement_angstrom=length)
        ).force_constants
        for length in (0.001, 0.01)
    )
    assert np.abs(small - large).max() < 0.01 * np.abs(large).max()


def test_mean_forces_have_the_symmetry_of_the_displaced_supercell(argon: Atoms, argon_force_field) -> None:
    forces = forces_of(argon, Oriented(argon_force_field), "equivalents")
    supercell = HarmonicLattice(forces).supercell
    symmetry = supercell_symmetry(supercell, 1e-5)
    ((atom, displacement),) = (
        (e["number"], np.array(e["displacement"])) for e in forces.displacements_fc2["first_atoms"]
    )
    kept = 0
    for rotation, permutation in zip(symmetry.rotations, symmetry.permutations, strict=True):
        shift = symmetry.translations[symmetry.translations[:, permutation[atom]] == atom][0]
        moved = shift[permutation]
        if np.allclose(rotation @ displacement, displacement):
            kept += 1
            assert np.abs(forces.forces_fc2[0][moved] - forces.forces_fc2[0] @ rotation.T).max() == pytest.approx(
                0, abs=1e-14
            )
    assert (kept, forces.n_evaluations) == (8, 6)


def test_frequencies_and_conductivities_have_error_bars(argon: Atoms, argon_force_field) -> None:
    forces = forces_of(argon, Oriented(argon_force_field), "rotations", order=3, fc3_supercell=(2, 2, 2))
    bands = phonon(forces, HarmonicProtocol(mesh=(3, 3, 3), band_points=3, temperatures_kelvin=(30.0,)))
    assert bands.band_frequency_errors_thz is not None
    assert [one.shape for one in bands.band_frequency_errors_thz] == [one.shape for one in bands.band_frequencies_thz]
    assert bands.max_frequency_error_thz is not None
    assert 1e-4 < bands.max_frequency_error_thz < 0.5
    protocol = TransportProtocol(mesh=(3, 3, 3), temperatures_kelvin=(30.0,), methods=("rta",))
    heat = conductivity(forces, protocol)
    error = heat.methods["rta"].kappa_error_w_per_m_k
    assert error is not None
    assert error.shape == (1, 6)
    assert (error[0, :3] > 0).all()
    assert heat.fc_residuals is not None
    assert set(heat.fc_residuals) == {
        f"{order}_{kind}" for order in ("fc2", "fc3") for kind in ("space_group", "permutation", "translation")
    }
    # Projected: the conductivity of a cubic crystal is a number.
    assert heat.methods["rta"].kappa_w_per_m_k[0, :3] == pytest.approx([heat.methods["rta"].kappa_w_per_m_k[0, 0]] * 3)


def test_projected_third_order_is_exact(argon: Atoms, argon_force_field) -> None:
    random = np.random.default_rng(1).normal(size=(1, 4, 4, 3, 3, 3))
    symmetry = supercell_symmetry(bulk("Ar", cubic=True, a=5.4), 1e-5)
    once = symmetry.projected(random, np.array([0]))
    assert np.abs(once).max() < 1e-14  # inversion at an atom leaves every other atom of this cell in its place
    pairs = np.random.default_rng(1).normal(size=(1, 4, 3, 3))
    second = symmetry.projected(pairs, np.array([0]))
    assert np.abs(second).max() > 0.1
    assert symmetry.swapped(second, np.array([0])) == pytest.approx(second.transpose(0, 1, 3, 2), abs=1e-14)


def test_the_error_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(2).normal(size=(6, 4))
    left_out = np.array([np.delete(values, number, axis=0).mean(axis=0) for number in range(6)])
    assert jackknife_error(left_out) == pytest.approx(values.std(axis=0, ddof=1) / np.sqrt(6))


def test_a_mean_of_conductivities_has_an_error_of_its_own(conductivity_document, monkeypatch) -> None:
    tensors = np.zeros((3, 5, 6))  # orientations and temperatures: xx and yy deviate by opposite amounts
    tensors[:, :, 0], tensors[:, :, 1], tensors[:, :, 2] = [[1.0], [2.0], [3.0]], [[5.0], [4.0], [3.0]], 3.0

    class Solved:
        def __init__(self, number: int, nac: None) -> None:
            result = TransportResult(
                kappa_w_per_m_k=tensors[number], kappa_particle_w_per_m_k=None, kappa_coherence_w_per_m_k=None
            )
            self.grid_modes = lambda mesh: None
            self.transport = lambda protocol, nearest, backend: {"methods": {"rta": result}}

    monkeypatch.setattr(solver, "AnharmonicLattice", Solved)
    monkeypatch.setattr(solver, "without_frame", lambda forces, number: number)
    output = ConductivityOutput.model_validate(conductivity_document().output)
    methods = {"rta": output.methods["rta"]}
    solver._add_errors(methods, SimpleNamespace(frame_forces_fc3=tensors), TransportProtocol(), None, "native")
    assert methods["rta"].kappa_error_w_per_m_k[0, :3] == pytest.approx([np.sqrt(4 / 3), np.sqrt(4 / 3), 0.0])
    assert conductivity_summary(output)["kappa_rta_error_w_per_m_k"] == pytest.approx(0.0, abs=1e-12)


def test_exact_hessians_are_not_averaged() -> None:
    with pytest.raises(ValueError, match="fc_average averages forces"):
        DisplacementProtocol(fc_average="rotations", force_constants="autodiff")

"""Force constants by autodiff: the limit of central differences, for the shipped silicon and for random MgO."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from esen_flows.errors import NotDifferentiableError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.forcefield.symmetrized import with_parity
from esen_flows.network.esen.config import ESENConfig
from esen_flows.network.esen.esen import ESEN
from esen_flows.physics.lattice.anharmonic import AnharmonicLattice
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.harmonic import HarmonicLattice
from esen_flows.physics.lattice.phonon import phonon
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.protocols import DisplacementProtocol, HarmonicProtocol

ONE, TWICE = ((1, 0, 0), (0, 1, 0), (0, 0, 1)), ((2, 0, 0), (0, 2, 0), (0, 0, 2))
FINITE = DisplacementProtocol(fc2_supercell=ONE)
AUTODIFF = FINITE.model_copy(update={"force_constants": "autodiff"})
Case = tuple[ForceField, Atoms]


@pytest.fixture(scope="module")
def silicon() -> Case:
    return load_force_field("esen_silicon"), bulk("Si", "diamond", a=5.46663)


@pytest.fixture(scope="module")
def mgo() -> Case:
    torch.manual_seed(0)
    config = ESENConfig(sphere_channels=8, hidden_channels=10, edge_channels=6, cutoff_angstrom=4.0)
    checkpoint = Checkpoint(ESEN(config), 1.3, {}, (8, 12), model_key="random")
    return NetworkForceField(checkpoint), bulk("MgO", "rocksalt", a=4.2)


@pytest.fixture(params=["silicon", "mgo"])
def case(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)


def limit(of_displacement: Callable[[float], np.ndarray]) -> np.ndarray:
    """Value at zero displacement of an even function: Richardson extrapolation from 0.04, 0.02 and 0.01 Angstrom."""
    coarse, middle, fine = (of_displacement(step) for step in (0.04, 0.02, 0.01))
    return (16 * (4 * fine - middle) / 3 - (4 * middle - coarse) / 3) / 15


def forces(case: Case, protocol: DisplacementProtocol, **changes: object) -> ForcesOutput:
    force_field, atoms = case
    return displaced_forces(atoms, force_field, protocol.model_copy(update=changes))


def deviation(value: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(value - reference).max() / np.abs(reference).max())


def perfect_supercell(output: ForcesOutput) -> tuple[Atoms, np.ndarray]:
    """The second-order supercell, and the indices of its atoms that represent those of the primitive cell."""
    lattice = HarmonicLattice(output)._phonon
    cell = lattice.supercell
    return Atoms(cell.symbols, positions=cell.positions, cell=cell.cell, pbc=True), lattice.primitive.p2s_map


def test_second_order_is_the_limit_of_central_differences(case: Case) -> None:
    exact = HarmonicLattice(forces(case, AUTODIFF)).force_constants

    def finite(step: float) -> np.ndarray:
        return HarmonicLattice(forces(case, FINITE, displacement_angstrom=step)).force_constants

    assert deviation(limit(finite), exact) < 2e-7
    assert 1e-5 < deviation(finite(0.01), exact) < 1e-3  # the error of a finite displacement


def test_symmetry_reduced_force_constants_are_the_plain_hessian(case: Case) -> None:
    output = forces(case, AUTODIFF)
    supercell, rows = perfect_supercell(output)
    hessian = with_parity(case[0], "average").hessian(supercell, rows)
    size = np.abs(hessian).max()
    assert deviation(HarmonicLattice(output).force_constants, hessian) < 1e-12
    # Acoustic sum rule, and permutation symmetry among the atoms of the primitive cell, without symmetrisation.
    assert np.abs(hessian.sum(axis=1)).max() < 1e-13 * size
    block = hessian[:, rows]
    assert np.abs(block - block.transpose(1, 0, 3, 2)).max() < 1e-13 * size


def test_displacement_does_not_matter_for_the_second_order(mgo: Case) -> None:
    small, large = (HarmonicLattice(forces(mgo, AUTODIFF, displacement_angstrom=step)) for step in (1e-3, 0.1))
    assert deviation(small.force_constants, large.force_constants) < 1e-13


def test_phonon_frequencies_agree_with_small_displacements(silicon: Case) -> None:
    protocol = HarmonicProtocol(
        mesh=(6, 6, 6), band_points=21, temperatures_kelvin=(300.0,), imaginary_tolerance_thz=0.05
    )
    exact, finite = (phonon(forces(silicon, p, fc2_supercell=TWICE), protocol) for p in (AUTODIFF, FINITE))
    differences = np.concatenate(exact.band_frequencies_thz) - np.concatenate(finite.band_frequencies_thz)
    assert 0 < np.abs(differences).max() < 0.01
    assert exact.verdict == "stable"


def test_third_order_is_the_limit_of_central_differences(silicon: Case) -> None:
    protocol = FINITE.model_copy(update={"order": 3, "fc3_supercell": ONE})

    def fc3(method: str, step: float) -> np.ndarray:
        return AnharmonicLattice(forces(silicon, protocol, force_constants=method, displacement_angstrom=step)).fc3

    exact, finite = (
        {step: fc3(method, step) for step in (0.04, 0.02, 0.01)} for method in ("autodiff", "finite_displacement")
    )
    reference = limit(exact.__getitem__)
    assert deviation(limit(finite.__getitem__), reference) < 2e-5
    # Quadratic in the step between Hessians: a central difference.
    errors = [deviation(exact[step], reference) for step in (0.02, 0.01)]
    assert errors[0] == pytest.approx(4 * errors[1], rel=0.02)
    # One difference instead of two is more accurate at the same displacement.
    assert errors[1] < 0.5 * deviation(finite[0.01], reference)
    permuted = reference.transpose(0, 2, 1, 3, 5, 4)
    assert deviation(permuted, reference) < 1e-12


def test_third_order_is_a_central_difference_of_hessians(silicon: Case) -> None:
    # d(Hessian)/dx of one atom without symmetry, against the symmetry-reduced displacements.
    output = forces(silicon, AUTODIFF, order=3, fc3_supercell=ONE, displacement_angstrom=0.005)
    supercell, rows = perfect_supercell(output)
    averaged = with_parity(silicon[0], "average")
    hessians = []
    for sign in (1, -1):
        moved = supercell.copy()
        moved.positions[rows[0], 2] += sign * 0.005
        hessians.append(averaged.hessian(moved, [0, 5]))
    expected = (hessians[0] - hessians[1]) / 0.01
    assert (
        deviation(AnharmonicLattice(output).fc3[0, [0, 5], :, 2], expected) < 1e-4
    )  # errors of order 0.005^2 from other directions


def test_residual_forces_do_not_enter(mgo: Case) -> None:
    force_field, atoms = mgo
    rattled = atoms.copy()
    rattled.rattle(0.05, seed=2)
    output = displaced_forces(rattled, force_field, AUTODIFF)
    supercell, rows = perfect_supercell(output)
    assert np.abs(force_field.evaluate([supercell])[0].forces).max() > 1e-3
    hessian = with_parity(force_field, "average").hessian(supercell, rows)
    assert deviation(HarmonicLattice(output).force_constants, hessian) < 1e-11


def test_document_progress_and_count(mgo: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esen_flows.physics.lattice.linear_response.PRODUCTS_PER_CALL", 3)
    seen: list[tuple[int, int]] = []
    protocol = AUTODIFF.model_copy(update={"order": 3, "fc2_supercell": TWICE, "fc3_supercell": ONE})
    force_field, atoms = mgo
    output = displaced_forces(atoms, force_field, protocol, lambda done, total: seen.append((done, total)))
    total = len(output.forces_fc3) + len(output.forces_fc2)
    assert output.force_constants == "autodiff"
    assert output.parity_averaged
    assert total <= output.n_evaluations <= 2 * total  # two evaluations a product, which opposite displacements share
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) > 3  # after every third product
    finite = forces(mgo, protocol, force_constants="finite_displacement")
    assert finite.force_constants == "finite_displacement"
    stored_before = finite.model_dump(exclude={"force_constants"})
    assert ForcesOutput.model_validate(stored_before).force_constants == "finite_displacement"
    assert finite.forces_fc3.shape == output.forces_fc3.shape
    assert deviation(output.forces_fc3, finite.forces_fc3) < 0.05


def test_opposite_displacements_are_one_product(mgo: Case) -> None:
    force_field, atoms = mgo
    rattled = atoms.copy()
    rattled.rattle(0.05, seed=2)  # no symmetry: three directions of each atom, with both signs
    seen: list[tuple[int, int]] = []
    protocol = AUTODIFF.model_copy(update={"parity": "as_is"})
    output = displaced_forces(rattled, force_field, protocol, lambda done, total: seen.append((done, total)))
    assert len(output.forces_fc2) == 12
    assert output.n_evaluations == 6
    assert seen[-1] == (12, 12)
    for entry, opposite, one, other in zip(
        output.displacements_fc2["first_atoms"][0::2],
        output.displacements_fc2["first_atoms"][1::2],
        output.forces_fc2[0::2],
        output.forces_fc2[1::2],
        strict=True,
    ):
        assert np.allclose(entry["displacement"], -np.array(opposite["displacement"]))
        assert np.array_equal(one, -other)


def test_force_fields_without_second_derivatives_are_refused(argon: Atoms, argon_force_field: ForceField) -> None:
    with pytest.raises(NotDifferentiableError, match="force_constants=finite_displacement"):
        displaced_forces(argon, argon_force_field, AUTODIFF)
    assert argon_force_field.force_evaluations == 0

"""Elastic tensors against finite strains by hand, exact tensors of every crystal system, and rotated crystals."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal
from scipy.spatial.transform import Rotation

from esen_flows.errors import NotConvergedError
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.elastic import (
    elastic_tensor,
    invariant_tensors,
    needed_directions,
    point_group,
    polycrystal,
    strained_stresses,
)
from esen_flows.physics.relax import relax
from esen_flows.schemas.elastic import ElasticProtocol, StrainProtocol, StrainsOutput
from esen_flows.schemas.protocols import NumericSettings, RelaxProtocol
from esen_flows.schemas.requests import property_requests
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def by_hand(atoms: Atoms, step: float = 1e-3) -> np.ndarray:
    """Elastic constants from central differences of EMT's stress in all six strains, with relaxed positions."""
    emt = load_force_field("emt")
    fixed_cell = RelaxProtocol(relax_cell=False, fmax_ev_per_angstrom=1e-5, max_steps=2000)
    tensor = np.zeros((6, 6))
    for column, (i, j) in enumerate(VOIGT):
        stresses = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            stresses.append(relax(strained, emt, fixed_cell).stress_ev_per_angstrom3)
        difference = (stresses[0] - stresses[1]) / (2 * step) * EV_PER_ANGSTROM3_TO_GPA
        tensor[:, column] = [difference[pair] for pair in VOIGT]
    return tensor


def relaxed(atoms: Atoms) -> Atoms:
    tight = RelaxProtocol(fmax_ev_per_angstrom=1e-5, max_steps=3000)
    return relax(atoms, load_force_field("emt"), tight).structure.to_atoms()


@pytest.fixture(scope="module")
def alloy() -> Atoms:
    """Ordered CuAu, tetragonal, turned away from the axes."""
    atoms = bulk("Cu", cubic=True, a=3.85)
    atoms.symbols[[0, 1]] = "Au"
    atoms = relaxed(atoms)
    atoms.rotate(31.0, (1, 2, 3), rotate_cell=True)
    return atoms


@pytest.mark.parametrize("turned", [False, True])
def test_constants_of_copper_are_those_by_hand(turned: bool) -> None:
    atoms = relaxed(bulk("Cu", a=3.6))
    if turned:
        atoms.rotate(20.0, (1, 1, 3), rotate_cell=True)
    strained = strained_stresses(atoms, load_force_field("emt"), StrainProtocol())
    found, expected = elastic_tensor(strained), by_hand(atoms)
    assert found.independent == 3
    np.testing.assert_allclose(found.elastic_tensor_gpa, expected, atol=0.5)
    assert found.stable
    assert found.bulk_modulus_gpa == pytest.approx(expected[:3, :3].sum() / 9, abs=0.2)
    # As in any cubic crystal.
    assert found.bulk_modulus_voigt_gpa == pytest.approx(found.bulk_modulus_reuss_gpa, rel=1e-6)
    assert 0 < found.bulk_modulus_interval_gpa < 1.0


def test_a_turned_tetragonal_crystal(alloy: Atoms) -> None:
    strained = strained_stresses(alloy, load_force_field("emt"), StrainProtocol())
    found = elastic_tensor(strained)
    assert found.independent == 6
    np.testing.assert_allclose(found.elastic_tensor_gpa, by_hand(alloy), atol=1.0)
    density = alloy.get_masses().sum() / alloy.get_volume() * 1660.539
    assert strained.density_kg_per_m3 == pytest.approx(density, rel=1e-6)
    velocity = (found.shear_modulus_gpa * 1e9 / density) ** 0.5
    assert found.transverse_velocity_m_per_s == pytest.approx(velocity, rel=1e-6)


GROUPS = {  # independent constants (Nye, Physical Properties of Crystals), strains that are needed
    "triclinic": (crystal("Cu", [(0.1, 0.2, 0.3)], spacegroup=2, cellpar=[4, 5, 6, 80, 85, 75]), 21, 6),
    "monoclinic": (crystal("Cu", [(0.1, 0.2, 0.3)], spacegroup=10, cellpar=[5, 6, 7, 90, 100, 90]), 13, 6),
    "orthorhombic": (crystal("Cu", [(0.1, 0.2, 0.3)], spacegroup=47, cellpar=[5, 6, 7, 90, 90, 90]), 9, 6),
    "tetragonal": (bulk("In", crystalstructure="bct", a=3.2, c=4.9), 6, 4),
    "trigonal": (crystal("Cu", [(0.1, 0.2, 0.3)], spacegroup=166, cellpar=[7, 7, 12, 90, 90, 120]), 6, None),
    "hexagonal": (bulk("Zn", a=2.66, c=4.95), 5, 3),
    "cubic": (bulk("Cu", cubic=True), 3, 2),
}


@pytest.mark.parametrize("system", GROUPS)
def test_exact_stresses_give_the_exact_tensor(system: str) -> None:
    atoms, independent, needed = GROUPS[system]
    rotations = point_group(atoms, 0.01)
    tensors = invariant_tensors(rotations)
    assert len(tensors) == independent
    directions = needed_directions(rotations)
    assert needed is None or len(directions) == needed
    mandel = np.array([1, 1, 1, 2**0.5, 2**0.5, 2**0.5])
    random = np.random.default_rng(1).normal(size=(6, 6))
    base = 100 * np.eye(6) + 10 * (random + random.T)  # of a crystal without symmetry
    coefficients = np.einsum("nij,ij->n", tensors, base)
    exact = np.einsum("n,nij->ij", coefficients, tensors) / np.outer(mandel, mandel)
    strains = np.vstack([np.zeros(6), *(sign * 0.01 * np.eye(6)[[d]] for d in directions for sign in (1, -1, 2, -2))])
    quadratic = 50 * np.random.default_rng(2).normal(size=(6, 6))
    stresses = (strains @ exact + strains**2 @ quadratic + 0.01) / EV_PER_ANGSTROM3_TO_GPA
    output = StrainsOutput(
        strains=strains, stresses_ev_per_angstrom3=stresses, rotations=rotations, density_kg_per_m3=5000.0
    )
    found = elastic_tensor(output)
    np.testing.assert_allclose(found.elastic_tensor_gpa, exact, atol=1e-6)
    assert found.residual_gpa < 1e-8
    assert found.stable == bool(np.linalg.eigvalsh(exact)[0] > 0)


def test_moduli_do_not_depend_on_the_orientation(alloy: Atoms) -> None:
    tensor = elastic_tensor(strained_stresses(alloy, load_force_field("emt"), StrainProtocol())).elastic_tensor_gpa
    rotation = Rotation.from_rotvec([0.3, -0.5, 0.8]).as_matrix()
    full = np.zeros((3, 3, 3, 3))
    for row, (i, j) in enumerate(VOIGT):
        for column, (k, m) in enumerate(VOIGT):
            for a, b in {(i, j), (j, i)}:
                for c, d in {(k, m), (m, k)}:
                    full[a, b, c, d] = tensor[row, column]
    turned = np.einsum("ia,jb,kc,md,abcd->ijkm", rotation, rotation, rotation, rotation, full)
    again = np.array([[turned[i, j, k, m] for k, m in VOIGT] for i, j in VOIGT])
    assert polycrystal(again) == pytest.approx(polycrystal(tensor), rel=1e-10)


def test_an_unstable_tensor_has_no_sound() -> None:
    cubic = np.diag([-20.0] * 3 + [30.0] * 3) + np.pad(np.full((3, 3), 60.0), (0, 3))  # C11 < C12
    strains = np.vstack([np.zeros(6), *(sign * 0.01 * np.eye(6)[[d]] for d in (0, 3) for sign in (1, -1, 2, -2))])
    found = elastic_tensor(
        StrainsOutput(
            strains=strains, stresses_ev_per_angstrom3=strains @ cubic, density_kg_per_m3=5000.0,
            rotations=point_group(bulk("Cu"), 0.01),
        )
    )  # fmt: skip
    assert not found.stable
    assert found.eigenvalues_gpa[0] < 0
    assert found.longitudinal_velocity_m_per_s is None


def test_positions_that_do_not_relax_are_a_failure(alloy: Atoms) -> None:
    rattled = alloy.repeat((1, 1, 2))
    rattled.rattle(0.1, seed=1)
    protocol = StrainProtocol(relax=RelaxProtocol(relax_cell=False, max_steps=1))
    with pytest.raises(NotConvergedError):
        strained_stresses(rattled, load_force_field("emt"), protocol)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"magnitudes": 0.01}, "at least two different strains"),
        ({"magnitudes": (0.01, 0.2)}, "at most 0.1"),
        ({"relax": RelaxProtocol()}, "set relax_cell=false"),
    ],
)
def test_impossible_protocols_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StrainProtocol(**fields)  # type: ignore[arg-type]


def test_golden_keys() -> None:
    """A change here loses stored elastic tensors."""
    requests = property_requests("aa" * 32, "bb" * 32, ElasticProtocol(), NumericSettings())
    assert [request.kind for request in requests] == ["relax", "strains", "elastic"]
    assert requests[-1].key == "170947e2dc9b208cc365528e92daca44eab4ccd65a3b61ea2a6ebeea92d75d94"

"""One crystal has one conductivity, however it is written."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from writings import rewritten

from esen_flows.forcefield.contract import Declaration
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.third_party.any_ase import AseForceField
from esen_flows.physics.lattice.conductivity import conductivity
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.phonon import phonon
from esen_flows.schemas.born_charges import BornCharges
from esen_flows.schemas.lattice_documents import ConductivityOutput
from esen_flows.schemas.protocols import DisplacementProtocol, HarmonicProtocol, PhononProtocol, TransportProtocol

TRANSPORT = TransportProtocol(
    mesh=(4, 4, 4), temperatures_kelvin=(300.0,), methods=("rta",), isotope_scattering=False,
    boundary_mfp_micrometre=None,
)  # fmt: skip
HARMONIC = HarmonicProtocol.of(PhononProtocol(mesh=(4, 4, 4), band_points=5))
# Layers of silver and palladium along [111] of fcc (L1_1): trigonal, with cubic lengths and angles.
AXES = 1.97 * np.array([[1, 1, 2], [2, 1, 1], [1, 2, 1]])
SILVER_PALLADIUM = Atoms("AgPd", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=AXES, pbc=True)


def with_axes(atoms: Atoms, order: list[int]) -> Atoms:
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell.array[order], pbc=True)


def shifted(atoms: Atoms, vector: tuple[float, float, float]) -> Atoms:
    return Atoms(atoms.numbers, positions=atoms.positions + np.array(vector), cell=atoms.cell, pbc=True)


WRITINGS = {
    "axes permuted": lambda atoms: with_axes(atoms, [1, 2, 0]),
    "atoms reordered": lambda atoms: atoms[::-1],
    "origin shifted": lambda atoms: shifted(atoms, (0.3, 0.1, 0.7)),
    "rotated, noise": lambda atoms: rewritten(atoms, 1, 1e-9),
    "supercell": lambda atoms: rewritten(atoms * (1, 1, 2), 2),
}


def displacement(setting: str, fc3: tuple[int, int, int] = (2, 2, 1)) -> DisplacementProtocol:
    return DisplacementProtocol(
        order=3, displacement_angstrom=0.03, fc2_supercell=fc3, fc3_supercell=fc3, setting=setting
    )


def rta(atoms: Atoms, force_field, setting: str) -> ConductivityOutput:
    return conductivity(displaced_forces(atoms, force_field, displacement(setting)), TRANSPORT)


@pytest.fixture(scope="module")
def emt() -> AseForceField:
    declaration = Declaration(
        conservative=True, equivariance="O3", differentiable=False, elements=None, dtype="float64"
    )
    return AseForceField(EMT(), key="emt", label="emt", declaration=declaration)


@pytest.fixture(scope="module")
def reference(emt: AseForceField) -> ConductivityOutput:
    return rta(SILVER_PALLADIUM, emt, "canonical")


def principal(output: ConductivityOutput) -> np.ndarray:
    """Eigenvalues of the conductivity in W/m/K, which do not depend on the orientation."""
    xx, yy, zz, yz, xz, xy = output.methods["rta"].kappa_w_per_m_k[0]
    return np.linalg.eigvalsh([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


@pytest.mark.parametrize("writing", WRITINGS)
def test_one_crystal_has_one_conductivity(reference: ConductivityOutput, emt: AseForceField, writing: str) -> None:
    given = WRITINGS[writing](SILVER_PALLADIUM)
    output = rta(given, emt, "canonical")
    assert principal(output) == pytest.approx(principal(reference), rel=1e-5)  # as given, they differ by 1 %
    assert output.frequencies_thz == pytest.approx(reference.frequencies_thz, abs=1e-5)
    assert output.structure.numbers[output.given_to_primitive].tolist() == given.numbers.tolist()


def test_as_given_is_the_setting_of_the_input(reference: ConductivityOutput, emt: AseForceField) -> None:
    elsewhere = WRITINGS["origin shifted"](SILVER_PALLADIUM)
    first, second = (principal(rta(atoms, emt, "as_given")).mean() for atoms in (SILVER_PALLADIUM, elsewhere))
    # Two of the results between which the choice of a setting decides.
    assert first == pytest.approx(9.5099, abs=1e-3)
    assert second == pytest.approx(9.4211, abs=1e-3)
    assert principal(reference).mean() == pytest.approx(9.5187, abs=1e-3)


def test_born_charges_reach_the_atoms_that_they_are_of(emt: AseForceField) -> None:
    """Each copper atom of Cu3Au has another tensor, so that a wrong order would be another crystal."""
    faces = [(0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    cell = Atoms("AuCu3", scaled_positions=[(0, 0, 0), *faces], cell=[3.75] * 3, pbc=True)
    charges = [-3.6 * np.eye(3), *(np.diag(0.4 + 2.4 * axis) for axis in np.eye(3))]
    born = BornCharges(
        numbers=cell.numbers.tolist(), cell_angstrom=cell.cell.array.tolist(), charges_e=np.array(charges).tolist(),
        fractions=cell.get_scaled_positions().tolist(), dielectric=(3 * np.eye(3)).tolist(),
    )  # fmt: skip
    protocol = DisplacementProtocol(fc2_supercell=(2, 2, 2), setting="canonical")
    other = cell[[2, 0, 3, 1]]
    other.positions += [0.4, -0.2, 1.1]
    tops = {}
    for name, atoms in {"first": cell, "other": other}.items():
        forces = displaced_forces(atoms, emt, protocol)
        tops[name] = phonon(forces, HARMONIC.model_copy(update={"born": born})).max_frequency_thz
        tops[f"{name} without"] = phonon(forces, HARMONIC).max_frequency_thz
    assert tops["other"] == pytest.approx(tops["first"], abs=1e-6)
    assert tops["first"] > tops["first without"] + 0.005


def test_an_esen_gives_one_highest_frequency() -> None:
    silicon, force_field = bulk("Si", "diamond", a=5.46), load_force_field("esen_silicon")
    protocol = DisplacementProtocol(fc2_supercell=(1, 1, 1), setting="canonical")
    writings = silicon, rewritten(silicon, 3, 1e-9)
    first, second = (phonon(displaced_forces(atoms, force_field, protocol), HARMONIC) for atoms in writings)
    assert second.max_frequency_thz == pytest.approx(first.max_frequency_thz, abs=1e-4)

"""Isotopes in lattice dynamics: frequencies by masses, symmetry by places, and no scattering by one isotope alone."""

from pathlib import Path

import numpy as np
import pytest
from alloys import copper_gold, phonopy_cell
from ase import Atoms
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from esen_flows.errors import InputError
from esen_flows.physics.lattice.conductivity import conductivity
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.force_sets import read_phonopy_forces
from esen_flows.physics.lattice.harmonic import HarmonicLattice
from esen_flows.physics.lattice.masses import mass_variance, mass_variances, without_abundances
from esen_flows.physics.lattice.phonon import phonon
from esen_flows.physics.symmetry import conventional_cell
from esen_flows.schemas.atom_properties import properties_of
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.protocols import (
    ConductivityProtocol,
    DisplacementProtocol,
    HarmonicProtocol,
    PhononProtocol,
    TransportProtocol,
)

DISPLACEMENTS = DisplacementProtocol(fc2_supercell=(2, 2, 2))
HARMONIC = HarmonicProtocol.of(PhononProtocol(mesh=(4, 4, 4), temperatures_kelvin=(300.0,)))
NATURAL_ARGON, GAMMA = 39.948, np.zeros((1, 3))


def isotopes(argon: Atoms, *masses: float | None) -> Atoms:
    atoms = argon.copy()
    atoms.set_masses(masses)
    return atoms


def test_all_atoms_of_one_isotope(argon, argon_force_field) -> None:
    natural = phonon(displaced_forces(argon, argon_force_field, DISPLACEMENTS), HARMONIC)
    heavy = phonon(displaced_forces(isotopes(argon, 60.0), argon_force_field, DISPLACEMENTS), HARMONIC)
    assert heavy.max_frequency_thz == pytest.approx(natural.max_frequency_thz * np.sqrt(NATURAL_ARGON / 60.0), rel=1e-9)
    assert heavy.structure.masses_u is not None
    assert heavy.structure.masses_u.tolist() == [60.0]
    assert heavy.entropy_j_per_k_mol[0] > natural.entropy_j_per_k_mol[0]


def test_two_isotopes_of_one_element_lower_the_symmetry_and_obey_the_sum_rule(argon, argon_force_field) -> None:
    cubic = conventional_cell(argon, 1e-5)
    mixed = isotopes(cubic, 60.0, None, None, None)
    assert len(conventional_cell(mixed, 1e-5)) == 4
    assert properties_of(conventional_cell(mixed, 1e-5)).masses_u.tolist() == [60.0, 0, 0, 0]  # type: ignore[union-attr]
    forces = displaced_forces(mixed, argon_force_field, DISPLACEMENTS)
    assert sorted(forces.unitcell.masses_u.tolist()) == [0, 0, 0, 60.0]
    lattice = HarmonicLattice(forces)
    assert len(lattice.primitive) == 4  # one atom without isotopes
    assert lattice.primitive.get_chemical_formula() == "Ar4"
    assert sorted(lattice.primitive.get_masses()) == pytest.approx([39.95, 39.95, 39.95, 60.0], abs=3e-3)
    # The trace of the dynamical matrix: sum of squares of the frequencies = sum over atoms of tr(K) / m, with K equal.
    natural = HarmonicLattice(
        displaced_forces(isotopes(cubic, *[1e-6 + NATURAL_ARGON] * 4), argon_force_field, DISPLACEMENTS)
    )
    zone = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])  # folds on Gamma of the cubic cell
    ours = (lattice.modes(GAMMA)[0] ** 2).sum()
    theirs = (natural.modes(zone)[0] ** 2).sum()
    assert ours / theirs == pytest.approx((3 + NATURAL_ARGON / 60.0) / 4, rel=2e-4)  # displacements are finite


def with_masses(forces: ForcesOutput, masses: dict[int, float]) -> ForcesOutput:
    """The same forces for isotopes of the given elements, by atomic number."""
    cell = forces.unitcell
    own = np.array([masses.get(int(number), 0.0) for number in cell.numbers])
    return forces.model_copy(update={"unitcell": StructureData(**cell.model_dump() | {"masses_u": own})})


def test_an_atom_with_a_mass_of_its_own_does_not_scatter_by_isotopes(metals) -> None:
    protocol = DisplacementProtocol(
        order=3, displacement_angstrom=0.03, fc2_supercell=(2, 2, 2), fc3_supercell=(2, 2, 2)
    )
    forces = displaced_forces(copper_gold(), metals, protocol)
    transport = TransportProtocol.of(
        ConductivityProtocol(mesh=(3, 3, 2), temperatures_kelvin=(20.0,), methods=("rta", "lbte"))
    )
    isotopic = transport.model_copy(update={"isotope_scattering": True})
    enriched = with_masses(forces, {29: 62.9296, 79: 196.9666})  # 63Cu; gold has one natural isotope
    for backend in ("native", "Rust"):
        without = conductivity(enriched, transport, backend=backend)
        pure = conductivity(enriched, isotopic, backend=backend)
        natural = conductivity(forces, isotopic, backend=backend)
        for method in ("rta", "lbte"):
            kappa = pure.methods[method].kappa_w_per_m_k
            np.testing.assert_allclose(kappa, without.methods[method].kappa_w_per_m_k, rtol=1e-9)
            assert natural.methods[method].kappa_w_per_m_k[0, 0] < kappa[0, 0]
        assert pure.structure.masses_u is not None


def test_masses_in_files_of_phonopy(argon, argon_force_field, tmp_path: Path) -> None:
    cell = phonopy_cell(argon)
    for mass, own in ((39.948, None), (39.9624, [39.9624])):  # natural argon, and 40Ar
        phonopy = Phonopy(
            PhonopyAtoms(symbols=["Ar"], cell=cell.cell, positions=cell.positions, masses=[mass]), 2 * np.eye(3)
        )
        phonopy.generate_displacements(distance=0.01)
        supercells = [
            Atoms("Ar8", positions=each.positions, cell=each.cell, pbc=True)
            for each in phonopy.supercells_with_displacements
        ]
        phonopy.forces = [result.forces for result in argon_force_field.evaluate(supercells)]
        phonopy.save(tmp_path / "phonopy_params.yaml", settings={"force_sets": True})
        forces, _ = read_phonopy_forces(tmp_path / "phonopy_params.yaml")
        masses = forces.unitcell.masses_u
        assert (None if masses is None else masses.tolist()) == own


def test_variances_and_abundances() -> None:
    atoms = Atoms("SiSiPuPu", masses=[None, 27.9769, None, 239.0])
    with pytest.raises(KeyError):
        mass_variances(atoms)
    assert mass_variances(atoms[[0, 1, 3]]).tolist() == [mass_variance("Si"), 0.0, 0.0]
    assert without_abundances(StructureData.from_atoms(atoms)) == ["Pu"]
    assert without_abundances(StructureData.from_atoms(atoms[[0, 1, 3]])) == []


def test_elements_without_abundances_need_a_mass(metals) -> None:
    forces = displaced_forces(copper_gold(), metals, DISPLACEMENTS)
    unknown = forces.model_copy(
        update={
            "unitcell": StructureData(
                **forces.unitcell.model_dump() | {"numbers": np.full(len(forces.unitcell.numbers), 94)}
            )
        }
    )
    transport = TransportProtocol.of(ConductivityProtocol(isotope_scattering=True))
    with pytest.raises(InputError, match="Pu has no natural abundances"):
        conductivity(unknown, transport)
    with pytest.raises(InputError, match="needs third-order forces"):
        conductivity(with_masses(unknown, {94: 239.0}), transport)

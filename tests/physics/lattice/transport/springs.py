"""Crystals of springs at rest with a cubic term: stable, of any symmetry, and their forces cost nothing."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from phono3py import Phono3py
from phonopy.structure.atoms import PhonopyAtoms

# Cutoff (Angstrom), stiffness (eV/Angstrom^2), cubic constant (eV/Angstrom^3) of each shell of neighbours.
Shell = tuple[float, float, float]


def spring_forces(ideal: Atoms, positions: np.ndarray, shells: Sequence[Shell]) -> np.ndarray:
    first, second, shifts = neighbor_list("ijS", ideal, max(cutoff for cutoff, _, _ in shells))
    at_rest = ideal.positions[second] + shifts @ ideal.cell.array - ideal.positions[first]
    length = np.linalg.norm(at_rest, axis=1)
    shell = np.searchsorted([cutoff for cutoff, _, _ in shells], length)
    stiffness, cubic = np.array(shells)[shell, 1:].T
    stiffness = stiffness * (1 + 0.01 * np.abs(ideal.numbers[first] - ideal.numbers[second]))
    moved = positions - ideal.positions
    bond = at_rest + moved[second] - moved[first]
    now = np.linalg.norm(bond, axis=1)
    stretch = now - length
    forces = np.zeros_like(positions)
    np.add.at(forces, first, ((stiffness * stretch - 3 * cubic * stretch**2) / now)[:, None] * bond)
    return forces


def spring_crystal(atoms: Atoms, supercell: np.ndarray, shells: Sequence[Shell], primitive: str = "P") -> Phono3py:
    """phono3py with the force constants of a crystal of springs."""
    cell = PhonopyAtoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array)
    ph3 = Phono3py(cell, supercell, primitive, log_level=0)
    ph3.generate_displacements(distance=0.03)
    perfect = ph3.supercell
    ideal = Atoms(numbers=perfect.numbers, positions=perfect.positions, cell=perfect.cell, pbc=True)
    displaced = ph3.supercells_with_displacements
    ph3.forces = np.array([spring_forces(ideal, one.positions, shells) for one in displaced])
    ph3.produce_fc3()
    ph3.symmetrize_fc3()
    ph3.symmetrize_fc2()
    return ph3


def silicon() -> Phono3py:
    return spring_crystal(bulk("Si", cubic=True), np.eye(3, dtype=int), [(2.5, 8.0, 10.0), (4.0, 1.0, 1.0)], "F")


def zinc_oxide() -> Phono3py:
    wurtzite = bulk("ZnO", "wurtzite", a=3.25, c=5.2, u=0.382)
    return spring_crystal(wurtzite, np.diag([2, 2, 2]), [(2.2, 8.0, 10.0), (3.4, 1.0, 1.0)])


def monoclinic() -> Phono3py:
    """Three different atoms without any symmetry but inversion of the lattice."""
    atoms = Atoms(
        "SiGeC",
        scaled_positions=[[0, 0, 0], [0.41, 0.36, 0.53], [0.73, 0.81, 0.22]],
        cell=[[3.3, 0, 0], [0.4, 3.6, 0], [0.2, -0.5, 4.0]],
        pbc=True,
    )
    return spring_crystal(atoms, np.diag([2, 2, 2]), [(2.9, 6.0, 8.0), (4.1, 1.0, 1.0)])

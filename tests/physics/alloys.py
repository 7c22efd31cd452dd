"""Crystals and conversions that several tests of physics use."""

import numpy as np
from ase import Atoms
from phonopy.structure.atoms import PhonopyAtoms

from esen_flows.forcefield.contract import ForceField


def copper_gold(a_angstrom: float = 2.76, c_angstrom: float = 3.87) -> Atoms:
    """Ordered CuAu, tetragonal, two atoms: different masses, and more than one value in a tensor."""
    cell = [a_angstrom, a_angstrom, c_angstrom]
    return Atoms("CuAu", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=cell, pbc=True)


def phonopy_cell(atoms: Atoms) -> PhonopyAtoms:
    return PhonopyAtoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array)


def forces_one_by_one(force_field: ForceField, cells: list[PhonopyAtoms]) -> np.ndarray:
    """Forces of cells of phonopy, each evaluated by itself."""
    structures = [Atoms(cell.symbols, positions=cell.positions, cell=cell.cell, pbc=True) for cell in cells]
    return np.array([force_field.evaluate([atoms])[0].forces for atoms in structures])

"""Masses of atoms and their variance: phonopy's for elements in natural abundance, and a structure's own for isotopes.

spglib, phonopy and phono3py tell atoms apart by their atomic number. Where atoms of one element have several masses,
each further mass gets the number of an element that the crystal does not have.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, chemical_symbols
from phonopy.structure.atomic_data import get_atomic_data
from phonopy.structure.atoms import PhonopyAtoms

from esen_flows.schemas.atom_properties import AtomProperties, own_masses, properties_of, species_numbers
from esen_flows.schemas.documents import StructureData


def natural_masses(numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """Masses of elements in natural abundance.

    Parameters
    ----------
    numbers
        (n,) atomic numbers.

    Returns
    -------
    np.ndarray
        (n,) phonopy's masses in u. Those of some radioactive elements (plutonium for example), which phonopy lacks, are
        ASE's masses of long-lived isotopes.
    """
    table = get_atomic_data().atom_data
    return np.array([table[number][3] or atomic_masses[number] for number in numbers])


def phonopy_atoms(cell: StructureData) -> PhonopyAtoms:
    """A structure as cell of phonopy.

    Parameters
    ----------
    cell
        The structure.

    Returns
    -------
    PhonopyAtoms
        The cell, with natural masses where atoms have none of their own, and `species_numbers` as atomic numbers.
    """
    natural = natural_masses(cell.numbers)
    masses = natural if cell.masses_u is None else np.where(cell.masses_u > 0, cell.masses_u, natural)
    return PhonopyAtoms(
        numbers=species_numbers(cell.numbers, cell.masses_u),
        positions=cell.positions_angstrom,
        cell=cell.cell_angstrom,
        masses=masses,
    )


def ase_atoms(cell: PhonopyAtoms, origin: StructureData | None = None) -> Atoms:
    """A cell of phonopy as ASE structure, with masses that are not natural.

    Parameters
    ----------
    cell
        The cell.
    origin
        Structure that `phonopy_atoms` converted, from which the cell was made; None for a cell from a file.

    Returns
    -------
    Atoms
        The structure, periodic in three directions.
    """
    numbers, masses = np.array(cell.numbers), np.array(cell.masses, dtype=float)
    if origin is not None:
        element = dict(zip(species_numbers(origin.numbers, origin.masses_u).tolist(), origin.numbers, strict=True))
        numbers = np.array([element[number] for number in numbers.tolist()])
    is_natural = np.abs(masses - natural_masses(numbers)) < 1e-6
    own = own_masses(numbers, np.where(is_natural, atomic_masses[numbers], masses))
    atoms = Atoms(numbers=numbers, positions=cell.positions, cell=cell.cell, pbc=True)
    return AtomProperties(masses_u=own).attach(atoms)


def without_abundances(cell: StructureData) -> list[str]:
    """Elements without natural isotopes, or without isotopes that phonopy knows, of atoms without a mass of their own.

    Parameters
    ----------
    cell
        The structure.

    Returns
    -------
    list[str]
        Symbols of these elements.
    """
    natural = cell.numbers if cell.masses_u is None else cell.numbers[cell.masses_u == 0]
    symbols = [chemical_symbols[number] for number in np.unique(natural)]
    return [symbol for symbol in symbols if not get_atomic_data().isotope_data.get(symbol)]


def mass_variances(atoms: Atoms) -> np.ndarray:
    """Mass variances of the atoms of a structure, which scatter phonons.

    Parameters
    ----------
    atoms
        The structure; its elements have natural isotopes, or its atoms masses of their own.

    Returns
    -------
    np.ndarray
        (n,) relative variances; 0 for an atom with a mass of its own, which is one isotope.
    """
    own = properties_of(atoms).masses_u
    is_natural = np.ones(len(atoms), dtype=bool) if own is None else own == 0
    pairs = zip(atoms.get_chemical_symbols(), is_natural, strict=True)
    return np.array([mass_variance(symbol) if natural else 0.0 for symbol, natural in pairs])


def mass_variance(symbol: str) -> float:
    """Mean squared relative deviation of the masses of an element's isotopes in natural abundance.

    Parameters
    ----------
    symbol
        Chemical symbol.

    Returns
    -------
    float
        Sum over the isotopes of abundance (1 - m / mean)^2, from phonopy's table.

    Examples
    --------
    >>> round(mass_variance("Si"), 7)
    0.0002007
    """
    isotopes: Any = get_atomic_data().isotope_data[symbol]
    mean = sum(mass * abundance for _, mass, abundance in isotopes)
    return float(sum(abundance * (1.0 - mass / mean) ** 2 for _, mass, abundance in isotopes))

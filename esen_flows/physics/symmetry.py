"""Space groups and standard cells by spglib, in the structure's own orientation."""

from typing import Any

import numpy as np
import spglib
from ase import Atoms

from esen_flows.errors import StructureError
from esen_flows.schemas.atom_properties import AtomProperties, properties_of, species_numbers
from esen_flows.structures.identity import symmetry_dataset


def space_group_number(atoms: Atoms, symprec_angstrom: float) -> int | None:
    """International number of the space group.

    Parameters
    ----------
    atoms
        Any structure.
    symprec_angstrom
        Distance tolerance of spglib in Angstrom.

    Returns
    -------
    int | None
        1 to 230; None for structures that are not crystals or whose symmetry is not found.
    """
    dataset = symmetry_dataset(atoms, symprec_angstrom)
    return None if dataset is None else int(dataset.number)


def operation_count(atoms: Atoms, symprec_angstrom: float) -> int:
    """Number of symmetry operations of the cell, centring translations included.

    Parameters
    ----------
    atoms
        Any structure.
    symprec_angstrom
        Distance tolerance of spglib in Angstrom.

    Returns
    -------
    int
        1 for structures that are not crystals or whose symmetry is not found.
    """
    dataset = symmetry_dataset(atoms, symprec_angstrom)
    return 1 if dataset is None else len(dataset.rotations)


def conventional_lengths(atoms: Atoms, symprec_angstrom: float) -> np.ndarray | None:
    """Lengths of the lattice vectors of `conventional_cell`.

    Parameters
    ----------
    atoms
        Any structure.
    symprec_angstrom
        Distance tolerance of spglib in Angstrom.

    Returns
    -------
    np.ndarray | None
        (3,) in Angstrom; None for structures that are not crystals or whose symmetry is not found.
    """
    dataset = symmetry_dataset(atoms, symprec_angstrom)
    if dataset is None:
        return None
    # (a_s, b_s, c_s) = (a, b, c) P^-1 with vectors as columns: spglib's definition of the transformation.
    columns = atoms.cell.array.T @ np.linalg.inv(dataset.transformation_matrix)
    return np.asarray(np.linalg.norm(columns, axis=0))


def conventional_cell(atoms: Atoms, symprec_angstrom: float) -> Atoms:
    """The standard conventional cell of a crystal, neither rotated nor idealised.

    A primitive cell, a conventional one and a supercell of the same crystal give the same cell (up to the choice among
    symmetry-equivalent ones; isotopes count as different atoms), so that numbers of conventional cells do not depend on
    the cell that was given. Axes are spglib's standard ones; distances and orientation stay those of the input.

    Parameters
    ----------
    atoms
        Crystal in any cell.
    symprec_angstrom
        Distance tolerance of spglib in Angstrom.

    Returns
    -------
    Atoms
        The conventional cell.

    Raises
    ------
    StructureError
        The structure is not periodic in three directions, or spglib finds no cell (overlapping atoms, too loose
        symprec).
    """
    return _standard_cell(atoms, symprec_angstrom, to_primitive=False)


def standard_primitive_cell(atoms: Atoms, symprec_angstrom: float) -> Atoms:
    """The primitive cell of a crystal in spglib's standard setting, neither rotated nor idealised.

    Parameters
    ----------
    atoms
        Crystal in any cell.
    symprec_angstrom
        Distance tolerance of spglib in Angstrom.

    Returns
    -------
    Atoms
        The primitive cell.

    Raises
    ------
    StructureError
        As `conventional_cell`.
    """
    return _standard_cell(atoms, symprec_angstrom, to_primitive=True)


def _standard_cell(atoms: Atoms, symprec_angstrom: float, *, to_primitive: bool) -> Atoms:
    if not atoms.pbc.all():
        raise StructureError(
            f"{atoms.get_chemical_formula()} is periodic in {int(atoms.pbc.sum())} of 3 directions; lattice "
            "dynamics needs a crystal, with a cell and pbc in all three"
        )
    masses = properties_of(atoms).masses_u
    species = species_numbers(atoms.numbers, masses)  # lattice dynamics tells isotopes apart
    crystal = (atoms.cell.array, atoms.get_scaled_positions(wrap=False), species)
    try:
        standard = spglib.standardize_cell(
            crystal, to_primitive=to_primitive, no_idealize=True, symprec=symprec_angstrom
        )
    except spglib.SpglibError:  # newer versions of spglib raise where older ones return None
        standard = None
    if standard is None:
        raise StructureError(
            f"no symmetry found for {atoms.get_chemical_formula()} with symprec {symprec_angstrom} Angstrom; look for "
            "atoms on top of each other, or change symprec_angstrom"
        )
    cell, fractions, kinds = standard
    first = [int(np.flatnonzero(species == kind)[0]) for kind in kinds]  # an atom of the same element and mass
    result = Atoms(atoms.numbers[first], scaled_positions=np.asarray(fractions) % 1.0, cell=cell, pbc=True)
    return AtomProperties(masses_u=None if masses is None else masses[first]).attach(result)


def isotope_symmetry(atoms: Atoms, symprec_angstrom: float) -> Any:
    """Symmetry dataset of a crystal in which atoms of one element with different masses are different.

    Parameters
    ----------
    atoms
        A crystal.
    symprec_angstrom
        Distance tolerance of spglib in Angstrom.

    Returns
    -------
    Any
        The dataset; None for a structure that is not a crystal, or for which spglib finds no symmetry.
    """
    species = species_numbers(atoms.numbers, properties_of(atoms).masses_u)
    return symmetry_dataset(Atoms(species, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc), symprec_angstrom)


def centring(cell: Atoms, symprec_angstrom: float) -> str:
    """The centring of a standard conventional cell, by which phonopy knows its primitive cell.

    Parameters
    ----------
    cell
        Conventional cell.
    symprec_angstrom
        Distance tolerance of spglib in Angstrom.

    Returns
    -------
    str
        P, A, C, I, F or R.
    """
    dataset = isotope_symmetry(cell, symprec_angstrom)
    assert dataset is not None  # the cell was found by its symmetry
    return str(dataset.international[0])


def numbered_species(*structures: Atoms, mass_tolerance_u: float = 1e-6) -> list[np.ndarray]:
    """Species of the atoms of structures, numbered from 0 in the order of atomic numbers and masses.

    Parameters
    ----------
    *structures
        The structures, which are numbered together.
    mass_tolerance_u
        Difference of masses in u up to which atoms of one element are the same species.

    Returns
    -------
    list[np.ndarray]
        (n,) species of each.
    """
    numbers = np.concatenate([atoms.numbers for atoms in structures])
    masses = np.concatenate([atoms.get_masses() for atoms in structures])
    order = np.lexsort((masses, numbers))
    is_next = (np.diff(numbers[order]) > 0) | (np.diff(masses[order]) > mass_tolerance_u)
    species = np.empty(len(order), dtype=int)
    species[order] = np.concatenate([[0], np.cumsum(is_next)])
    return np.split(species, np.cumsum([len(atoms) for atoms in structures])[:-1])


def atoms_in_primitive(given: Atoms, primitive: Atoms) -> np.ndarray:
    """The atom of the primitive cell of which each atom of a structure is a translation.

    Parameters
    ----------
    given
        A crystal in any cell.
    primitive
        Its primitive cell in the same orientation, with any origin and order.

    Returns
    -------
    np.ndarray
        (n_given,) indices.
    """
    inverse = np.linalg.inv(primitive.cell.array)
    fractions, own = given.positions @ inverse, primitive.positions @ inverse
    # Standard atomic weights of ASE and phonopy differ in the third digit, isotopes by a whole unit.
    species, own_species = numbered_species(given, primitive, mass_tolerance_u=0.05)
    rarest = np.bincount(own_species).argmin()
    first = fractions[species == rarest][0]
    other = species[:, None] != own_species[None]
    found = []
    for start in own[own_species == rarest]:
        apart = (fractions - first + start)[:, None] - own[None]
        distances = np.linalg.norm((apart - np.rint(apart)) @ primitive.cell.array, axis=2)
        distances[other] = np.inf
        found.append((float(distances.min(axis=1).max()), distances.argmin(axis=1)))
    return min(found, key=lambda match: match[0])[1]

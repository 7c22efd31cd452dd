"""A force field with the symmetry that a protocol asks for."""

import numpy as np
from ase import Atoms

from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.rotations import IDENTITY, Rotations, lebedev, polyhedral, random_rotations
from esen_flows.forcefield.symmetrized import Symmetrized, needs_inversion, with_parity
from esen_flows.forcefield.symmetry_images import HOLDS_ANGSTROM, Operations, Projector, SymmetryFinder
from esen_flows.physics.symmetry_lock import SymmetryLock
from esen_flows.schemas.declarations import Parity
from esen_flows.schemas.force_symmetry import ForceSymmetry
from esen_flows.structures.identity import symmetry_dataset

# Lattices of files are rounded; the comparison of all pairs of atoms takes longer than it saves in large cells.
AXES_SYMPREC_ANGSTROM, MOST_ATOMS_COMPARED = 0.01, 500


def rotations_of(symmetry: ForceSymmetry | None, *, inversion: bool = False) -> Rotations:
    """The rotations that a protocol names.

    Parameters
    ----------
    symmetry
        Field of the protocol; None: the identity alone.
    inversion
        Whether each is also taken with the inversion, even if the field does not say so.

    Returns
    -------
    Rotations
        Rotations in the frame of the field.
    """
    chosen = IDENTITY
    if symmetry is not None and symmetry.average == "lebedev":
        chosen = lebedev(symmetry.directions or 0, symmetry.angles or 0)  # both are there
    elif symmetry is not None and symmetry.average == "random":
        chosen = random_rotations(symmetry.rotations or 0, np.random.default_rng(symmetry.seed))
    elif symmetry is not None and symmetry.average != "none":
        chosen = polyhedral(symmetry.average)
    return chosen.with_inversion() if inversion or (symmetry is not None and symmetry.inversion) else chosen


class CrystalSymmetry(SymmetryFinder):
    """Axes, operations and space groups of structures by spglib, as a protocol asks for them.

    Parameters
    ----------
    symmetry
        Field of the protocol.
    """

    def __init__(self, symmetry: ForceSymmetry) -> None:
        self.symmetry, self.name, self.projects = symmetry, str(symmetry), symmetry.project

    def axes(self, atoms: Atoms) -> np.ndarray:
        """Axes of the conventional cell of the lattice, whatever the atoms in it are.

        Parameters
        ----------
        atoms
            A structure.

        Returns
        -------
        np.ndarray
            (3, 3) proper rotation, whose rows are the axes; Cartesian axes for the frame "lab" and for structures that
            are not crystals.
        """
        if self.symmetry.frame == "lab" or not atoms.pbc.all():
            return np.eye(3)
        lattice = symmetry_dataset(Atoms("H", cell=atoms.cell.array, pbc=True), AXES_SYMPREC_ANGSTROM)
        if lattice is None:
            return np.eye(3)
        left, _, right = np.linalg.svd(lattice.std_rotation_matrix)
        axes = left @ right
        return np.asarray(axes * np.sign(np.linalg.det(axes)))

    def operations(self, atoms: Atoms) -> Operations:
        """Operations that map a structure on itself within rounding, with one translation for each rotation.

        Parameters
        ----------
        atoms
            A structure.

        Returns
        -------
        Operations
            The identity alone for structures that are not crystals or have very many atoms.
        """
        identity = Operations.identity(len(atoms))
        if not atoms.pbc.all() or len(atoms) > MOST_ATOMS_COMPARED:
            return identity
        found = symmetry_dataset(atoms, HOLDS_ANGSTROM)
        if found is None:
            return identity
        first = np.sort(np.unique(found.rotations.reshape(-1, 9), axis=0, return_index=True)[1])  # the identity leads
        rotations, translations = found.rotations[first].astype(float), found.translations[first]
        fractions, cell = atoms.get_scaled_positions(wrap=False), atoms.cell.array
        permutations = np.array(
            [_images(atoms, fractions, one, shift) for one, shift in zip(rotations, translations, strict=True)]
        )
        operations = Operations(cell.T @ rotations @ np.linalg.inv(cell.T), permutations)
        holds = operations.holding(atoms.positions, cell)
        return Operations(operations.rotations[holds], permutations[holds])

    def projector(self, atoms: Atoms) -> Projector | None:
        """Projector on the space group that is found within the protocol's tolerance.

        Parameters
        ----------
        atoms
            A structure.

        Returns
        -------
        Projector | None
            None where the protocol does not project.

        Raises
        ------
        StructureError
            The structure is not a crystal, or no space group is found.
        """
        if not self.projects:
            return None
        lock = SymmetryLock(atoms, self.symmetry.symprec_angstrom)
        return Projector(*lock.force_blocks, lock.stress_projector)


def _images(atoms: Atoms, fractions: np.ndarray, rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(atoms,) atom to which an operation moves each atom."""
    apart = (fractions @ rotation.T + translation)[:, None] - fractions
    distance = np.linalg.norm((apart - np.rint(apart)) @ atoms.cell.array, axis=2)
    distance[atoms.numbers[:, None] != atoms.numbers] = np.inf
    return np.asarray(distance.argmin(axis=1))


def symmetrized(force_field: ForceField, parity: Parity, symmetry: ForceSymmetry | None) -> ForceField:
    """Force field with the symmetry that a protocol asks for.

    Parameters
    ----------
    force_field
        Force field as loaded.
    parity
        Field of the protocol: whether mirror images are averaged where the force field is not O(3)-equivariant.
    symmetry
        Field `force_symmetry` of the protocol.

    Returns
    -------
    ForceField
        The same object where nothing is to be done, or `Symmetrized` around it.
    """
    if symmetry is None:
        return with_parity(force_field, parity)
    rotations = rotations_of(symmetry, inversion=needs_inversion(force_field, parity))
    return Symmetrized(force_field, rotations, CrystalSymmetry(symmetry))


def about(force_field: ForceField, structure: Atoms) -> ForceField:
    """Force field for one structure in motion, with the axes and the space group at the start.

    Parameters
    ----------
    force_field
        Any force field.
    structure
        The structure at the start.

    Returns
    -------
    ForceField
        The same object where nothing of the structure is needed.
    """
    if isinstance(force_field, Symmetrized) and force_field.finder is not None:
        finder = force_field.finder
        if isinstance(finder, CrystalSymmetry) and finder.symmetry.frame == "lab" and not finder.projects:
            return force_field  # operations alone are of the structure; found at each step, structures share calls
        return force_field.about(structure)
    return force_field


def along(force_field: ForceField, crystal: Atoms) -> ForceField:
    """Force field for the displaced supercells of a crystal, with the axes of the crystal.

    Parameters
    ----------
    force_field
        Any force field.
    crystal
        The crystal.

    Returns
    -------
    ForceField
        The same object where no axes are needed.
    """
    if isinstance(force_field, Symmetrized) and force_field.finder is not None:
        return force_field.along(crystal)
    return force_field

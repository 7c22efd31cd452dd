"""The space group of a supercell as permutations of its atoms, and tensors projected on it."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from esen_flows.errors import StructureError
from esen_flows.physics.symmetry import isotope_symmetry


@dataclass(frozen=True)
class SupercellSymmetry:
    """Operations that carry a supercell into itself, with one of them for each rotation.

    The group is the product of these operations and of the translations.

    Attributes
    ----------
    rotations
        (n, 3, 3) Cartesian rotations and mirror operations.
    permutations
        (n, atoms) atom to which each of these operations moves each atom.
    translations
        (m, atoms) atom to which each pure translation moves each atom; the identity is among them.
    """

    rotations: np.ndarray
    permutations: np.ndarray
    translations: np.ndarray

    def projected(self, force_constants: np.ndarray) -> np.ndarray:
        """Second-order force constants averaged over the operations.

        The average over all operations includes those that leave a pair of atoms where it is (the stabiliser of the
        pair), so that the result is invariant under the whole group if the argument is under translations.

        Parameters
        ----------
        force_constants
            (atoms, atoms, 3, 3) force constants of the whole supercell, in any unit.

        Returns
        -------
        np.ndarray
            (atoms, atoms, 3, 3) in the same unit.
        """
        total = np.zeros_like(force_constants)
        for rotation, permutation in zip(self.rotations, self.permutations, strict=True):
            total[permutation[:, None], permutation[None]] += rotation @ force_constants @ rotation.T
        return total / len(self.rotations)


def supercell_symmetry(supercell: Atoms, symprec_angstrom: float) -> SupercellSymmetry:
    """Find the space group of a supercell.

    Parameters
    ----------
    supercell
        The supercell without displacements. Atoms of one element with different masses are different.
    symprec_angstrom
        Distance tolerance of spglib in Angstrom.

    Returns
    -------
    SupercellSymmetry
        Its operations.

    Raises
    ------
    StructureError
        spglib finds no space group, or an operation moves two atoms to one place.
    """
    found = isotope_symmetry(supercell, symprec_angstrom)
    if found is None:
        raise StructureError(
            f"no symmetry found for a supercell of {supercell.get_chemical_formula()} with symprec {symprec_angstrom} "
            "Angstrom; change symprec_angstrom"
        )
    pure = (found.rotations == np.eye(3, dtype=int)).all(axis=(1, 2))
    _, first = np.unique(found.rotations.reshape(-1, 9), axis=0, return_index=True)
    columns = supercell.cell.array.T
    rotations = columns @ found.rotations[first].astype(float) @ np.linalg.inv(columns)
    return SupercellSymmetry(
        rotations=rotations,
        permutations=_images(supercell, found.rotations[first], found.translations[first]),
        translations=_images(supercell, found.rotations[pure], found.translations[pure]),
    )


def _images(atoms: Atoms, rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """(operations, atoms) atom to which each operation moves each atom."""
    fractions = atoms.get_scaled_positions(wrap=False)
    images = np.empty((len(rotations), len(atoms)), dtype=np.intp)
    for index, (rotation, translation) in enumerate(zip(rotations, translations, strict=True)):
        apart = (fractions @ rotation.T + translation)[:, None] - fractions[None]
        distances = np.linalg.norm((apart - np.rint(apart)) @ atoms.cell.array, axis=2)
        images[index] = distances.argmin(axis=1)
        if len(np.unique(images[index])) < len(atoms):
            raise StructureError(
                f"a symmetry operation of a supercell of {atoms.get_chemical_formula()} moves two atoms to one place; "
                "lower symprec_angstrom"
            )
    return images

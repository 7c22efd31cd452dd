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

    def to_first(self, first: np.ndarray) -> np.ndarray:
        """For each atom, the translation that brings it to one of some atoms.

        Parameters
        ----------
        first
            (p,) atoms, one of each set of translations of one another.

        Returns
        -------
        np.ndarray
            (atoms, atoms) a row of `translations` for each atom.
        """
        return self.translations[np.isin(self.translations, first).argmax(axis=0)]

    def projected(self, constants: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Force constants averaged over the whole space group.

        The average includes the operations that leave a pair or triplet of atoms where it is (its stabiliser), so that
        the result is exactly invariant.

        Parameters
        ----------
        constants
            (p, atoms, 3, 3) or (p, atoms, atoms, 3, 3, 3) force constants in any unit, invariant under translations.
        first
            (p,) atoms of the first index.

        Returns
        -------
        np.ndarray
            Those of the same shape in the same unit.
        """
        place, to_first = {int(atom): number for number, atom in enumerate(first)}, self.to_first(first)
        total = np.zeros_like(constants)
        for rotation, permutation in zip(self.rotations, self.permutations, strict=True):
            for number, atom in enumerate(first):
                moved = to_first[permutation[atom]][permutation]
                others = np.ix_(*[moved] * (constants.ndim // 2 - 1))
                total[place[int(moved[atom])]][others] += _turned(constants[number], rotation)
        return total / len(self.rotations)

    def projected_forces(self, forces: np.ndarray) -> np.ndarray:
        """Forces on the perfect supercell averaged over the whole space group.

        Parameters
        ----------
        forces
            (atoms, 3) in any unit, invariant under translations.

        Returns
        -------
        np.ndarray
            (atoms, 3) in the same unit.
        """
        total = np.zeros_like(forces)
        for rotation, permutation in zip(self.rotations, self.permutations, strict=True):
            total[permutation] += forces @ rotation.T
        return total / len(self.rotations)

    def swapped(self, constants: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Force constants with the first two atoms and their components exchanged, which change nothing in exact ones.

        Parameters
        ----------
        constants, first
            As for `projected`.

        Returns
        -------
        np.ndarray
            Those of the same shape in the same unit.
        """
        place, to_first = {int(atom): number for number, atom in enumerate(first)}, self.to_first(first)
        result = np.empty_like(constants)
        axes = (1, 0) if constants.ndim == 4 else (0, 2, 1, 3)
        for number, atom in enumerate(first):
            for other, moved in enumerate(to_first):
                row = constants[place[int(moved[other])], moved[atom]]
                result[number, other] = (row if constants.ndim == 4 else row[moved]).transpose(axes)
        return result

    def residuals(self, constants: np.ndarray, first: np.ndarray) -> dict[str, float]:
        """How far force constants are from their exact properties, relative to their Frobenius norm.

        Parameters
        ----------
        constants, first
            As for `projected`.

        Returns
        -------
        dict[str, float]
            "space_group": the part that the projection removes. "permutation": the change by an exchange of the first
            two atoms. "translation": sums over the second atom, which vanish for exact ones.
        """
        norm = float(np.linalg.norm(constants)) or 1.0
        return {
            "space_group": float(np.linalg.norm(constants - self.projected(constants, first))) / norm,
            "permutation": float(np.linalg.norm(constants - self.swapped(constants, first))) / norm,
            "translation": float(np.linalg.norm(constants.sum(axis=1))) / norm,
        }


def _turned(constants: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Force constants (..., 3, 3) or (..., 3, 3, 3) in turned axes."""
    if constants.ndim == 3:
        return np.asarray(rotation @ constants @ rotation.T)
    return np.einsum("ia,jb,kc,...abc->...ijk", rotation, rotation, rotation, constants, optimize=True)


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

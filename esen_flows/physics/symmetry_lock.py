"""Forces and stress projected on the space group of a reference structure, so that a relaxation cannot leave it.

The group is found once and stored as permutations of atoms and Cartesian rotations. A deformation that commutes with
the rotations leaves them unchanged, so that they hold for every later cell, whatever its shape and orientation.
"""

from functools import cached_property

import numpy as np
import torch
from ase import Atoms

from esen_flows.errors import StructureError
from esen_flows.physics.frechet import CellFreedom
from esen_flows.structures.identity import symmetry_dataset


class SymmetryLock:
    """The space group of a crystal.

    Parameters
    ----------
    atoms
        Crystal near its symmetry; `refined` gives the crystal exactly on it.
    symprec_angstrom
        Distance tolerance of spglib in Angstrom.

    Attributes
    ----------
    number
        International number of the space group, 1 to 230.

    Raises
    ------
    StructureError
        The structure is not periodic in three directions, or spglib finds no group.
    """

    def __init__(self, atoms: Atoms, symprec_angstrom: float) -> None:
        formula = atoms.get_chemical_formula()
        if not atoms.pbc.all():
            raise StructureError(f"{formula} is not periodic in three directions: it has no space group to lock")
        fractions = atoms.get_scaled_positions(wrap=False)
        found = symmetry_dataset(atoms, symprec_angstrom)
        if found is None:
            raise StructureError(
                f"no space group found for {formula} with symprec {symprec_angstrom} Angstrom; look for atoms on top "
                "of each other, change symprec_angstrom, or relax with symmetry=free"
            )
        self.number = int(found.number)
        self._atoms = atoms
        self._fractions = fractions
        self._fractional = found.rotations.astype(float)
        self._translations = found.translations
        self._permutations = self._images(atoms)
        # The refined lattice has the metric tensor averaged over the group.
        metric = atoms.cell.array @ atoms.cell.array.T
        self._metric = np.mean(self._fractional.transpose(0, 2, 1) @ metric @ self._fractional, axis=0)
        self._cell = self._refined_cell(atoms.cell.array)
        columns = self._cell.T
        self._rotations = columns @ self._fractional @ np.linalg.inv(columns)

    def _images(self, atoms: Atoms) -> np.ndarray:
        """(operations, atoms) atom to which each operation moves each atom."""
        other = atoms.numbers[:, None] != atoms.numbers[None]
        images = np.empty((len(self._fractional), len(atoms)), dtype=np.intp)
        for index, (rotation, translation) in enumerate(zip(self._fractional, self._translations, strict=True)):
            apart = (self._fractions @ rotation.T + translation)[:, None] - self._fractions[None]
            distance = np.linalg.norm((apart - np.rint(apart)) @ atoms.cell.array, axis=2)
            distance[other] = np.inf
            images[index] = distance.argmin(axis=1)
            if len(np.unique(images[index])) < len(atoms):
                raise StructureError(
                    f"the space group {self.number} of {atoms.get_chemical_formula()} moves two atoms to one place; "
                    "look for atoms on top of each other, or lower symprec_angstrom"
                )
        return images

    def _refined_cell(self, cell: np.ndarray) -> np.ndarray:
        """The cell with the symmetric metric that is nearest to `cell`, so that the crystal is not rotated."""
        # All cells with this metric are its Cholesky factor times a rotation: orthogonal Procrustes problem.
        triangular = np.linalg.cholesky(self._metric)
        left, _, right = np.linalg.svd(triangular.T @ cell)
        return np.asarray(triangular @ left @ right)

    def refined(self) -> Atoms:
        """The structure exactly on its space group, each atom as near as possible to its former place.

        Returns
        -------
        Atoms
            A new structure.
        """
        total = np.zeros_like(self._fractions)
        operations = zip(self._fractional, self._translations, self._permutations, strict=True)
        for rotation, translation, image in operations:
            moved, target = self._fractions @ rotation.T + translation, self._fractions[image]
            total[image] += moved - np.rint(moved - target)
        result = self._atoms.copy()
        result.set_cell(self._cell)
        result.set_scaled_positions(total / len(self._fractional))
        return result

    @cached_property
    def force_blocks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Projector of forces on the symmetry of the crystal, by pairs of atoms that the group connects.

        The projected force of an atom is the sum over its pairs of matrix times force of the other atom. There are
        fewer pairs than operations times atoms.

        Returns
        -------
        tuple[np.ndarray, np.ndarray, np.ndarray]
            (pairs,) atoms that get a force, ascending; (pairs,) the other atoms; (pairs, 3, 3) matrices.
        """
        operations, count = self._permutations.shape
        codes = (self._permutations * count + np.arange(count)).ravel()
        pairs, which = np.unique(codes, return_inverse=True)
        blocks = np.zeros((len(pairs), 3, 3))
        np.add.at(blocks, which.ravel(), np.repeat(self._rotations, count, axis=0))
        return pairs // count, pairs % count, blocks / operations

    @cached_property
    def stress_projector(self) -> np.ndarray:
        """(9, 9) projector of the rows of a stress, one after the other, on the symmetry of the crystal."""
        rotations = self._rotations
        return np.asarray(np.einsum("gik,gjl->ijkl", rotations, rotations).reshape(9, 9) / len(rotations))

    def stress(self, stress: np.ndarray) -> np.ndarray:
        """The part of a stress that has the symmetry of the crystal.

        Parameters
        ----------
        stress
            (3, 3) in any unit.

        Returns
        -------
        np.ndarray
            (3, 3) in the same unit.
        """
        return np.asarray((self.stress_projector @ stress.ravel()).reshape(3, 3))

    def check_freedom(self, freedom: CellFreedom, tolerance: float) -> None:
        """Refuse strains that are free in some directions and fixed in others that the symmetry makes equivalent.

        Parameters
        ----------
        freedom
            Free strains of the cell.
        tolerance
            Tolerance of the components of a unit strain, about the angle (rad) between the axes of the crystal and
            those of the mask.

        Raises
        ------
        StructureError
            The free part of a symmetric strain is not symmetric.
        """
        for component in np.eye(9).reshape(9, 3, 3):
            symmetric = self.stress((component + component.T) / 2)
            allowed = freedom.free_part(torch.from_numpy(symmetric[None]))[0].numpy()
            if np.abs(self.stress(allowed) - allowed).max() > tolerance:
                raise StructureError(
                    f"cell_mask={freedom.mask} frees only some of the strains that the space group {self.number} of "
                    f"{self._atoms.get_chemical_formula()} couples in this orientation; free all components "
                    f"(cell_mask={','.join(['true'] * 6)}; the symmetry still restricts them), or rotate the crystal "
                    "so that its axes are those of the mask"
                )

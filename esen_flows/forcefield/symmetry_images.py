"""Images of a structure under the rotations of an average, and which of them its own symmetry makes superfluous."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from ase import Atoms

from esen_flows.forcefield.contract import ATOMS_AT_ONCE

# An operation holds while no atom is farther from its image; two matrices are one up to this difference.
HOLDS_ANGSTROM, SAME_ROTATION = 1e-7, 1e-6


@dataclass(frozen=True)
class Operations:
    """Operations that map a structure on itself, with one translation for each rotation; the first is the identity.

    Attributes
    ----------
    rotations
        (operations, 3, 3) Cartesian rotations, proper or improper.
    permutations
        (operations, atoms) atom to which each atom is moved.
    """

    rotations: np.ndarray
    permutations: np.ndarray

    @classmethod
    def identity(cls, count: int) -> Self:
        """The identity alone.

        Parameters
        ----------
        count
            Number of atoms.

        Returns
        -------
        Operations
            One operation.
        """
        return cls(np.eye(3)[None], np.arange(count)[None])

    def holding(self, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Which operations still map the structure on itself at another geometry.

        Parameters
        ----------
        positions
            (atoms, 3) in Angstrom.
        cell
            (3, 3) lattice vectors in Angstrom.

        Returns
        -------
        np.ndarray
            (operations,) bool.
        """
        if len(self.rotations) == 1:
            return np.ones(1, dtype=bool)
        inverse = np.linalg.inv(cell)
        moved = positions @ self.rotations.transpose(0, 2, 1) - positions[self.permutations]
        lattice = cell @ self.rotations.transpose(0, 2, 1)

        def farthest(apart: np.ndarray) -> np.ndarray:
            fractions = apart @ inverse
            return np.asarray(np.abs((fractions - np.rint(fractions)) @ cell).max(axis=(1, 2)))

        return (farthest(moved - moved[:, :1]) < HOLDS_ANGSTROM) & (farthest(lattice) < HOLDS_ANGSTROM)


@dataclass(frozen=True)
class Projector:
    """Projector of forces and stress on a space group.

    Attributes
    ----------
    targets
        (pairs,) atoms that get a force.
    sources
        (pairs,) atoms whose force they get.
    matrices
        (pairs, 3, 3) matrices by which that force is multiplied.
    stress
        (9, 9) projector of the rows of a stress, one after the other.
    """

    targets: np.ndarray
    sources: np.ndarray
    matrices: np.ndarray
    stress: np.ndarray


class SymmetryFinder(ABC):
    """What has to be found of a structure before its results are averaged and projected.

    Attributes
    ----------
    name
        Name of the average and the projection, for keys and labels.
    projects
        Whether forces and stress are projected.
    """

    name: str
    projects: bool

    @abstractmethod
    def axes(self, atoms: Atoms) -> np.ndarray:
        """Axes to which the rotations refer.

        Parameters
        ----------
        atoms
            A structure.

        Returns
        -------
        np.ndarray
            (3, 3) proper rotation, whose rows are the axes.
        """

    @abstractmethod
    def operations(self, atoms: Atoms) -> Operations:
        """Operations that map a structure on itself within `HOLDS_ANGSTROM`.

        Parameters
        ----------
        atoms
            A structure.

        Returns
        -------
        Operations
            All of them, or some.
        """

    @abstractmethod
    def projector(self, atoms: Atoms) -> Projector | None:
        """Projector on the space group of a structure.

        Parameters
        ----------
        atoms
            A structure.

        Returns
        -------
        Projector | None
            None where nothing is projected.
        """


@dataclass(frozen=True)
class Reference:
    """What is kept of a structure from step to step.

    Attributes
    ----------
    turns
        (rotations, 3, 3) matrices of the average, for Cartesian column vectors.
    operations
        Operations that mapped the structure on itself.
    projector
        Projector on its space group; None where nothing is projected.
    plans
        Plans made so far, by the operations that hold (bytes of `Operations.holding`). They end with this object.
    """

    turns: np.ndarray
    operations: Operations
    projector: Projector | None
    plans: dict[bytes, "ImagePlan"] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class ImagePlan:
    """Which images of a structure are evaluated, and how the results at all rotations follow from them.

    Attributes
    ----------
    turns
        (rotations, 3, 3) matrices of the average for Cartesian column vectors.
    weights
        (rotations,) their weights.
    images
        (images,) rotations that are evaluated.
    image_of
        (rotations,) row of `images` from which each result follows.
    permutations
        (rotations, atoms) atom of that image that has the force of each atom.
    projector
        Projector on the space group; None where nothing is projected.
    """

    turns: np.ndarray
    weights: np.ndarray
    images: np.ndarray
    image_of: np.ndarray
    permutations: np.ndarray
    projector: Projector | None


def planned(reference: Reference, weights: np.ndarray, operations: Operations) -> ImagePlan:
    """The images that have to be evaluated: one for each set of rotations that operations of the structure connect.

    Parameters
    ----------
    reference
        Rotations of the average, and what is projected.
    weights
        (rotations,) weights of the average.
    operations
        Operations that map the structure on itself at its present geometry.

    Returns
    -------
    ImagePlan
        The plan.
    """
    turns = reference.turns
    images: list[int] = []
    image_of, operation = np.zeros(len(turns), dtype=np.int64), np.zeros(len(turns), dtype=np.int64)
    for number, turn in enumerate(turns):
        if images:
            needed = turns[images].transpose(0, 2, 1) @ turn
            apart = np.abs(needed[:, None] - operations.rotations).max(axis=(2, 3))
            image, place = np.unravel_index(apart.argmin(), apart.shape)
            if apart[image, place] < SAME_ROTATION:
                image_of[number], operation[number] = image, place
                continue
        image_of[number] = len(images)
        images.append(number)
    permutations = operations.permutations[operation]
    return ImagePlan(turns, weights, np.array(images), image_of, permutations, reference.projector)


def turned(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    """Image of a structure under an orthogonal matrix.

    An improper one is a rotation, which turns positions and cell, times the inversion, which turns the positions alone:
    a lattice is its own inverse, so that the cell keeps its handedness. Charge, spin and magnetic moments stay.

    Parameters
    ----------
    atoms
        Structure; it is not changed.
    matrix
        (3, 3) orthogonal matrix for column vectors.

    Returns
    -------
    Atoms
        A copy.
    """
    sign = 1.0 if np.linalg.det(matrix) > 0 else -1.0
    image = atoms.copy()
    image.set_cell(atoms.cell.array @ (sign * matrix).T)
    image.set_positions(atoms.positions @ matrix.T, apply_constraint=False)
    return image


def inverted(atoms: Atoms) -> Atoms:
    """Image of a structure under x -> -x, with the same cell.

    Parameters
    ----------
    atoms
        Structure; it is not changed.

    Returns
    -------
    Atoms
        Inverted copy.
    """
    return turned(atoms, -np.eye(3))


def chunk_of(atoms: np.ndarray, at_once: int) -> np.ndarray:
    """The images that are evaluated together.

    Parameters
    ----------
    atoms
        (images,) number of atoms of each image.
    at_once
        Number of atoms that the caller found right for one call.

    Returns
    -------
    np.ndarray
        (images,) number of the call, ascending.
    """
    limit, chunk, filled = max(ATOMS_AT_ONCE, at_once), 0, 0
    chunks = np.empty(len(atoms), dtype=np.int64)
    for place, count in enumerate(atoms.tolist()):
        if filled and filled + count > limit:
            chunk, filled = chunk + 1, 0
        chunks[place], filled = chunk, filled + count
    return chunks

"""A regular or generalised regular grid of q-points and its symmetry, as integer addresses."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Addresses a of q = Q (a / D), all in reduced coordinates; the index of an address is that of C order modulo D.

    Generalised regular grids: Togo, Chaput, Tadano, Tanaka, J. Phys.: Condens. Matter 35, 353001 (2023).

    Attributes
    ----------
    divisions
        (3,) D, divisions along the axes of the addresses.
    basis
        (3, 3) Q, unimodular; the identity on a regular grid.
    rotations
        (n, 3, 3) what the point group, inversion included, does to addresses.
    tetrahedra
        (n, 4, 3) steps of address from a point to the corners of the tetrahedra around it; the first corner is the
        point.
    """

    divisions: np.ndarray
    basis: np.ndarray
    rotations: np.ndarray
    tetrahedra: np.ndarray

    @property
    def size(self) -> int:
        """Number of q-points."""
        return int(np.prod(self.divisions))

    @cached_property
    def addresses(self) -> np.ndarray:
        """(size, 3) addresses in the order of their indices."""
        return np.stack(np.unravel_index(np.arange(self.size), self.divisions), axis=1)

    def indices(self, addresses: np.ndarray) -> np.ndarray:
        """Indices of addresses, which may lie outside of the first cell.

        Parameters
        ----------
        addresses
            (..., 3) integers.

        Returns
        -------
        np.ndarray
            (...,) indices below `size`.
        """
        inside = np.moveaxis(np.mod(addresses, self.divisions), -1, 0)
        return np.ravel_multi_index(tuple(inside), tuple(self.divisions))

    def phases(self, vectors: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Phase factors of lattice vectors at grid points.

        Parameters
        ----------
        vectors
            (n, 3) lattice vectors of the primitive cell, integers.
        points
            (m,) indices of grid points.

        Returns
        -------
        np.ndarray
            (n, m) exp(2 pi i q.R).
        """
        return np.exp(2j * np.pi * ((vectors @ self.basis) / self.divisions) @ self.addresses[points].T)

    @cached_property
    def rotated(self) -> np.ndarray:
        """(n_rotations, size) index of each rotated point."""
        return np.stack([self.indices(self.addresses @ rotation.T) for rotation in self.rotations])


@dataclass(frozen=True)
class Triplets:
    """Triplets of grid points whose sum is a reciprocal lattice vector, one of each class of equivalent ones.

    Attributes
    ----------
    first
        Index of q0.
    second
        (n,) indices of q1.
    third
        (n,) indices of q2.
    weights
        (n,) number of equivalent triplets; their sum is the size of the grid.
    """

    first: int
    second: np.ndarray
    third: np.ndarray
    weights: np.ndarray


def triplets_of(grid: Grid, point: int) -> Triplets:
    """The triplets of a grid point, as orbits under the symmetry that leaves it where it is and exchange of q1 and q2.

    Parameters
    ----------
    grid
        The grid.
    point
        Index of q0.

    Returns
    -------
    Triplets
        In ascending order of q1, which is the smallest index of its orbit.
    """
    little_group = grid.rotated[grid.rotated[:, point] == point]
    partners = grid.indices(-grid.addresses[point] - grid.addresses)
    images = little_group.min(axis=0)
    smallest = np.minimum(images, images[partners])
    second, weights = np.unique(smallest, return_counts=True)
    return Triplets(point, second, partners[second], weights)

"""One crystal in one setting: the same axes, origin and order of atoms, in whatever cell, order and place it is given.

`conventional_cell` fixes the lattice vectors up to those proper rotations that leave their lengths and angles
unchanged, and leaves origin and order as they were given. Finite displacements depend on all three: which of several
equivalent atoms is displaced, and along which of several equivalent axes. Here one choice is made by the geometry of
the crystal alone.

Every proper rotation that maps the lattice, its centring and the rotations of the space group to themselves, together
with every atom of the rarest species as origin, is a candidate. The candidates that are equal by symmetry have equal
structure factors. Those with the largest real and imaginary parts stay, one wave vector after the other, until all
candidates that are left describe the same numbers. Structure factors are continuous, so that noise far below the
tolerance of the symmetry changes no choice.

Distances and orientation stay those of the input: tensors along Cartesian axes need no rotation.
"""

from itertools import product

import numpy as np
from ase import Atoms

from esen_flows.physics.symmetry import conventional_cell, isotope_symmetry, numbered_species

# Components of wave vectors in units of the reciprocal lattice vectors. Extinctions hide differences at small ones: in
# the space group F-43c, origins that are not equivalent first differ at (1, 3, 5).
LARGEST_COMPONENT = 6
# Structure factors per atom whose difference is smaller count as equal. Positions that deviate by the usual tolerance
# of 1e-5 Angstrom change them by less, different arrangements by more.
FACTOR_TOLERANCE = 1e-3
# Difference of two coordinates, in units of the lattice vectors, below which they count as equal.
COORDINATE_TOLERANCE = 1e-4


def canonical_cell(atoms: Atoms, symprec_angstrom: float) -> Atoms:
    """The standard conventional cell of a crystal with canonical axes, origin and order, neither rotated nor idealised.

    All ways to write a crystal give the same fractional coordinates in the same order, and the same lengths and angles,
    up to the noise of the input. An atom of the rarest species is at the origin; atoms are sorted by atomic number,
    mass and coordinates.

    Parameters
    ----------
    atoms
        Crystal in any cell.
    symprec_angstrom
        Distance tolerance of spglib in Angstrom.

    Returns
    -------
    Atoms
        The cell, in the orientation of the input.

    Raises
    ------
    StructureError
        The structure is not periodic in three directions, or spglib finds no cell.
    """
    cell = conventional_cell(atoms, symprec_angstrom)
    fractions, (kinds,) = cell.get_scaled_positions(wrap=False), numbered_species(cell)
    symmetry = isotope_symmetry(cell, symprec_angstrom)
    assert symmetry is not None  # conventional_cell has found one
    rotations = symmetry.rotations.astype(int)
    proper = int((np.linalg.det(rotations) > 0).sum())
    axes = _equivalent_axes(cell.cell.array, rotations, symmetry.translations, symprec_angstrom)
    origin, chosen = _choice(fractions, kinds, axes, proper)
    moved = (fractions - fractions[origin]) @ np.linalg.inv(chosen)
    # A coordinate that noise moves below 0 stays there, instead of moving to the other side of the cell.
    moved -= np.floor(moved + COORDINATE_TOLERANCE)
    order = np.lexsort([*(_ranks(column) for column in moved.T[::-1]), kinds])
    result = cell[order]
    result.set_cell(chosen @ cell.cell.array)
    result.set_scaled_positions(moved[order])
    return result


def _equivalent_axes(cell: np.ndarray, rotations: np.ndarray, translations: np.ndarray, symprec: float) -> np.ndarray:
    """Lattice vectors (n, 3, 3) in units of those of the cell, as rows, that may replace them."""
    axes = _isometries(cell @ cell.T, symprec)
    inverse = np.rint(np.linalg.inv(axes)).astype(int)
    centring = translations[(rotations == np.eye(3, dtype=int)).all(axis=(1, 2))]
    # Rotations act on columns of fractional coordinates, which change with the inverse of the transposed axes.
    turned = np.einsum("aji,rjk,alk->aril", inverse, rotations, axes)
    same = (turned[:, :, None] == rotations[None, None]).all(axis=(3, 4)).any(axis=2).all(axis=1)
    apart = (centring @ inverse)[:, :, None] - centring
    same &= (np.abs(apart - np.rint(apart)).max(axis=3) < COORDINATE_TOLERANCE).any(axis=2).all(axis=1)
    return axes[same]


def _isometries(metric: np.ndarray, symprec: float) -> np.ndarray:
    """Integer matrices (n, 3, 3) of determinant 1 whose rows are vectors with the lengths and angles of a cell."""
    vectors = np.array(list(product(range(-2, 3), repeat=3)))
    lengths, tolerance = np.sqrt(np.diag(metric)), 10 * symprec
    own = np.sqrt(np.einsum("ij,jk,ik->i", vectors, metric, vectors))
    choices = [vectors[np.abs(own - length) < tolerance] for length in lengths]
    axes = np.array(list(product(*choices)))
    near = np.abs(axes @ metric @ axes.swapaxes(1, 2) - metric) < tolerance * np.add.outer(lengths, lengths)
    return np.asarray(axes[near.all(axis=(1, 2)) & (np.rint(np.linalg.det(axes)) == 1)])


def _choice(fractions: np.ndarray, kinds: np.ndarray, axes: np.ndarray, least: int) -> tuple[int, np.ndarray]:
    """Origin (an atom of the rarest species) and axes (3, 3) with the largest structure factors.

    `least` is the number of proper symmetry operations. They act freely on pairs of an origin and axes, so that no
    fewer candidates are equal by symmetry.
    """
    rarest = np.flatnonzero(kinds == np.argmin(np.bincount(kinds)))
    origins, turns = (grid.ravel() for grid in np.meshgrid(rarest, np.arange(len(axes)), indexing="ij"))
    inverse = np.linalg.inv(axes)
    vectors = np.array(list(product(range(-LARGEST_COMPONENT, LARGEST_COMPONENT + 1), repeat=3)))
    vectors = vectors[len(vectors) // 2 + 1 :]  # of h and -h, whose factors are complex conjugates, one
    vectors = vectors[np.argsort((vectors**2).sum(axis=1), kind="stable")]
    for vector, kind in product(vectors, range(kinds.max() + 1)):
        if len(origins) <= least:
            break
        # The phase h.x with x = f axes^-1 of a candidate is that of the vector axes^-1 h in the cell as it is.
        seen = np.rint(inverse @ vector)
        factors = np.exp(2j * np.pi * seen @ fractions[kinds == kind].T).mean(axis=1)[turns]
        factors *= np.exp(-2j * np.pi * (seen[turns] * fractions[origins]).sum(axis=1))
        for part in (np.real, np.imag):
            largest = part(factors) >= part(factors).max() - FACTOR_TOLERANCE
            origins, turns, factors = origins[largest], turns[largest], factors[largest]
    return int(origins[0]), axes[turns[0]]


def _ranks(coordinates: np.ndarray) -> np.ndarray:
    """Ranks (n,) of coordinates, the same for those that are equal within the tolerance."""
    order = np.argsort(coordinates, kind="stable")
    ranks = np.empty(len(coordinates), dtype=int)
    ranks[order] = np.concatenate([[0], np.cumsum(np.diff(coordinates[order]) > COORDINATE_TOLERANCE)])
    return ranks

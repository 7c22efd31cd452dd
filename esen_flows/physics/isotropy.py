"""Directions in a space of degenerate modes that keep as much of the symmetry as one direction can.

A displacement along a direction keeps the operations that leave the direction as it is: its isotropy subgroup (Stokes
and Hatch, Isotropy Subgroups of the 230 Crystallographic Space Groups, 1988). Few directions are the only ones that
some subgroup fixes: edges, face diagonals and body diagonals of the cube for a vector of a cubic crystal. Minima of the
energy nearly always lie along them.
"""

from dataclasses import dataclass

import numpy as np

# Matrices of modes that agree to this are the same; noise of finite displacements is below it after projection.
TOLERANCE = 1e-4
MOST_SPACES = 400  # of fixed spaces that are intersected; enough for all stars of the cubic groups that were tried


@dataclass(frozen=True)
class Direction:
    """A direction, one of several that are equal by symmetry.

    Attributes
    ----------
    components
        (d,) unit vector.
    order
        Number of different operations on the space that leave it as it is.
    two_sided
        Whether no operation turns it into its opposite, so that both signs have to be tried.
    """

    components: np.ndarray
    order: int
    two_sided: bool


def distinct(matrices: np.ndarray) -> np.ndarray:
    """Matrices without repetitions.

    Parameters
    ----------
    matrices
        (n, d, d) matrices.

    Returns
    -------
    np.ndarray
        (m, d, d) different ones.
    """
    # Elements are algebraic numbers with noise far below the width of a bin.
    bins = np.rint(matrices.reshape(len(matrices), -1) / (10 * TOLERANCE)) + 0.0
    _, first = np.unique(bins, axis=0, return_index=True)
    return matrices[np.sort(first)]


def invariant_directions(group: np.ndarray) -> list[Direction]:
    """Directions that are the only ones fixed by a subgroup, one of each set that is equal by symmetry.

    Parameters
    ----------
    group
        (n, d, d) all different orthogonal matrices of a group on a space of degenerate modes.

    Returns
    -------
    list[Direction]
        Those with the most symmetry first. Where no subgroup fixes a single direction, one direction in the smallest
        fixed space.
    """
    spaces = distinct(_fixed([np.asarray(matrix + matrix.T) / 2 for matrix in group]))
    found, frontier = spaces, spaces
    while len(frontier) and len(found) < MOST_SPACES:
        frontier = _one_of_each_orbit(frontier, group)
        crossed = _fixed([(one + other) / 2 for one in frontier for other in spaces])
        together = distinct(np.concatenate([found, crossed[np.trace(crossed, axis1=1, axis2=2) > 0.5]]))
        frontier, found = together[len(found) :], together
    ranks = np.rint(np.trace(found, axis1=1, axis2=2)).astype(int)
    found, ranks = found[ranks > 0], ranks[ranks > 0]
    least = _one_of_each_orbit(found[ranks == ranks.min()], group)
    # A fixed vector in general position stands for a space of more than one dimension.
    vectors = [space @ np.sqrt(np.arange(2.0, len(space) + 2)) for space in least]
    directions = [_direction(vector / np.linalg.norm(vector), group) for vector in vectors]
    return sorted(directions, key=lambda direction: -direction.order)


def _fixed(symmetric: list[np.ndarray]) -> np.ndarray:
    """(n, d, d) projectors on the vectors that symmetric matrices with eigenvalues of at most 1 leave as they are."""
    values, vectors = np.linalg.eigh(np.array(symmetric))
    kept = vectors * (values > 1.0 - TOLERANCE)[:, None, :]
    return np.asarray(kept @ kept.transpose(0, 2, 1))


def _one_of_each_orbit(spaces: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Projectors, of those that the group turns into one another the first."""
    left, kept = spaces, []
    while len(left):
        kept.append(left[0])
        turned = distinct(group @ left[0] @ group.transpose(0, 2, 1))
        same = np.abs(left[:, None] - turned[None]).max(axis=(2, 3)).min(axis=1) < 10 * TOLERANCE
        same[0] = True
        left = left[~same]
    return np.array(kept)


def _direction(vector: np.ndarray, group: np.ndarray) -> Direction:
    overlaps = group @ vector @ vector
    opposite = bool((overlaps < -1.0 + TOLERANCE).any())
    return Direction(vector, int((overlaps > 1.0 - TOLERANCE).sum()), not opposite)

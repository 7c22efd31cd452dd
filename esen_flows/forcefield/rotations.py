"""Sets of rotations over which results are averaged, and the degree to which an average is exact.

The dependence of an energy on the orientation of a structure is a sum of Wigner matrices D^l. An average over weighted
rotations is exact for the degree l if the mean of D^l vanishes, of which the characters know: the squared norm of the
mean is the mean of the character chi^l(R^-1 R') over all pairs of rotations. The variance of a function of degree l
holds products D^l D^l', of degrees up to 2 l, so that an average that is exact to the degree L gives the variance of
functions up to the degree L // 2.
"""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from esen_flows.schemas.declarations import LEBEDEV_DEGREES

_GOLDEN = (1 + 5**0.5) / 2


@dataclass(frozen=True)
class Rotations:
    """Weighted rotations, proper or with the inversion.

    Attributes
    ----------
    matrices
        (k, 3, 3) orthogonal matrices for column vectors; the first one is the identity where that is one of them.
    weights
        (k,) positive weights with the sum one.
    """

    matrices: np.ndarray
    weights: np.ndarray

    def with_inversion(self) -> "Rotations":
        """These rotations, followed by the same ones with the inversion.

        Returns
        -------
        Rotations
            Twice as many.
        """
        return Rotations(np.concatenate([self.matrices, -self.matrices]), np.tile(self.weights, 2) / 2)


IDENTITY = Rotations(np.eye(3)[None], np.ones(1))


def polyhedral(name: str) -> Rotations:
    """The proper rotations of a regular polyhedron with twofold axes along x, y and z.

    Parameters
    ----------
    name
        "tetrahedral" (12), "octahedral" (24) or "icosahedral" (60).

    Returns
    -------
    Rotations
        The group, with equal weights.
    """
    units = np.concatenate([np.eye(4), [(1, *signs) for signs in product((1, -1), repeat=3)]])
    units[4:] /= 2
    more = np.zeros((0, 4))
    if name == "octahedral":
        pairs = [(i, j, sign) for i in range(4) for j in range(i + 1, 4) for sign in (1, -1)]
        more = np.array([[1 if k == i else sign if k == j else 0 for k in range(4)] for i, j, sign in pairs]) / 2**0.5
    elif name == "icosahedral":
        even = [order for order in permutations(range(4)) if round(np.linalg.det(np.eye(4)[list(order)])) == 1]
        values = [(_GOLDEN / 2, a / 2, b / (2 * _GOLDEN), 0.0) for a, b in product((1, -1), repeat=2)]
        # A quaternion and its negative are one rotation: the sign of the largest component is positive.
        more = np.array([np.array(value)[list(order)] for value in values for order in even])
    elif name != "tetrahedral":
        raise ValueError(f"there is no polyhedron {name!r}; choose tetrahedral, octahedral or icosahedral")
    matrices = _of_quaternions(np.concatenate([units, more]))
    return Rotations(matrices, np.full(len(matrices), 1 / len(matrices)))


def lebedev(directions: int, angles: int) -> Rotations:
    """Lebedev's directions times equally spaced angles about each.

    With a rule of degree n on the directions and K angles the mean is exact to the degree min(n, K - 1).

    Parameters
    ----------
    directions
        Number of directions, of a rule with positive weights.
    angles
        Number of angles K.

    Returns
    -------
    Rotations
        All combinations.
    """
    from scipy.integrate import lebedev_rule  # not needed on a bare GPU machine

    points, weights = lebedev_rule(LEBEDEV_DEGREES[directions])
    about = _about(np.array([0.0, 0.0, 1.0]), 2 * np.pi * np.arange(angles) / angles)
    towards = np.concatenate([_towards(point)[None] for point in points.T])
    matrices = np.einsum("pij,ajk->paik", towards, about).reshape(-1, 3, 3)
    return Rotations(matrices, np.repeat(weights / weights.sum(), angles) / angles)


def random_rotations(count: int, random: np.random.Generator) -> Rotations:
    """Independent rotations, uniform on SO(3).

    Parameters
    ----------
    count
        Number of rotations.
    random
        Source of the random numbers.

    Returns
    -------
    Rotations
        Rotations with equal weights.
    """
    quaternions = random.normal(size=(count, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    return Rotations(_of_quaternions(quaternions), np.full(count, 1 / count))


def mean_wigner_norms(rotations: Rotations, highest: int) -> np.ndarray:
    """Frobenius norms of the means of the Wigner matrices, divided by that of one matrix.

    Parameters
    ----------
    rotations
        Proper rotations.
    highest
        Largest degree.

    Returns
    -------
    np.ndarray
        (highest + 1,) norms for the degrees 0 to `highest`; 1 for the degree 0, and 0 where the average is exact.
    """
    traces = np.einsum("aij,bij->ab", rotations.matrices, rotations.matrices)
    angles = np.arccos(np.clip((traces - 1) / 2, -1.0, 1.0))
    weights = rotations.weights[:, None] * rotations.weights
    character, squared = np.ones_like(angles), [1.0]
    for degree in range(1, highest + 1):
        character = character + 2 * np.cos(degree * angles)
        squared.append(float((weights * character).sum()) / (2 * degree + 1))
    return np.sqrt(np.clip(squared, 0.0, None))


def exact_degree(rotations: Rotations, highest: int = 30, tolerance: float = 1e-6) -> int:
    """The degree up to which an average is exact.

    Parameters
    ----------
    rotations
        Proper rotations.
    highest
        Largest degree that is tried.
    tolerance
        Norm of the mean of a Wigner matrix that counts as zero; the square of rounding errors.

    Returns
    -------
    int
        Degree L: the means of D^1 to D^L vanish.
    """
    remaining = np.flatnonzero(mean_wigner_norms(rotations, highest)[1:] > tolerance)
    return int(remaining[0]) if len(remaining) else highest


def _of_quaternions(quaternions: np.ndarray) -> np.ndarray:
    """(k, 3, 3) rotation matrices of (k, 4) unit quaternions, real part first."""
    real, vector = quaternions[:, 0, None, None], quaternions[:, 1:]
    cross = np.einsum("ikj,qk->qij", _LEVI_CIVITA, vector)
    outer = vector[:, :, None] * vector[:, None]
    return (2 * real**2 - 1) * np.eye(3) + 2 * (outer + real * cross)


# e_ikj v_k is the matrix of the cross product v x.
_LEVI_CIVITA = np.array(
    [[[float((i - j) * (j - k) * (k - i)) / 2 for k in range(3)] for j in range(3)] for i in range(3)]
)


def _about(axis: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(k, 3, 3) rotations about a unit vector."""
    return _of_quaternions(np.column_stack([np.cos(angles / 2), np.outer(np.sin(angles / 2), axis)]))


def _towards(point: np.ndarray) -> np.ndarray:
    """The rotation by the polar angle and the azimuth that takes z to a unit vector."""
    polar, azimuth = np.arccos(np.clip(point[2], -1.0, 1.0)), np.arctan2(point[1], point[0])
    (about_z,), (about_y,) = _about(np.eye(3)[2], np.array([azimuth])), _about(np.eye(3)[1], np.array([polar]))
    return np.asarray(about_z @ about_y)

"""Weights of the linear tetrahedron method as cubic B-splines.

On a tetrahedron a linear function f has the values e_c at the centre and e_1, e_2, e_3 at the other corners. The
integral of the centre's barycentric coordinate times delta(x - f) is a B-spline in x: by Hermite and Genocchi's
formula, the coordinates of a random point weighted by the first one have a Dirichlet distribution with parameters (2,
1, 1, 1), and the density of f is then the B-spline with the knots e_c, e_c, e_1, e_2, e_3, of integral 1/4. One formula
serves all orders of the corners, all its terms are positive, and nothing is lost where corners have nearly equal
values.
"""

from dataclasses import dataclass

import numpy as np

from esen_flows.physics.lattice.transport.grid import Grid

# Stands for an interval of no length in a quotient: so small that the quotient is a step, and its products are normal.
NO_LENGTH_THZ = 1e-30


@dataclass(frozen=True)
class Tetrahedra:
    """The different tetrahedra around a grid point.

    Attributes
    ----------
    steps
        (n_steps, 3) steps of address to the corners; the first one is zero, the centre.
    corners
        (n, 3) which steps the three corners beside the centre are.
    weights
        (n,) share of each in the weight of a point: how often it occurs over six times the number of sets of 24.
    """

    steps: np.ndarray
    corners: np.ndarray
    weights: np.ndarray


def distinct_tetrahedra(grid: Grid) -> Tetrahedra:
    """The tetrahedra of a grid, equal ones of the symmetric sets merged.

    Parameters
    ----------
    grid
        The grid, with the tetrahedra of all equivalent ways to cut its cells.

    Returns
    -------
    Tetrahedra
        96 of 144 in wurtzite, 24 of 24 in an fcc lattice.
    """
    sets = len(grid.tetrahedra) // 24
    steps, corners = np.unique(grid.tetrahedra[:, 1:].reshape(-1, 3), axis=0, return_inverse=True)
    merged, counts = np.unique(np.sort(corners.reshape(-1, 3), axis=1), axis=0, return_counts=True)
    return Tetrahedra(np.vstack([np.zeros((1, 3), dtype=steps.dtype), steps]), merged + 1, counts / (6.0 * sets))


def spline(x: np.ndarray, centre: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The integral of the centre's barycentric coordinate times delta(x - f) over a tetrahedron of volume 1.

    Parameters
    ----------
    x
        Where to evaluate, in the unit of the values.
    centre
        Value at the centre.
    corners
        (..., 3) values at the other corners, in any order.

    Returns
    -------
    np.ndarray
        N(x) / (t4 - t0), with the B-spline N of degree three on the knots t0 <= ... <= t4, by de Boor's recursion.
    """
    e = np.sort(corners, axis=-1)
    first, second, third = e[..., 0], e[..., 1], e[..., 2]
    t = (
        np.minimum(centre, first),
        np.minimum(centre, second),
        np.clip(centre, first, third),
        np.maximum(centre, second),
        np.maximum(centre, third),
    )

    def inverse(i: int, j: int) -> np.ndarray:
        return 1.0 / np.maximum(t[j] - t[i], NO_LENGTH_THZ)

    rise = [np.clip((x - t[i]) * inverse(i, i + 1), 0.0, 1.0) for i in range(4)]
    linear = [rise[i] - rise[i + 1] for i in range(3)]
    quadratic = [
        (x - t[i]) * inverse(i, i + 2) * linear[i] + (t[i + 3] - x) * inverse(i + 1, i + 3) * linear[i + 1]
        for i in range(2)
    ]
    cubic = (x - t[0]) * inverse(0, 3) * quadratic[0] + (t[4] - x) * inverse(1, 4) * quadratic[1]
    return np.asarray(cubic * inverse(0, 4))

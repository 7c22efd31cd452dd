"""Constant matrices of the rotation group, generated in float64 and cached; no data files.

Real spherical harmonics in the e3nn convention: polar axis y, the three l = 1 components are (x, y, z), coefficients
ordered m = -l .. l, signs such that Y^l_m is proportional to sin(|m| phi) for m < 0 and cos(m phi) for m > 0 with
phi = atan2(x, z). Source: the convention as stated in the eSEN paper's ancestors (Geiger & Smidt, arXiv 2207.09453).
"""

from functools import cache
from math import factorial, sqrt

import numpy as np


def spherical_harmonics(degree: int, vectors: np.ndarray) -> np.ndarray:
    """Real spherical harmonics of one degree, normalised so that the sum of squares over m is 1.

    Parameters
    ----------
    degree
        Degree l >= 0.
    vectors
        (n, 3) unit vectors.

    Returns
    -------
    np.ndarray
        (n, 2l + 1) in the order m = -l .. l.
    """
    x, y, z = np.asarray(vectors, dtype=np.float64).T
    planar = z + 1j * x  # its m-th power is (sin theta)^m e^(i m phi)
    result = np.empty((x.size, 2 * degree + 1))
    for m in range(degree + 1):
        # The m-th derivative of the Legendre polynomial is the associated function without its factor (sin theta)^m.
        legendre = np.polynomial.Legendre.basis(degree)
        derivative = legendre.deriv(m)(y) if m else legendre(y)
        scale = sqrt((2.0 if m else 1.0) * factorial(degree - m) / factorial(degree + m))
        power = planar**m
        result[:, degree + m] = scale * derivative * power.real
        if m:
            result[:, degree - m] = scale * derivative * power.imag
    return result


@cache
def raising_product(degree: int) -> np.ndarray:
    """The matrix P with Y^l = P (Y^(l-1) outer Y^1) for solid harmonics Y^l(v), |v|^l times those of v / |v|.

    Found by least squares on sampled harmonics. The minimum-norm solution has no part in the antisymmetric degree
    l - 1, which vanishes because both factors have the same argument.

    Parameters
    ----------
    degree
        Degree l >= 1.

    Returns
    -------
    np.ndarray
        (2l + 1, (2l - 1) * 3).
    """
    random = np.random.default_rng(degree)
    points = random.normal(size=(40 * (degree + 1), 3))  # far more equations than the 3 (2l - 1) unknowns of a row
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    lower, first = spherical_harmonics(degree - 1, points), spherical_harmonics(1, points)
    products = (lower[:, :, None] * first[:, None, :]).reshape(len(points), -1)
    return (np.linalg.pinv(products, rcond=1e-10) @ spherical_harmonics(degree, points)).T


@cache
def raising_isometry(degree: int) -> np.ndarray:
    """The isometry C from degrees (l - 1) x 1 to l, so that D^l = C (D^(l-1) kron D^1) C^T.

    Parameters
    ----------
    degree
        Degree l >= 1.

    Returns
    -------
    np.ndarray
        (2l + 1, (2l - 1) * 3), orthonormal rows.
    """
    product = raising_product(degree)
    return product / np.linalg.norm(product, axis=1, keepdims=True)


@cache
def raising_matrix(degree: int) -> np.ndarray:
    """The matrix M with flat(D^l) = flat(flat(D^(l-1)) outer flat(D^1)) M: `raising_isometry` as one matrix product.

    Parameters
    ----------
    degree
        Degree l >= 1.

    Returns
    -------
    np.ndarray
        ((2l - 1)^2 * 9, (2l + 1)^2).
    """
    isometry = raising_isometry(degree).reshape(2 * degree + 1, 2 * degree - 1, 3)
    return np.einsum("aij,bkl->ikjlab", isometry, isometry).reshape((2 * degree - 1) ** 2 * 9, (2 * degree + 1) ** 2)


@cache
def reduced_order(lmax: int, mmax: int) -> tuple[tuple[int, int], ...]:
    """(l, m) of the coefficients that are kept in the edge frame, in m-major order.

    First m = 0 for all l; then for m = 1 .. mmax: +m for l = m .. lmax, then -m for l = m .. lmax. The rows of each m
    are thus consecutive, as the SO(2) convolution of that m reads them.

    Parameters
    ----------
    lmax
        Largest degree.
    mmax
        Largest order.

    Returns
    -------
    tuple[tuple[int, int], ...]
        (l, m) of each of the n_reduced rows.
    """
    order = [(degree, 0) for degree in range(lmax + 1)]
    for m in range(1, mmax + 1):
        for sign in (1, -1):
            order += [(degree, sign * m) for degree in range(m, lmax + 1)]
    return tuple(order)


@cache
def assembly_matrix(lmax: int, mmax: int) -> np.ndarray:
    """The matrix that places the flattened blocks D^0 .. D^lmax in the dense rotation with rows of `reduced_order`.

    Parameters
    ----------
    lmax
        Largest degree.
    mmax
        Largest order of the rows.

    Returns
    -------
    np.ndarray
        (sum_l (2l + 1)^2, n_reduced * (lmax + 1)^2) of zeros and ones.
    """
    offsets = np.cumsum([0] + [(2 * degree + 1) ** 2 for degree in range(lmax + 1)])
    order, size = reduced_order(lmax, mmax), (lmax + 1) ** 2
    matrix = np.zeros((offsets[-1], len(order) * size))
    for row, (degree, m) in enumerate(order):
        width = 2 * degree + 1
        for column in range(width):
            matrix[offsets[degree] + (degree + m) * width + column, row * size + degree**2 + column] = 1.0
    return matrix

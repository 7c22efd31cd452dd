"""Scattering by the masses of isotopes in natural abundance, with a rule where the tetrahedron method has none.

Tamura, Phys. Rev. B 27, 858 (1983): gamma(q0 s0) = pi nu0^2 / (4 N) sum g(nu0; q s) sum_k v_k |e_k(q s)* . e_k(q0
s0)|^2 in THz, with the mass variances v_k and the weights g of delta(nu0 - nu(q s)).

The energy nu0 is that of the mode itself, so that at q0 and all its equivalent points the corner of a tetrahedron lies
at the evaluated energy to rounding. Where four of the five knots of a spline lie there, its value jumps, and the weight
would depend on the last digits of the frequencies: noise of 1e-14 THz moves a third of phono3py's linewidths by more
than 0.1 %. Here values within `TIE_THZ` of nu0 are taken as equal to it; at a jump the weight is the mean of both
sides, and a tetrahedron without any spread has none.
"""

import numpy as np

from esen_flows.physics.lattice.transport.collisions import CUTOFF_THZ, Phonons, averaging
from esen_flows.physics.lattice.transport.tetrahedra import spline

TIE_THZ = 1e-6


def tied_spline(x: float, centre: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """`tetrahedra.spline` with the rule for values that equal x.

    Parameters
    ----------
    x
        Where to evaluate, in THz.
    centre
        (..., 1) values at the centre.
    corners
        (..., 3) values at the other corners.

    Returns
    -------
    np.ndarray
        (...,) in 1/THz.
    """
    values = np.concatenate([centre, corners], axis=-1)
    values = np.where(np.abs(values - x) < TIE_THZ, x, values)
    spread = values.max(axis=-1) - values.min(axis=-1)
    # The centre is a knot twice.
    knots = (values == x).sum(axis=-1) + (values[..., 0] == x)
    found = spline(np.asarray(x), values[..., 0], values[..., 1:])
    jump = np.divide(0.5, spread, out=np.zeros_like(spread), where=spread > 0)
    return np.where(spread < TIE_THZ, 0.0, np.where(knots == 4, jump, found))


def isotope_weights(phonons: Phonons, point: int) -> np.ndarray:
    """Weights of delta(nu0 - nu) at all points of the grid, averaged over degenerate modes there.

    Parameters
    ----------
    phonons
        Phonons on the grid.
    point
        Index of q0.

    Returns
    -------
    np.ndarray
        (size, n0, n) in 1/THz.
    """
    frequencies, tetrahedra = phonons.frequencies, phonons.tetrahedra
    size, n = frequencies.shape
    weights = np.zeros((size, n, n))
    for s in range(n):
        values = frequencies[phonons.plus, s]
        low, high = values.min(axis=1) - TIE_THZ, values.max(axis=1) + TIE_THZ
        for s0, x in enumerate(frequencies[point]):
            reached = (low < x) & (high > x)
            if x > CUTOFF_THZ and reached.any():
                found = values[reached]
                corners = found[:, tetrahedra.corners]
                centre = np.broadcast_to(found[:, :1, None], (*corners.shape[:2], 1))
                weights[reached, s0, s] = tied_spline(x, centre, corners) @ tetrahedra.weights
    return np.einsum("qas,qsp->qap", weights, averaging(phonons.blocks))


def isotope_sum(eigenvectors: np.ndarray, variances: np.ndarray, point: int, weights: np.ndarray) -> np.ndarray:
    """Sums of weights, mass variances and overlaps for the modes of q0.

    Parameters
    ----------
    eigenvectors
        (size, n, n) with the mode as last index.
    variances
        (n_primitive,) relative mass variances of the atoms.
    point
        Index of q0.
    weights
        (size, n0, n) as `isotope_weights` gives them.

    Returns
    -------
    np.ndarray
        (n,) in 1/THz.
    """
    n = weights.shape[1]
    own = eigenvectors[point].reshape(n // 3, 3, n)
    reached = np.flatnonzero(weights.any(axis=(1, 2)))
    others = eigenvectors[reached].reshape(len(reached), n // 3, 3, n)
    total = np.zeros(n)
    for k, variance in enumerate(variances):
        overlap = np.abs(np.einsum("xa,qxs->qas", own[k].conj(), others[:, k], optimize=True)) ** 2
        total += variance * np.einsum("qas,qas->a", overlap, weights[reached])
    return total


def isotope_linewidths(phonons: Phonons, point: int, sums: np.ndarray) -> np.ndarray:
    """Linewidths by isotopes, averaged over degenerate modes of q0.

    Parameters
    ----------
    phonons
        Phonons on the grid.
    point
        Index of q0.
    sums
        (n,) as `isotope_sum` gives them.

    Returns
    -------
    np.ndarray
        (n,) in THz; zero below the cutoff.
    """
    size, frequencies = len(phonons.frequencies), phonons.frequencies[point]
    linewidths = np.where(frequencies > CUTOFF_THZ, np.pi / 4 / size * frequencies**2 * sums, 0.0)
    return np.asarray(averaging(phonons.blocks[point]) @ linewidths)

"""Quantities of eigenvectors that do not depend on the choice of eigenvectors in degenerate subspaces."""

import numpy as np

DEGENERACY_THZ = 1e-4  # modes closer than this count as degenerate


def atom_shares(frequencies: np.ndarray, eigenvectors: np.ndarray, equivalent: np.ndarray) -> np.ndarray:
    """The share of each atom in each mode.

    Shares are averaged over degenerate modes and over symmetry-equivalent atoms, so that a projected density of states
    over the irreducible q-points equals the one over all q-points.

    Parameters
    ----------
    frequencies
        (n_q, n_bands) in THz.
    eigenvectors
        (n_q, 3 n_atoms, n_bands), orthonormal.
    equivalent
        (n_atoms,) a number that equivalent atoms share.

    Returns
    -------
    np.ndarray
        (n_q, n_bands, n_atoms), of which the sum over atoms is one.
    """
    squares = np.abs(eigenvectors.reshape(len(frequencies), len(equivalent), 3, -1)) ** 2
    degenerate = (np.abs(frequencies[:, :, None] - frequencies[:, None, :]) < DEGENERACY_THZ).astype(float)
    shares = degenerate / degenerate.sum(axis=-1, keepdims=True) @ squares.sum(axis=2).transpose(0, 2, 1)
    for atom in np.unique(equivalent):
        orbit = equivalent == atom
        shares[..., orbit] = shares[..., orbit].mean(axis=-1, keepdims=True)
    return shares

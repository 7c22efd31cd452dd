"""What eigenvectors say, independent of how degenerate ones were chosen."""

import numpy as np

DEGENERACY_THZ = 1e-4


def atom_shares(frequencies: np.ndarray, eigenvectors: np.ndarray, equivalent: np.ndarray) -> np.ndarray:
    """How much of each mode is on each atom: (n_q, n_bands, n_atoms), the sum over atoms is one.

    Degenerate modes share equally, and so do symmetry-equivalent atoms: a density of states over the irreducible
    q-points alone is then that over all.

    Parameters
    ----------
    frequencies
        (n_q, n_bands) in THz.
    eigenvectors
        (n_q, 3 n_atoms, n_bands), orthonormal.
    equivalent
        (n_atoms,) the same number for equivalent atoms.
    """
    squares = np.abs(eigenvectors.reshape(len(frequencies), len(equivalent), 3, -1)) ** 2
    alike = (np.abs(frequencies[:, :, None] - frequencies[:, None, :]) < DEGENERACY_THZ).astype(float)
    shares = alike / alike.sum(axis=-1, keepdims=True) @ squares.sum(axis=2).transpose(0, 2, 1)
    for atom in np.unique(equivalent):
        orbit = equivalent == atom
        shares[..., orbit] = shares[..., orbit].mean(axis=-1, keepdims=True)
    return shares

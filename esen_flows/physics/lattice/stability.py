"""Dynamical stability: numerical noise of acoustic modes, or an instability of the crystal."""

from typing import Literal

import numpy as np

Verdict = Literal["stable", "acoustic_noise", "unstable"]

# Rounding and the symmetrisation of force constants leave frequencies up to this size that should be zero.
ZERO_THZ = 1e-3
N_ACOUSTIC = 3


def stability_verdict(
    frequencies: np.ndarray,
    q_points: np.ndarray,
    primitive_vectors: np.ndarray,
    supercell_vectors: np.ndarray,
    tolerance_thz: float,
    *,
    gamma_alone: bool = False,
) -> tuple[Verdict, tuple[int, int] | None]:
    """Verdict on sampled phonons, and the worst mode of an unstable crystal.

    Noise is a negative frequency down to `-tolerance_thz`, of one of the three lowest branches, closer to Gamma than
    the first commensurate q-point of the supercell: there the frequency follows from the sum rule and from
    interpolation, and not from a force. Every other negative frequency below `-ZERO_THZ` is an instability.

    Parameters
    ----------
    frequencies
        (n_q, n_bands) in THz, ascending, negative for imaginary ones.
    q_points
        (n_q, 3) in reduced coordinates of the primitive cell.
    primitive_vectors, supercell_vectors
        (3, 3) lattice vectors in Angstrom, as rows.
    tolerance_thz
        Largest noise in THz, positive.
    gamma_alone
        Whether noise is tolerated at Gamma only, and no negative frequency at all elsewhere, as in the protocol of
        PhononDB's 103 conductivities.

    Returns
    -------
    tuple[Verdict, tuple[int, int] | None]
        The verdict, and (q index, band index) of the most negative frequency that is not noise, or None.
    """
    radius = 1e-6 if gamma_alone else _shortest(np.linalg.inv(supercell_vectors).T)
    near_gamma = distance_to_gamma(q_points, np.linalg.inv(primitive_vectors).T) < radius * (1.0 - 1e-6)
    negative = frequencies < (0.0 if gamma_alone else -ZERO_THZ)
    noise = np.zeros_like(negative)
    noise[:, :N_ACOUSTIC] = near_gamma[:, None] & (frequencies[:, :N_ACOUSTIC] >= -tolerance_thz)
    unstable = negative & ~noise
    if unstable.any():
        worst = int(np.argmin(np.where(unstable, frequencies, np.inf)))
        return "unstable", (worst // frequencies.shape[1], worst % frequencies.shape[1])
    return ("acoustic_noise" if negative.any() else "stable"), None


def distance_to_gamma(q_points: np.ndarray, reciprocal: np.ndarray) -> np.ndarray:
    """Distances of q-points from the nearest reciprocal lattice point.

    Parameters
    ----------
    q_points
        (n_q, 3) in reduced coordinates.
    reciprocal
        (3, 3) reciprocal lattice vectors as rows, in 1/Angstrom, without the factor 2 pi.

    Returns
    -------
    np.ndarray
        (n_q,) in 1/Angstrom, without the factor 2 pi.
    """
    reduced = q_points - np.rint(q_points)
    images = reduced[:, None, :] + _neighbours()[None, :, :]
    return np.linalg.norm(images @ reciprocal, axis=-1).min(axis=1)


def _shortest(vectors: np.ndarray) -> float:
    """Length of the shortest lattice vector."""
    lengths = np.linalg.norm(_neighbours() @ vectors, axis=1)
    return float(lengths[lengths > 0].min())


def _neighbours() -> np.ndarray:
    """(27, 3) integer translations from -1 to 1."""
    return np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3).astype(float)

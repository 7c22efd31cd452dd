"""Telling acoustic noise from a crystal that wants to be another one."""

from typing import Literal

import numpy as np

Verdict = Literal["stable", "acoustic_noise", "unstable"]

# What arithmetic and the symmetrisation of force constants leave of a frequency that is zero.
ZERO_THZ = 1e-3
N_ACOUSTIC = 3


def judge(
    frequencies: np.ndarray,
    q_points: np.ndarray,
    primitive_vectors: np.ndarray,
    supercell_vectors: np.ndarray,
    tolerance_thz: float,
    *,
    gamma_alone: bool = False,
) -> tuple[Verdict, tuple[int, int] | None]:
    """Verdict over sampled phonons, and which one is the worst if the crystal is unstable.

    Noise is a negative frequency down to `-tolerance_thz`, of one of the three lowest branches, closer to Gamma than
    the first q-point that the supercell holds: there the sum rule and interpolation make the frequency, not a force.
    Every other negative frequency beyond `ZERO_THZ` is an instability.

    Parameters
    ----------
    frequencies
        (n_q, n_bands) in THz, ascending, negative for imaginary.
    q_points
        (n_q, 3) in reduced coordinates of the primitive cell.
    primitive_vectors, supercell_vectors
        (3, 3) lattice vectors in Angstrom, one a row.
    tolerance_thz
        positive.
    gamma_alone
        forgive noise at Gamma itself only, and no negative frequency elsewhere, as the protocol of PhononDB's
        103 conductivities does.

    Returns
    -------
    tuple[Verdict, tuple[int, int] | None]
        The verdict, and (q index, band index) of the most negative frequency that is not noise, or None.
    """
    radius = 1e-6 if gamma_alone else _shortest(np.linalg.inv(supercell_vectors).T)
    near_gamma = distance_to_gamma(q_points, np.linalg.inv(primitive_vectors).T) < radius * (1.0 - 1e-6)
    negative = frequencies < (0.0 if gamma_alone else -ZERO_THZ)
    forgivable = np.zeros_like(negative)
    forgivable[:, :N_ACOUSTIC] = near_gamma[:, None] & (frequencies[:, :N_ACOUSTIC] >= -tolerance_thz)
    real = negative & ~forgivable
    if real.any():
        worst = int(np.argmin(np.where(real, frequencies, np.inf)))
        return "unstable", (worst // frequencies.shape[1], worst % frequencies.shape[1])
    return ("acoustic_noise" if negative.any() else "stable"), None


def distance_to_gamma(q_points: np.ndarray, reciprocal: np.ndarray) -> np.ndarray:
    """Distance (n_q,) in 1/Angstrom (without 2 pi) from each q-point to the nearest reciprocal lattice point."""
    reduced = q_points - np.rint(q_points)
    images = reduced[:, None, :] + _neighbours()[None, :, :]
    return np.linalg.norm(images @ reciprocal, axis=-1).min(axis=1)


def _shortest(vectors: np.ndarray) -> float:
    lengths = np.linalg.norm(_neighbours() @ vectors, axis=1)
    return float(lengths[lengths > 0].min())


def _neighbours() -> np.ndarray:
    return np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3).astype(float)

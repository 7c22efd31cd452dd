"""Element reference energies by least squares, and the one scale of a conservative model."""

from collections.abc import Sequence

import numpy as np


def fit_references(numbers: Sequence[np.ndarray], energies: Sequence[float]) -> dict[int, float]:
    """Energy per atom of each element that best explains total energies by composition alone.

    Parameters
    ----------
    numbers : atomic numbers of each structure.
    energies : total energies in eV.

    Returns
    -------
    eV per atom by atomic number; the minimum-norm solution where composition does not fix it.
    """
    elements = np.unique(np.concatenate(list(numbers)))
    counts = np.array([[np.count_nonzero(z == element) for element in elements] for z in numbers], dtype=np.float64)
    solution = np.linalg.lstsq(counts, np.asarray(energies, dtype=np.float64), rcond=None)[0]
    return {int(element): float(energy) for element, energy in zip(elements, solution, strict=True)}


def force_scale(forces: Sequence[np.ndarray]) -> float:
    """Root mean square over all force components in eV/Angstrom; 1.0 if all are zero."""
    total = np.concatenate([np.asarray(f).ravel() for f in forces])
    rms = float(np.sqrt(np.mean(total**2)))
    return rms if rms > 0 else 1.0

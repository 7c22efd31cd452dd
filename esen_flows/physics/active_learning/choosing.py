"""Which frames are worth a label: pure functions of forces."""

from collections.abc import Sequence

import numpy as np


def force_difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over the atoms of the length of the difference of two sets of forces.

    Parameters
    ----------
    first, second
        (n, 3) forces in eV/Angstrom.

    Returns
    -------
    float
        In eV/Angstrom.
    """
    return float(np.linalg.norm(first - second, axis=1).mean())


def committee_spread(forces: Sequence[np.ndarray]) -> float:
    """Root over the atoms' mean square deviation of the forces of several force fields from their mean.

    Parameters
    ----------
    forces
        (n, 3) forces of each force field in eV/Angstrom.

    Returns
    -------
    float
        In eV/Angstrom.

    Examples
    --------
    >>> committee_spread([np.zeros((2, 3)), np.full((2, 3), 2.0)])  # each is one off the mean in three components
    1.7320508075688772
    """
    deviations = np.asarray(forces) - np.mean(forces, axis=0)
    return float(np.sqrt(np.square(deviations).sum(axis=2).mean()))


def largest(differences: np.ndarray, count: int, always: Sequence[int] = ()) -> list[int]:
    """Indices of the frames with the largest differences.

    Parameters
    ----------
    differences
        (frames,) difference of each frame; NaN for one that must not be chosen.
    count
        How many to choose; fewer are chosen if there are fewer.
    always
        Frames that are chosen first, such as the last ones of trajectories that failed.

    Returns
    -------
    list[int]
        Indices in ascending order.

    Examples
    --------
    >>> largest(np.array([0.1, 0.4, np.nan, 0.3]), 2, always=[0])
    [0, 1]
    """
    usable = [index for index in np.argsort(-differences, kind="stable").tolist() if np.isfinite(differences[index])]
    first = [index for index in usable if index in set(always)]
    return sorted([*first, *(index for index in usable if index not in set(first))][:count])

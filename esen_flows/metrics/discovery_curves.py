"""Curves of predicted stability: classification at every threshold, ranking, and the error near the convex hull."""

from dataclasses import dataclass

import numpy as np

from esen_flows.errors import InputError
from esen_flows.metrics.discovery import STABLE_BELOW_EV_PER_ATOM, Floats

# Half of the window is 20 meV/atom to either side, as in the leaderboard's figure.
_WINDOW_EV_PER_ATOM = 0.04
_CENTRES_EV_PER_ATOM = np.linspace(-0.2, 0.2, 161)


@dataclass(frozen=True)
class HullDistances:
    """Hull distances of the same crystals by DFT and by a force field.

    Attributes
    ----------
    true
        (n,) distances by DFT in eV/atom.
    predicted
        (n,) predicted distances in eV/atom; NaN where there is none.
    """

    true: Floats
    predicted: Floats

    def rounded(self) -> "HullDistances":
        """The distances to 1 meV/atom, as the leaderboard compares them.

        Returns
        -------
        HullDistances
            Rounded distances.
        """
        return HullDistances(self.true.round(3), self.predicted.round(3))


def receiver_operating_curve(distances: HullDistances) -> tuple[Floats, Floats, float]:
    """Rates of true and false positives at every threshold of the predicted distance.

    A crystal without a prediction comes after all others.

    Parameters
    ----------
    distances
        Distances of n crystals.

    Returns
    -------
    tuple
        Rates of false positives and of true positives, both from 0 to 1, and the area under the curve.

    Raises
    ------
    InputError
        All crystals, or none of them, are stable by DFT.
    """
    stable = distances.true <= STABLE_BELOW_EV_PER_ATOM
    n_stable, n = int(stable.sum()), len(stable)
    if n_stable in (0, n):
        raise InputError(f"{n_stable} of {n} crystals are stable by DFT; a ROC curve needs stable and unstable ones")
    scores = np.where(np.isfinite(distances.predicted), distances.predicted, np.inf)
    order = np.argsort(scores, kind="stable")
    scores, stable = scores[order], stable[order]
    # Equal predictions are passed by one threshold.
    ends = np.append(np.flatnonzero(scores[1:] != scores[:-1]), n - 1)
    true_positives = np.append(0, np.cumsum(stable)[ends]) / n_stable
    false_positives = np.append(0, np.cumsum(~stable)[ends]) / (n - n_stable)
    return false_positives, true_positives, float(np.trapezoid(true_positives, false_positives))


def precision_recall_curve(distances: HullDistances) -> tuple[Floats, Floats, Floats]:
    """Precision and recall of the k crystals that are predicted most stable, for each k that is predicted stable.

    Parameters
    ----------
    distances
        Distances of n crystals.

    Returns
    -------
    tuple
        (m,) numbers of crystals k, precision and recall; m crystals are predicted stable.

    Raises
    ------
    InputError
        No crystal is stable by DFT, or none is predicted stable.
    """
    stable = distances.true <= STABLE_BELOW_EV_PER_ATOM
    n_predicted = int((distances.predicted <= STABLE_BELOW_EV_PER_ATOM).sum())
    if not stable.any() or not n_predicted:
        raise InputError(
            f"{int(stable.sum())} of {len(stable)} crystals are stable by DFT and {n_predicted} are predicted stable; "
            "precision and recall need some of both"
        )
    order = np.argsort(distances.predicted, kind="stable")[:n_predicted]  # NaN is sorted behind everything else
    hits, k = np.cumsum(stable[order]), np.arange(1.0, n_predicted + 1)
    return k, hits / k, hits / stable.sum()


def rolling_error(distances: HullDistances) -> tuple[Floats, Floats, Floats]:
    """Mean absolute error in a window of 40 meV/atom that moves over DFT's distances from -0.2 to 0.2 eV/atom.

    Parameters
    ----------
    distances
        Distances of n crystals; those without a prediction are left out.

    Returns
    -------
    tuple
        (161,) middles of the windows, mean absolute errors (NaN for a window without a crystal) and their standard
        errors (NaN for fewer than two crystals), all in eV/atom.

    Raises
    ------
    InputError
        No crystal with a prediction is in a window.
    """
    present = np.isfinite(distances.predicted)
    order = np.argsort(distances.true[present], kind="stable")
    true = distances.true[present][order]
    errors = np.abs(distances.predicted[present][order] - true)
    # A thousandth of a meV/atom, so that distances on the edge of a window do not depend on rounding.
    half = _WINDOW_EV_PER_ATOM / 2 + 1e-6
    begin = np.searchsorted(true, _CENTRES_EV_PER_ATOM - half)
    end = np.searchsorted(true, _CENTRES_EV_PER_ATOM + half)
    count = end - begin
    if not count.any():
        raise InputError("no crystal with a prediction lies within 0.22 eV/atom of the hull by DFT")
    sums, squares = (np.append(0.0, np.cumsum(values)) for values in (errors, errors**2))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (sums[end] - sums[begin]) / count
        variance = np.maximum((squares[end] - squares[begin]) / count - mean**2, 0.0)
        return _CENTRES_EV_PER_ATOM, mean, np.where(count > 1, np.sqrt(variance / (count - 1.0)), np.nan)

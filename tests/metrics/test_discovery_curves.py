"""Curves of predicted stability, against sums that are written out."""

import numpy as np
import pytest

from esen_flows.errors import InputError
from esen_flows.metrics.discovery_curves import (
    HullDistances,
    precision_recall_curve,
    receiver_operating_curve,
    rolling_error,
)

FIVE = HullDistances(np.array([-0.02, -0.01, 0.0, 0.03, 0.1]), np.array([-0.03, 0.02, -0.01, -0.02, np.nan]))


def test_the_area_is_the_share_of_pairs_in_the_right_order() -> None:
    dice = np.random.default_rng(0)
    true = dice.normal(0, 0.1, 300).round(3)
    predicted = (true + dice.normal(0, 0.05, 300)).round(2)  # with many ties
    predicted[:20] = np.nan
    false, positive, area = receiver_operating_curve(HullDistances(true, predicted))
    scores = np.where(np.isnan(predicted), 9.0, predicted)
    stable, unstable = scores[true <= 0], scores[true > 0]
    before = (stable[:, None] < unstable).mean() + 0.5 * (stable[:, None] == unstable).mean()
    assert area == pytest.approx(before, rel=1e-12)
    assert (false[0], positive[0], false[-1], positive[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(false) >= 0)


def test_five_crystals() -> None:
    """In the order of the predictions: stable, unstable, stable, stable (predicted unstable), no prediction."""
    k, precision, recall = precision_recall_curve(FIVE)
    assert k.tolist() == [1, 2, 3]
    assert precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert recall.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert receiver_operating_curve(FIVE)[2] == pytest.approx(4 / 6)
    centres, mean, deviation = rolling_error(FIVE)
    at = {round(float(centre), 4): i for i, centre in enumerate(centres)}
    # Errors 10, 30 and 10 meV/atom within 20 meV/atom of 0; 50 alone at 50, since the fifth has no prediction.
    assert mean[at[0.0]] == pytest.approx(0.05 / 3)
    assert deviation[at[0.0]] == pytest.approx(np.std([0.01, 0.03, 0.01], ddof=1) / np.sqrt(3))
    assert mean[at[0.05]] == pytest.approx(0.05)
    assert np.isnan(deviation[at[0.05]])
    assert np.isnan(mean[at[0.1]])


def test_what_has_no_curve() -> None:
    stable = HullDistances(np.array([-0.1, -0.2]), np.array([0.1, 0.2]))
    with pytest.raises(InputError, match="2 of 2 crystals are stable by DFT"):
        receiver_operating_curve(stable)
    with pytest.raises(InputError, match="0 are predicted stable"):
        precision_recall_curve(stable)
    with pytest.raises(InputError, match="no crystal with a prediction lies within"):
        rolling_error(HullDistances(np.array([0.5]), np.array([0.5])))

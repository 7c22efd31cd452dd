"""Stability metrics: hand-made cases, and the counts of every published card."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from esen_flows.errors import InputError
from esen_flows.metrics.discovery import (
    Counts,
    DiscoveryReference,
    discovery_metrics,
    predicted_hull_distances,
    subset_metrics,
)

# The leaderboard's DAF of unique prototypes divides by this prevalence, of distances that were not rounded.
UNIQUE_PREVALENCE = 32_942 / 215_488
NAN = float("nan")


def reference(distances: list[float], unique: list[bool] | None = None) -> DiscoveryReference:
    n = len(distances)
    return DiscoveryReference(
        np.array([f"wbm-1-{i}" for i in range(n)]),
        np.full(n, -1.0),
        np.array(distances),
        np.array([True] * n if unique is None else unique),
    )


def energies(*values: float) -> dict[str, float]:
    return {f"wbm-1-{i}": value for i, value in enumerate(values) if not np.isnan(value)}


def test_counts_and_rates() -> None:
    true, predicted = np.array([-0.1, 0.0, 0.1, 0.2, -0.2]), np.array([-0.1, 0.1, 0.0, 0.3, NAN])
    counts = Counts.of(true, predicted)
    assert counts == Counts(tp=1, fp=1, tn=1, fn=2)
    rates = counts.rates()
    assert rates["Precision"] == 0.5
    assert rates["Recall"] == pytest.approx(1 / 3)
    assert rates["F1"] == pytest.approx(0.4)
    assert rates["DAF"] == pytest.approx(0.5 / 0.6)
    assert counts.rates(0.25)["DAF"] == 2.0


def test_missing_predictions_are_unstable_and_have_no_error() -> None:
    found = subset_metrics(np.array([-0.1, 0.1, 0.3]), np.array([NAN, 0.2, 0.2]))
    assert found["missing_preds"] == 1
    assert found["MAE"] == pytest.approx(0.1)
    assert found["R2"] == pytest.approx(0.0)
    assert found["FN"] == 1


def test_distances_move_with_the_formation_energy() -> None:
    distances = predicted_hull_distances(reference([0.05, 0.1, 0.2]), energies(-1.1, -1.0, 4.01))
    assert distances[:2] == pytest.approx([-0.05, 0.1])
    assert np.isnan(distances[2])  # further than 5 eV/atom from DFT


def test_foreign_material_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="no prediction belongs"):
        predicted_hull_distances(reference([0.1]), {"mp-1": -1.0})


def test_values_are_rounded_before_they_are_compared() -> None:
    """0.4 meV above the hull rounds to 0.000 and is stable; DAF of the unique prototypes uses the unrounded value."""
    found = discovery_metrics(reference([0.0004, -0.1, 0.3, 0.2]), energies(-1.0, -1.0, -1.0, -1.0))
    assert found["full_test_set"]["TP"] == 2
    assert found["full_test_set"]["DAF"] == 2.0
    assert found["unique_prototypes"]["DAF"] == 4.0
    assert found["unique_prototypes"]["plain_DAF"] == 2.0


def test_subsets() -> None:
    found = discovery_metrics(reference([-0.1, 0.1, 0.2, 0.3], [True, False, True, True]), energies(-1, -1, NAN, -1))
    assert found["full_test_set"]["missing_preds"] == 1
    assert found["unique_prototypes"]["TN"] == 2
    assert found["most_stable_10k"]["TP"] == 1


def test_intervals_hold_the_value() -> None:
    dice = np.random.default_rng(3)
    true = dice.normal(0.05, 0.1, 3000)
    predicted = energies(*(-1 + dice.normal(0, 0.05, 3000)))
    found = discovery_metrics(reference(true.tolist()), predicted, intervals=True)["full_test_set"]
    for name in ("F1", "DAF", "MAE", "RMSE"):
        low, high = found[f"{name}_interval"]
        assert low < found[name] < high
        assert high - low < 0.2 * found[name]
    # The standard error of the mean of |x| of a normal distribution.
    half_width = 1.96 * 0.05 * np.sqrt(1 - 2 / np.pi) / np.sqrt(3000)
    low, high = found["MAE_interval"]
    assert (high - low) / 2 == pytest.approx(half_width, rel=0.2)


@pytest.mark.shared
def test_rates_of_every_card(shared_dir: Path) -> None:
    """F1, DAF and the other rates from the counts of 62 cards agree to the digits printed."""
    n_subsets = 0
    for card in (shared_dir / "data/matbench_discovery/models").glob("*.yml"):
        metrics = (yaml.safe_load(card.read_text()).get("metrics") or {}).get("discovery")
        for name in ("full_test_set", "unique_prototypes", "most_stable_10k"):
            published = metrics.get(name) if isinstance(metrics, dict) else None
            if not published:
                continue
            n_subsets += 1
            counts = Counts(published["TP"], published["FP"], published["TN"], published["FN"])
            rates = counts.rates(None if name == "full_test_set" else UNIQUE_PREVALENCE)
            for key, value in rates.items():
                assert value == pytest.approx(published[key], abs=5.001e-4), (card.name, name, key)
    assert n_subsets == 186

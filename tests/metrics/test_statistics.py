"""Intervals by resampling, against what is known of normal and of exact data."""

import numpy as np
import pytest

from esen_flows.errors import InputError
from esen_flows.metrics.statistics import bootstrap_interval, correlation


def test_interval_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = bootstrap_interval(lambda rows: float(values[rows].mean()), len(values), 2000)
    standard_error = values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.15 * standard_error)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.15 * standard_error)


def test_no_interval_of_one_value() -> None:
    assert np.isnan(bootstrap_interval(lambda rows: 1.0, 1)).all()
    assert np.isnan(bootstrap_interval(lambda rows: float("nan"), 5)).all()


def test_correlations() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0, np.nan])
    found = correlation(x, np.array([1.0, 8.0, 27.0, 64.0, 125.0, 3.0]))
    assert found.n == 5
    assert found.spearman == pytest.approx(1.0)
    assert found.pearson == pytest.approx(0.9431175)
    assert found.pearson_interval[0] < found.pearson < 1 + 1e-12
    opposite = correlation(x, -x)
    assert opposite.pearson_interval == (pytest.approx(-1), pytest.approx(-1))


@pytest.mark.parametrize("second", [[1.0, 2.0], [1.0, 1.0, 1.0]])
def test_too_few_values(second: list[float]) -> None:
    with pytest.raises(InputError, match="three pairs"):
        correlation(np.arange(len(second), dtype=float), np.array(second))

"""Uncertainties of means and of correlations, by resampling."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esen_flows.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """Correlation of two quantities, with 95 % bootstrap intervals.

    Attributes
    ----------
    n
        Number of pairs.
    pearson
        Correlation of the values, between -1 and 1.
    spearman
        Correlation of the ranks, between -1 and 1.
    pearson_interval
        Lower and upper end of the interval that holds 95 % of the resampled values of `pearson`.
    spearman_interval
        Lower and upper end of the interval that holds 95 % of the resampled values of `spearman`.
    """

    n: int
    pearson: float
    spearman: float
    pearson_interval: tuple[float, float]
    spearman_interval: tuple[float, float]


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], float], n: int, resamples: int = 500, seed: int = 0
) -> tuple[float, float]:
    """Interval that holds 95 % of a statistic's values over resampled rows.

    Parameters
    ----------
    statistic
        Function of the (n,) numbers of the resampled rows.
    n
        Number of rows.
    resamples
        Number of resamples.
    seed
        Seed of the random numbers.

    Returns
    -------
    tuple of float
        Lower and upper end; NaN where fewer than two rows are there or no resample gives a finite value.
    """
    if n < 2:
        return (float("nan"), float("nan"))
    dice = np.random.default_rng(seed)
    values = np.array([statistic(dice.integers(n, size=n)) for _ in range(resamples)], dtype=float)
    values = values[np.isfinite(values)]
    if not values.size:
        return (float("nan"), float("nan"))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def correlation(first: Floats, second: Floats, resamples: int = 2000, seed: int = 0) -> Correlation:
    """Correlation of two quantities over the same subjects.

    Parameters
    ----------
    first, second
        (n,) values; pairs with a value that is not finite are left out.
    resamples
        Number of resamples of the intervals.
    seed
        Seed of the random numbers.

    Returns
    -------
    Correlation
        Both correlations with their intervals.

    Raises
    ------
    InputError
        Fewer than three pairs are finite, or one quantity does not vary.
    """
    from scipy.stats import rankdata  # takes as long to load as the rest of a command

    finite = np.isfinite(first) & np.isfinite(second)
    x, y = first[finite], second[finite]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise InputError(f"a correlation needs three pairs of values that vary; got {len(x)}")

    def resampled(measure: Callable[[Floats, Floats], float]) -> tuple[float, float]:
        def statistic(rows: NDArray[np.intp]) -> float:
            if np.ptp(x[rows]) == 0 or np.ptp(y[rows]) == 0:
                return float("nan")
            return measure(x[rows], y[rows])

        return bootstrap_interval(statistic, len(x), resamples, seed)

    def pearson(a: Floats, b: Floats) -> float:
        return float(np.corrcoef(a, b)[0, 1])

    def spearman(a: Floats, b: Floats) -> float:
        return pearson(rankdata(a), rankdata(b))

    return Correlation(len(x), pearson(x, y), spearman(x, y), resampled(pearson), resampled(spearman))

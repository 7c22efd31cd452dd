"""Correlations of test errors with the quality of properties, over models of the leaderboard and of a database."""

import pytest

from esen_flows.errors import InputError
from esen_flows.metrics.correlations import error_correlations, passing
from esen_flows.metrics.published import LeaderboardRow

ENTROPY = "mdr_entropy_mae_j_per_k_mol"


def row(key: str, conservative: bool | None, **values: float) -> LeaderboardRow:
    return LeaderboardRow(key, key, False, conservative, False, values, "own")


ROWS = [
    row("a", True, error=1.0, **{ENTROPY: 2.0}),
    row("b", True, error=2.0, **{ENTROPY: 4.0}),
    row("c", True, error=3.0, **{ENTROPY: 6.0}),
    row("d", False, error=0.5, **{ENTROPY: 90.0}),
    row("e", None, error=0.5),
]


def test_direct_forces_hide_what_the_error_tells() -> None:
    every, conserving = (error_correlations(rows, "error")[ENTROPY] for rows in (ROWS, passing(ROWS)))
    assert (every.n, conserving.n) == (4, 3)
    assert conserving.pearson == pytest.approx(1.0)
    assert every.spearman < 0.5


def test_a_verdict_of_an_audit_counts_more_than_a_card() -> None:
    assert [one.key for one in passing(ROWS, {"a": False, "d": True})] == ["b", "c", "d"]


def test_two_models_make_no_correlation() -> None:
    with pytest.raises(InputError, match="fewer than 3 of 2 models have error and a quality"):
        error_correlations(ROWS[:2], "error")

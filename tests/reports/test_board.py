"""Metrics beside the published ones."""

import pytest

from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.metrics.published import published_rows
from esen_flows.reports.board import BoardEntry, board_parts, judged_entry
from esen_flows.reports.page import Chart, Table


def rows_of(entry: BoardEntry) -> dict[str, dict[str, object]]:
    table = board_parts([entry])[-1]
    assert isinstance(table, Table)
    titles = [column.title for column in table.columns]
    return {str(row[0]): dict(zip(titles, row, strict=True)) for row in table.rows}


def test_ranks_are_those_of_the_published_values() -> None:
    current = [row for row in published_rows() if not row.superseded and "κ_SRME" in row.values]
    best = min(current, key=lambda row: row.values["κ_SRME"])
    row = rows_of(BoardEntry("ours", {"κ_SRME": best.values["κ_SRME"] / 2}))["κ_SRME"]
    assert (row["rank"], row["better"]) == (f"1 of {len(current) + 1}", "lower")
    assert (row["best published"], row["best model"]) == (best.values["κ_SRME"], best.name)
    behind = rows_of(BoardEntry("ours", {"κ_SRME": 2.0}))["κ_SRME"]
    assert behind["rank"] == f"{len(current) + 1} of {len(current) + 1}"


def test_a_signed_deviation_is_best_near_zero() -> None:
    row = rows_of(BoardEntry("ours", {"κ_SRD": -1e-6}))["κ_SRD"]
    assert str(row["rank"]).startswith("1 of ")
    assert row["better"] == "nearer to 0"
    values = [row.values["κ_SRD"] for row in published_rows() if not row.superseded and "κ_SRD" in row.values]
    assert row["best published"] == min(values, key=abs)


def test_higher_is_better_for_f1_and_units_are_named() -> None:
    rows = rows_of(BoardEntry("ours", {"unique_F1": 0.999, "unique_MAE": 0.5}))
    assert str(rows["unique_F1"]["rank"]).startswith("1 of ")
    assert rows["unique_MAE"]["unit"] == "eV/atom"


def test_a_partial_entry_has_no_rank_and_says_so() -> None:
    judged = JudgedModel("chgnet", 103, 70, {"κ_SRME": 1.6}, {"κ_SRME": (1.5, 1.7)}, {"κ_SRME": 1.75}, "κ_SRME", [])
    table = board_parts([judged_entry(judged)])[-1]
    assert isinstance(table, Table)
    assert "chgnet: 70 of 103 materials; it has no rank." in table.note
    row = rows_of(judged_entry(judged))["κ_SRME"]
    assert "rank" not in row
    assert (row["over what is done"], row["as the board counts"], row["95 % interval"]) == (1.6, 1.75, "1.5 to 1.7")
    published = next(row for row in published_rows() if row.key == "chgnet-0.3.0")
    assert row["same model, published"] == published.values["κ_SRME"]


def test_the_chart_puts_ours_between_its_neighbours() -> None:
    chart = board_parts([BoardEntry("ours", {"κ_SRME": 0.4})])[0]
    assert isinstance(chart, Chart)
    theirs, ours = chart.traces
    place = ours.x[0]
    assert place is not None
    better = [value for value in theirs.y if value is not None and value < 0.4]
    assert place == len(better) + 0.5


def test_without_a_published_metric_there_is_nothing() -> None:
    assert board_parts([BoardEntry("ours", {"force_mae": 1.0})]) == []


@pytest.mark.parametrize("name", ["n_parameters", "unique_TP"])
def test_numbers_that_are_no_metrics_are_left_out(name: str) -> None:
    assert board_parts([BoardEntry("ours", {name: 5.0})]) == []

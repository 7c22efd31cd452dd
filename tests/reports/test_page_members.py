"""Tables and charts of members."""

import numpy as np
import pytest

from esen_flows.reports.members import Member, distribution_chart, failures_table, joined, members_table
from esen_flows.reports.page import MOST_ROWS, Column

COLUMNS = {"label": Column("member"), "model": Column("force field"), "state": Column("state", is_state=True)}


def member(number: int, **more: object) -> Member:
    return {"label": f"m{number}", "formula": "Cu", "model": "emt", "state": "finished", "failure": "", **more}


def test_of_many_members_the_failed_ones_come_first() -> None:
    count = 3 * MOST_ROWS
    rows = [member(i, state="failed" if i % 10 == 9 else "finished") for i in range(count)]
    table = members_table(rows, COLUMNS, of_all="All are in members.csv.")
    assert len(table.rows) == MOST_ROWS
    states = [row[-1] for row in table.rows]
    assert states == ["failed"] * (count // 10) + ["finished"] * (MOST_ROWS - count // 10)
    assert table.note == (
        f"{MOST_ROWS} of {count} members: failed ones and an even choice of the others. All are in members.csv."
    )


def test_empty_columns_and_a_single_force_field_are_left_out() -> None:
    columns = {**COLUMNS, "kappa": Column("κ", "W/m/K", ".3g"), "drift": Column("drift", "eV", ".3g")}
    rows = [member(0, kappa=1.0, drift=None), member(1, kappa=None, drift=float("nan"))]
    assert [column.title for column in members_table(rows, columns).columns] == ["member", "state", "κ"]


def test_failures_have_their_share_and_an_example() -> None:
    rows = [member(0), member(1, state="failed", failure="ImaginaryModesError", message="<b>soft</b>")]
    shares = {"ImaginaryModesError": {"members": 1, "value": 0.5, "low": 0.1, "high": 0.9}}
    table = failures_table(rows, shares)
    assert list(table.rows[0]) == ["ImaginaryModesError", 1, 50.0, "10 to 90", "m1 Cu", "<b>soft</b>"]


def test_bins_hold_every_number_of_every_force_field() -> None:
    numbers = np.random.default_rng(1).normal(size=50).tolist()
    rows = [member(i, value=number, model="emt" if i % 2 else "other") for i, number in enumerate(numbers)]
    chart = distribution_chart([*rows, member(99, value=None)], "value", Column("energy", "eV", ".3g"))
    assert chart is not None
    assert [sum(trace.y) for trace in chart.traces] == [25, 25]  # type: ignore[arg-type]
    assert chart.traces[0].x == chart.traces[1].x
    assert (chart.x.title, chart.x.unit) == ("energy", "eV")
    assert distribution_chart(rows[:1], "value", Column("energy")) is None


def test_values_of_a_benchmark_join_their_members() -> None:
    rows = [member(0), member(1)]
    materials = {("emt", "m0"): {"material": "m0", "state": "finished", "srme": 0.3, "reference_w_per_m_k": 5.0}}
    columns = joined(rows, materials)
    assert [(column.title, column.unit) for column in columns.values()] == [("SRME", ""), ("DFT", "W/m/K")]
    assert rows[0]["benchmark.srme"] == 0.3
    assert "benchmark.srme" not in rows[1]


@pytest.mark.parametrize("count", [0, 1])
def test_tables_of_few_members(count: int) -> None:
    assert len(members_table([member(i) for i in range(count)], COLUMNS).rows) == count

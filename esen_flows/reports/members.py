"""Tables and charts of many members, from rows as plain values."""

import csv
from collections.abc import Mapping, Sequence
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from esen_flows.reports.page import (
    MOST_ROWS,
    Axis,
    Cell,
    Chart,
    Column,
    Table,
    Trace,
    column_of,
    compact_table,
    spread,
    summary_column,
)
from esen_flows.schemas.property_entry import Property

Member = dict[str, Any]
_KEY_DIGITS = 12  # enough for `esen-flows show`
_MOST_BINS = 60
# Columns of members.csv beside those of the summary: title, unit, format.
_IDENTITY = {
    "label": Column("member"),
    "formula": Column("formula"),
    "nsites": Column("atoms", "", "d"),
    "model": Column("force field"),
    "state": Column("state", is_state=True),
    "failure": Column("failure"),
}
_COST = {
    "seconds": Column("computing time", "s", ".4g"),
    "force_evaluations": Column("force evaluations", "", "d"),
    "short_key": Column("key"),
    "message": Column("message"),
}


def read_members(path: Path, entry: Property) -> tuple[list[Member], dict[str, Column]]:
    """Members of a campaign from its table in a file.

    Parameters
    ----------
    path
        members.csv of a campaign's report.
    entry
        Property of the campaign.

    Returns
    -------
    tuple[list[Member], dict[str, Column]]
        Values of each member by column, and the columns that pages show.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows: list[Member] = list(csv.DictReader(file))
    numbers = {field.name for field in entry.summary if field.type == "number"} | {
        "nsites",
        "seconds",
        "force_evaluations",
    }
    for row in rows:
        for name in numbers:
            row[name] = _number(row[name])
        for field in entry.summary:
            if field.type == "boolean" and row[field.name]:
                row[field.name] = row[field.name] == "True"
        row["short_key"] = row["key"][:_KEY_DIGITS]
    example = next((row for row in rows if row["state"] == "finished"), {})
    summary = {field.name: summary_column(field, example) for field in entry.summary}
    return rows, {**_IDENTITY, **summary, **_COST}


def _number(text: str) -> Any:
    """A number of the table; a text that is none, as a list, stays what it is."""
    try:
        return float(text) if text else None
    except ValueError:
        return text


def members_table(rows: Sequence[Member], columns: Mapping[str, Column], title: str = "", of_all: str = "") -> Table:
    """The table of members, without columns that are empty.

    Of more members than a page can hold all failed ones come first, up to half of the rows, and then others evenly.

    Parameters
    ----------
    rows
        Values by column.
    columns
        Columns in their order.
    title
        Title of the table.
    of_all
        Where all members are, for a page that does not hold them.

    Returns
    -------
    Table
        The table.
    """
    chosen, note = list(rows), ""
    if len(rows) > MOST_ROWS:
        failed = [row for row in rows if row["state"] == "failed"]
        failed = [failed[i] for i in spread(len(failed), MOST_ROWS // 2)]
        others = [row for row in rows if row["state"] != "failed"]
        others = [others[i] for i in spread(len(others), MOST_ROWS - len(failed))]
        chosen = [*failed, *others]
        note = f"{len(chosen)} of {len(rows)} members: failed ones and an even choice of the others. {of_all}".strip()
    shown = {name: column for name, column in columns.items() if any(_is_there(row.get(name)) for row in chosen)}
    if len({row.get("model") for row in rows}) == 1:
        shown.pop("model", None)
    cells: list[list[Cell]] = [[row.get(name) for name in shown] for row in chosen]
    return Table(list(shown.values()), cells, title, note, is_searchable=True, lists_members=True)


def _is_there(value: Any) -> bool:
    return value is not None and value != "" and not (isinstance(value, float) and not isfinite(value))


def failures_table(rows: Sequence[Member], shares: Mapping[str, Mapping[str, Any]]) -> Table:
    """Classes of failures with an example of each.

    Parameters
    ----------
    rows
        Members.
    shares
        Number and share of the members that are done, by class.

    Returns
    -------
    Table
        The table.
    """
    examples: dict[str, Member] = {}
    for row in rows:
        if row["failure"]:
            examples.setdefault(row["failure"], row)
    cells = []
    for name, share in shares.items():
        example = examples.get(name, {})
        interval = f"{100 * share['low']:.3g} to {100 * share['high']:.3g}"
        named = " ".join(str(example[part]) for part in ("label", "formula") if example.get(part))
        value = None if share["value"] is None else 100 * share["value"]
        cells.append((name, share["members"], value, interval, named, example.get("message")))
    columns = (
        Column("class"), Column("members", "", "d"), Column("share of those done", "%", ".3g"),
        Column("95 % interval", "%"), Column("for example"), Column("its message"),
    )  # fmt: skip
    return compact_table(columns, cells)


def distribution_chart(rows: Sequence[Member], name: str, column: Column) -> Chart | None:
    """Histogram of a number by force field, in bins that all force fields share.

    Parameters
    ----------
    rows
        Members.
    name
        Name of the number.
    column
        Its title and unit.

    Returns
    -------
    Chart or None
        The chart; None with fewer than two numbers.
    """
    values = {
        model: np.array(
            [float(row[name]) for row in rows if row["model"] == model and isinstance(row.get(name), int | float)]
        )
        for model in dict.fromkeys(row["model"] for row in rows)
    }
    values = {model: found[np.isfinite(found)] for model, found in values.items()}
    together = np.concatenate([*values.values(), np.empty(0)])
    if len(together) < 2 or together.min() == together.max():
        return None
    most = max(map(len, values.values()))
    edges = np.linspace(together.min(), together.max(), min(_MOST_BINS, ceil(2 * most ** (1 / 3))) + 1)
    middles = ((edges[1:] + edges[:-1]) / 2).tolist()
    traces = [
        Trace(model, middles, np.histogram(found, edges)[0].tolist(), mode="bars", colour=colour)
        for colour, (model, found) in enumerate(values.items())
        if len(found)
    ]
    title = f"Distribution of {column.title}"
    return Chart(title, Axis(column.title, column.unit), Axis("members per bin"), traces)


def cost_chart(rows: Sequence[Member]) -> Chart | None:
    """Computing time of members against their size.

    Parameters
    ----------
    rows
        Members.

    Returns
    -------
    Chart or None
        The chart; None if no member took time.
    """
    traces = []
    for colour, model in enumerate(dict.fromkeys(row["model"] for row in rows)):
        found = [row for row in rows if row["model"] == model and row.get("seconds") and row.get("nsites")]
        if found:
            x, y = ([float(row[name]) for row in found] for name in ("nsites", "seconds"))
            traces.append(Trace(model, x, y, [member_label(row) for row in found], colour=colour))
    if not traces:
        return None
    axes = Axis("atoms in the input structure", logarithmic=True), Axis("computing time", "s", logarithmic=True)
    return Chart("Computing time of each member", *axes, traces)


def member_label(row: Member) -> str:
    """Name of a member beside its point in a chart.

    Parameters
    ----------
    row
        The member.

    Returns
    -------
    str
        Label and formula.
    """
    return " · ".join(str(row[part]) for part in ("label", "formula") if row.get(part))


def joined(rows: Sequence[Member], materials: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Column]:
    """Add a benchmark's values of each material to the members, and give the columns for them.

    Parameters
    ----------
    rows
        Members, which are changed.
    materials
        Values by force field and material.

    Returns
    -------
    dict[str, Column]
        Columns of the added values.
    """
    known = {"material", "state", "formula", "failure", "model", "unique_prototype", "subset", "atoms", "n_atoms"}
    columns: dict[str, Column] = {}
    for row in rows:
        for name, value in materials.get((row["model"], row["label"]), {}).items():
            if name not in known and isinstance(value, int | float | None) and not isinstance(value, bool):
                row[f"benchmark.{name}"] = value
                columns.setdefault(f"benchmark.{name}", column_of(name, ".4g"))
    return columns

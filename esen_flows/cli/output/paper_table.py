"""A table of the eSEN paper in the terminal, with campaigns in place."""

from collections.abc import Sequence

import typer
from rich.table import Table

from esen_flows.cli.output.json_output import print_json
from esen_flows.cli.output.tables import show
from esen_flows.metrics.paper_tables import paper_table
from esen_flows.metrics.published import OLD_RMSD_SCALE, LeaderboardRow


def print_paper_table(number: int, own: Sequence[LeaderboardRow], as_json: bool = False) -> None:
    """Print a table of the paper.

    Parameters
    ----------
    number
        Number of the table.
    own
        Rows of campaigns.
    as_json
        Whether JSON is printed, with the columns of the table alone.

    Raises
    ------
    InputError
        No number of the table is among our sources.
    """
    found = paper_table(number, own)
    if as_json:
        names = [name for name, _, _ in found.columns]
        rows = [
            {"model": row.key, "source": row.source, "metrics": {name: row.values.get(name) for name in names}}
            for row in found.rows
        ]
        print_json({"title": found.title, "rows": rows})
        return
    typer.echo(found.title)
    table = Table("model", *(title for _, title, _ in found.columns), box=None, padding=(0, 1, 0, 0))
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    table.columns[0].no_wrap = True
    remarks = []
    for row in found.rows:
        ours = row.source != "published"
        theirs, differing = found.deviations.get((row.source, row.key), (row, frozenset()))
        cells = []
        for name, _, form in found.columns:
            value = row.values.get(name)
            old = row.key in OLD_RMSD_SCALE and name == "rmsd_1e-2"
            mark = "!" if name in differing else "*" if old else ""
            cells.append("" if value is None else format(value, form) + mark)
        table.add_row(row.key + (" <" if ours else ""), *cells, style="bold" if ours else None)
        if ours and theirs is not row:
            remarks.append(f"! {row.key} ({row.source}) differs from the published {theirs.key} in these digits")
    show(table)
    if any(row.source != "published" for row in found.rows):
        remarks.insert(0, "< a force field of this database; materials without a result count as failed")
    if any(
        row.key in OLD_RMSD_SCALE and "rmsd_1e-2" in dict.fromkeys(n for n, _, _ in found.columns) for row in found.rows
    ):
        remarks.append("* RMSD on an older, smaller scale")
    for remark in remarks:
        typer.echo(remark)

"""`esen-flows leaderboard [correlation | score]`: published results of force fields, and what they depend on."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from esen_flows.cli.commands.leaderboard_score import score
from esen_flows.cli.output.benchmark_figure import FigureKind, draw_benchmark
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.paper_table import print_paper_table
from esen_flows.cli.output.tables import show
from esen_flows.cli.usage import UsageError
from esen_flows.errors import EsenFlowsError, StoreError
from esen_flows.metrics.correlations import QUANTITIES, error_correlations, error_pairs, passing
from esen_flows.metrics.paper_tables import counterpart
from esen_flows.metrics.published import OLD_RMSD_SCALE, LeaderboardRow, published_rows, ranked, with_scores
from esen_flows.schemas.card import list_cards, resolve_model

app = typer.Typer(
    help="Published results of force fields (Matbench Discovery, July 2026).", invoke_without_command=True
)
# Column, title, format.
_COLUMNS = (
    ("CPS", "CPS", ".3f"),
    ("unique_F1", "F1", ".3f"),
    ("unique_DAF", "DAF", ".2f"),
    ("unique_MAE", "MAE", ".3f"),
    ("κ_SRME", "κ SRME", ".3f"),
    ("rmsd_1e-2", "RMSD", ".3f"),
    ("CDS", "CDS", ".3f"),
    ("CMDS", "CMDS", ".3f"),
)
CompliantOption = Annotated[
    bool, typer.Option("--compliant", help="Only models trained on the Materials Project of 2022 (MPtrj) alone.")
]


@app.callback()
def leaderboard(
    context: typer.Context,
    sort: Annotated[str, typer.Option(help="Metric that orders the table, e.g. κ_SRME or unique_F1.")] = "CPS",
    rows: Annotated[int, typer.Option(min=1, help="Number of models to show.")] = 25,
    compliant: CompliantOption = False,
    superseded: Annotated[bool, typer.Option("--superseded", help="Show superseded and aborted models too.")] = False,
    campaigns: Annotated[
        list[str] | None, typer.Option("--with", help="A campaign with a benchmark, to put in place. Repeatable.")
    ] = None,
    as_json: JsonOption = False,
    paper_table: Annotated[
        int | None,
        typer.Option("--table", min=2, max=5, help="Show this table of the eSEN paper (arXiv 2502.12147) instead."),
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw a figure into this PNG file.")] = None,
    kind: Annotated[
        FigureKind,
        typer.Option(help="Figure: all models as points, or curves of the campaigns of --with and of --predictions."),
    ] = "models",
    predictions: Annotated[
        list[Path] | None,
        typer.Option(help="Formation energies for --kind, a file DATE-discovery.csv.gz. Repeatable."),
    ] = None,
) -> None:
    """Show published results, the best first.

    F1, DAF and MAE (eV/atom) are those of unique prototypes; the RMSD is in units of (volume per atom)^(1/3).
    """
    if context.invoked_subcommand is not None:
        return
    if kind != "models" or predictions:
        if figure is None or kind == "models":
            raise UsageError("--kind and --predictions belong to a figure: --figure roc.png --kind roc")
        print(draw_benchmark(kind, campaigns or (), predictions or (), figure))
        return
    if paper_table is not None:
        print_paper_table(paper_table, _own_rows(campaigns or ()), as_json)
        return
    chosen = [
        row for row in published_rows() if (row.compliant or not compliant) and (superseded or not row.superseded)
    ]
    best = ranked([*chosen, *_own_rows(campaigns or ())], sort)
    if figure is not None:
        print(_draw(best, figure))
    if as_json:
        print_json([_plain(row) for row in best[:rows]])
        return
    print_rows(best[:rows], sort)
    if len(best) > rows:
        print(f"{len(best) - rows} more models; show them with --rows {len(best)}")


def _own_rows(names: Sequence[str]) -> list[LeaderboardRow]:
    """Force fields of campaigns of this database; campaigns of one force field are one row."""
    if not names:
        return []
    from esen_flows.campaigns.benchmark import campaign_metrics
    from esen_flows.cli.store import open_store

    store = open_store()
    values: dict[str, dict[str, float]] = {}
    for name in names:
        for model in campaign_metrics(store, name):
            known = {name: value for name, value in model.with_missing_as_failed.items() if value is not None}
            if model.n_done < model.n_materials:
                done = f"{model.n_done:,} of {model.n_materials:,} materials"
                rest = "the rest counts as failed" if known else "the leaderboard takes all or none"
                print(f"{name}: {model.model} has {done}; {rest}", file=sys.stderr)
            values.setdefault(model.model, {}).update(known)
    return [_own_row(label, with_scores(found), ", ".join(names)) for label, found in values.items()]


def _own_row(label: str, values: dict[str, float], source: str) -> LeaderboardRow:
    conservative = resolve_model(label).conservative
    return LeaderboardRow(label, label, False, conservative, False, values, source)


def _plain(row: LeaderboardRow) -> dict[str, object]:
    return {
        "model": row.key,
        "name": row.name,
        "compliant": row.compliant,
        "conservative": row.conservative,
        "source": row.source,
        "metrics": row.values,
    }


def print_rows(rows: Sequence[LeaderboardRow], sort: str) -> None:
    """Print rows of the leaderboard as a table that fits 80 columns.

    Parameters
    ----------
    rows
        Rows in the order to print.
    sort
        Metric that orders them; it gets a column of its own unless it has one.
    """
    columns = list(_COLUMNS)
    if sort not in {name for name, _, _ in columns}:
        columns.insert(0, (sort, sort, ".4g"))
    # Without borders, so that eight numbers and a name fit 80 columns.
    table = Table("model", *(title for _, title, _ in columns), box=None, padding=(0, 1, 0, 0))
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    table.columns[0].no_wrap = True
    for row in rows:
        cells = []
        for name, _, form in columns:
            value = row.values.get(name)
            cells.append("" if value is None else format(value, form) + _mark(row, name))
        own = row.source != "published"
        table.add_row(row.key + (" <" if own else "" if row.compliant else " +"), *cells, style="bold" if own else None)
    show(table)
    remarks = []
    if any(row.source != "published" for row in rows):
        remarks.append("< a force field of this database")
    if any(not row.compliant and row.source == "published" for row in rows):
        remarks.append("+ trained on more than the Materials Project of 2022")
    if any(_mark(row, name) for row in rows for name in ("CPS", "rmsd_1e-2")):
        remarks.append("* RMSD on an older, smaller scale, which also raises CPS")
    for remark in remarks:
        print(remark)


def _mark(row: LeaderboardRow, name: str) -> str:
    return "*" if row.key in OLD_RMSD_SCALE and name in ("CPS", "rmsd_1e-2") else ""


def _draw(rows: Sequence[LeaderboardRow], path: Path) -> Path:
    from esen_flows.plots.leaderboard import ModelPoint, plot_models

    points = [
        ModelPoint(row.key, row.values["κ_SRME"], row.values["unique_F1"], row.conservative, row.source != "published")
        for row in rows
        if "κ_SRME" in row.values and "unique_F1" in row.values
    ]
    return plot_models(points, "κ SRME (lower is better)", "F1 of unique prototypes", path)


app.command()(score)


@app.command(name="correlation")
def correlate(
    error: Annotated[
        str,
        typer.Option(help="Test error: unique_MAE, md_force_rmse, ..., or one of stored evaluations: force_mae_..."),
    ] = "unique_MAE",
    compliant: CompliantOption = False,
    as_json: JsonOption = False,
    campaigns: Annotated[
        list[str] | None,
        typer.Option("--with", help="A campaign with a benchmark, whose models count too. Repeatable."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset of the stored evaluations, if there are several.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Also draw the error against --against into this PNG file.")
    ] = None,
    against: Annotated[str, typer.Option(help="Metric of the figure, e.g. κ_SRME or unique_F1.")] = "κ_SRME",
) -> None:
    """Show how strongly a test error goes with the quality of physical properties, over published and own models.

    The eSEN paper (arXiv 2502.12147) finds that the error tells the quality only among models that conserve energy.
    """
    own = _own_rows(campaigns or ())
    if own:
        own = _with_evaluations(own, dataset)
    # A metric that no model has is refused with the names of those that exist.
    rows = [row for row in ranked([*published_rows(), *own], error) if row.compliant or not compliant]
    forces = [row for row in rows if row.conservative is not None]
    audited = _audited(forces)
    groups = {"all with forces": forces, "conservative": passing(forces, audited)}
    found = {group: error_correlations(members, error) for group, members in groups.items()}
    if figure is not None:
        pairs = error_pairs(forces, error, against)
        print(_draw_pairs(pairs, error, against, figure))
    if as_json:
        print_json(found)
        return
    table = Table("models", f"{error} with", "n", "Pearson", "95 %", "Spearman", "95 %", box=None, padding=(0, 1, 0, 0))
    for group, each in found.items():
        for name, one in each.items():
            low, high = one.pearson_interval
            rank_low, rank_high = one.spearman_interval
            table.add_row(
                group, QUANTITIES[name], str(one.n), f"{one.pearson:.2f}", f"{low:.2f}..{high:.2f}",
                f"{one.spearman:.2f}", f"{rank_low:.2f}..{rank_high:.2f}",
            )  # fmt: skip
    for column in table.columns[2:]:
        column.justify = "right"
    show(table)
    if audited:
        words = ", ".join(f"{label} ({'passed' if passed else 'failed'})" for label, passed in audited.items())
        print(f"Conservativeness is measured by stored audits for {words}, and what the cards declare for the others.")
    else:
        print("Conservativeness is what the cards declare; no audit has measured it.")


def _audited(rows: Sequence[LeaderboardRow]) -> dict[str, bool]:
    """Whether models passed their audits, for those that have one in this database, under the names of their rows."""
    from esen_flows.campaigns.audits import verdicts_by_model
    from esen_flows.cli.store import existing_store

    try:
        store = existing_store()
        found = {} if store is None else verdicts_by_model(store)
    except StoreError as error:
        print(f"esen-flows: stored audits are not counted: {error}", file=sys.stderr)
        found = {}
    if not found:
        return {}
    own = {row.key: resolve_model(row.key).key for row in rows if row.source != "published"}
    audited = {label: found[key].passed for label, key in own.items() if key in found}
    published = [row for row in rows if row.source == "published"]
    for verdict in found.values():
        theirs = counterpart(verdict.model_label, published)
        # A file of the user may have the name of a published force field.
        if theirs is not None and _key_of_card(verdict.model_label) == verdict.model_key:
            audited[theirs.key] = verdict.passed
    return audited


def _key_of_card(name: str) -> str | None:
    """Key of the force field of a card; None if there is no such card, or it cannot be used on this machine."""
    try:
        return resolve_model(name).key if name in list_cards() else None
    except EsenFlowsError:
        return None


def _draw_pairs(rows: Sequence[LeaderboardRow], error: str, against: str, path: Path) -> Path:
    from esen_flows.plots.leaderboard import ModelPoint, plot_models

    points = [
        ModelPoint(row.key, row.values[error], row.values[against], row.conservative, row.source != "published")
        for row in rows
    ]
    return plot_models(points, error, QUANTITIES.get(against, against), path)


def _with_evaluations(rows: Sequence[LeaderboardRow], dataset: str | None) -> list[LeaderboardRow]:
    """Models of this database with the errors of their newest evaluations on one dataset."""
    from esen_flows.cli.store import open_store
    from esen_flows.store.queries.query import stream

    labels = {row.key for row in rows}
    stored = [each for each in stream(open_store(), "evaluation") if each.model_label in labels]
    names = sorted({str(each.summary["dataset_name"]) for each in stored})
    if dataset is None and len(names) > 1:
        raise UsageError(f"these models were evaluated on {', '.join(names)}; choose one by --dataset")
    if dataset is not None and dataset not in names:
        raise UsageError(f"--dataset {dataset}: none of these models was evaluated on it, but on {', '.join(names)}")
    errors: dict[str, dict[str, float]] = {}
    for each in sorted(stored, key=lambda one: one.created_at):
        if dataset in (None, each.summary["dataset_name"]):
            numbers = {name: value for name, value in each.summary.items() if isinstance(value, float)}
            errors.setdefault(each.model_label, {}).update(numbers)
    return [replace(row, values={**errors.get(row.key, {}), **row.values}) for row in rows]

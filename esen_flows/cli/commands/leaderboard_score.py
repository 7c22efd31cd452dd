"""`esen-flows leaderboard score`: the metrics of a submission from its files alone."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from esen_flows.cli.commands.campaign_submission import ReferenceOption
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.tables import show
from esen_flows.errors import InputError


def score(
    submission: Annotated[Path, typer.Argument(help="Folder with the files of a submission.")],
    folder: ReferenceOption = None,
    entries: Annotated[
        Path | None,
        typer.Option(help="Computed entries (JSON): also take hull distances from a phase diagram of them."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compute all metrics of a submission from its files; neither its card nor a database is read."""
    from esen_flows.campaigns.benchmark_geometry import dft_structures
    from esen_flows.campaigns.sources import reference_file
    from esen_flows.metrics.artefact_scores import hull_deviation, score_artefacts

    if not submission.is_dir():
        raise InputError(f"{submission} is no folder; name the one that `campaign submission` wrote")
    place = None if folder is None else str(folder)
    reference = partial(reference_file, folder=place)
    found = score_artefacts(submission, reference, partial(dft_structures, place))
    metrics = dict(found.metrics)
    if entries is not None:
        metrics["hull_deviation_ev_per_atom"] = hull_deviation(found, reference, entries)
    if as_json:
        print_json(metrics)
        return
    for task, path in found.files.items():
        typer.echo(f"{task}: {path}")
    table = Table("metric", "value", box=None)
    table.columns[1].justify = "right"
    for name, value in metrics.items():
        table.add_row(name, "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}")
    show(table)

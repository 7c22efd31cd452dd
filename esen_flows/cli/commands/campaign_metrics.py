"""`esen-flows campaign metrics`: the metrics of a campaign's benchmark, beside published ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from esen_flows.cli.options import CampaignArgument
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.progress import counted
from esen_flows.cli.output.tables import show
from esen_flows.cli.store import open_store
from esen_flows.errors import InputError

if TYPE_CHECKING:
    from esen_flows.campaigns.judged_models import JudgedModel
    from esen_flows.store.results import Store

_FORMATS = {"κ_failure_rate": ".1%", "imaginary_mode_rate": ".1%"}


def metrics(
    name: CampaignArgument,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of DFT's results. Default: that of the published structures.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write errors by material as CSV.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the metrics of the benchmark that a campaign belongs to, over what is done so far."""
    from esen_flows.campaigns.benchmark import campaign_metrics, plain_metrics, write_materials
    from esen_flows.store.campaigns import campaign_of, member_count

    store = open_store()
    with counted(f"reading {name}", member_count(store, name)) as advance:
        found = campaign_metrics(store, name, folder, advance)
    if as_json:
        print_json(plain_metrics(found))
    else:
        if description := campaign_of(store, name)["spec"]["description"]:
            typer.echo(description)
        for model in found:
            show(_table(model))
    if output is not None:
        typer.echo(f"wrote {write_materials(found, output)}")


def _table(model: "JudgedModel") -> Table:
    """Metrics in rows, because the discovery benchmark has more than forty."""
    table = Table("", f"{model.n_done:,} done", "95 %", f"{model.n_materials:,}, missing as failed", box=None)
    table.title = model.model
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for name, value in model.with_missing_as_failed.items():
        interval = model.intervals.get(name)
        text = "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
        table.add_row(name, _cell(name, model.done.get(name)), text, _cell(name, value))
    return table


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else format(value, _FORMATS.get(name, ".4f"))


def print_benchmark(store: "Store", name: str) -> None:
    """Print one line for each force field about the benchmark of a campaign, if it has one.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    """
    from esen_flows.campaigns.benchmark import benchmark_of, campaign_metrics
    from esen_flows.schemas.campaign import CampaignSpec
    from esen_flows.store.campaigns import campaign_of

    benchmark = benchmark_of(CampaignSpec.model_validate(campaign_of(store, name)["spec"]))
    if benchmark is None:
        return
    if benchmark in ("discovery", "mdr-phonons", "md"):  # too many members, or trajectories, for a look
        typer.echo(f"{benchmark}: esen-flows campaign metrics {name} judges what is done")
        return
    try:
        found = campaign_metrics(store, name)
    except InputError as error:
        typer.echo(f"{benchmark}: not judged, {error}")
        return
    for model in found:
        head = model.headline
        value = model.with_missing_as_failed[head]
        if value is None and model.done.get(head) is None:
            typer.echo(f"{benchmark}, {model.model}: nothing is done that can be judged")
            continue
        known = (
            "unknown while members are missing" if value is None else f"{value:.4f} with missing members as failures"
        )
        text = f"{benchmark}, {model.model}: {head} {known}"
        so_far = model.done.get(head)
        if so_far is not None and model.n_done < model.n_materials:
            low, high = model.intervals.get(head, (float("nan"), float("nan")))
            text += f", {so_far:.4f} ({low:.4f} to {high:.4f}) over {model.n_done:,} of {model.n_materials:,}"
        typer.echo(text)

"""`esen-flows campaign metrics`: the metrics of a campaign's benchmark, beside published ones."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from esen_flows.cli.options import CampaignArgument
from esen_flows.cli.output.progress import counted
from esen_flows.cli.store import open_store
from esen_flows.errors import InputError

if TYPE_CHECKING:
    from esen_flows.campaigns.benchmark import ModelMetrics
    from esen_flows.store.results import Store

_FORMATS = {"κ_failure_rate": ".1%", "imaginary_mode_rate": ".1%"}


def metrics(
    name: CampaignArgument,
    reference: Annotated[
        Path | None, typer.Option(help="File of DFT's results. Default: the one beside the published structures.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write errors by material as CSV.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show the metrics of the benchmark that a campaign belongs to, over what is done so far."""
    from esen_flows.campaigns.benchmark import campaign_metrics, plain_metrics, write_material_errors
    from esen_flows.store.campaigns import member_count

    store = open_store()
    with counted(f"reading {name}", member_count(store, name)) as advance:
        found = campaign_metrics(store, name, reference, advance)
    if as_json:
        typer.echo(json.dumps(plain_metrics(found), ensure_ascii=False, indent=1))
    else:
        Console().print(_table(found))
    if output is not None:
        typer.echo(f"wrote {write_material_errors(found, output)}", err=as_json)


def _table(found: "tuple[ModelMetrics, ...]") -> Table:
    names = tuple(found[0].with_missing_as_failed)
    table = Table("force field", "materials", *names, box=None, padding=(0, 1, 0, 0))
    for model in found:
        for label, values in (
            (f"{model.n_done} done", model.done),
            (f"{model.n_materials}, missing as failed", model.with_missing_as_failed),
        ):
            if values is not None:
                table.add_row(model.model, label, *(_cell(name, values[name]) for name in names))
    return table


def _cell(name: str, value: float | None) -> str:
    return "" if value is None else format(value, _FORMATS.get(name, ".4f"))


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
    try:
        found = campaign_metrics(store, name)
    except InputError as error:
        typer.echo(f"{benchmark}: not judged, {error}")
        return
    for model in found:
        all_of_them = model.with_missing_as_failed["κ_SRME"]
        text = f"{benchmark}, {model.model}: κ_SRME {all_of_them:.4f} with missing members as failures"
        if model.done is not None and model.n_done < model.n_materials:
            low, high = model.srme_interval or (float("nan"), float("nan"))
            text += f", {model.done['κ_SRME']:.4f} ({low:.4f} to {high:.4f}) over {model.n_done} of {model.n_materials}"
        typer.echo(text)

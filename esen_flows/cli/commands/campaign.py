"""`esen-flows campaign ...`: one property of many structures, from a YAML file to a queue and back."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table

from esen_flows.cli.commands import campaign_metrics, campaign_results, campaign_submission
from esen_flows.cli.options import CampaignArgument
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.tables import show
from esen_flows.cli.store import open_store
from esen_flows.cli.usage import UsageError
from esen_flows.errors import InputError

if TYPE_CHECKING:
    from esen_flows.campaigns.control import Submitted
    from esen_flows.campaigns.plan import Planned
    from esen_flows.campaigns.status import CampaignStatus

app = typer.Typer(
    help="Campaigns: one property of many structures, planned, submitted, watched and reported.",
    no_args_is_help=True,
)

SpecArgument = Annotated[
    str, typer.Argument(help="Specification: a YAML file, its folder, or the name of one in workflows/.")
]
SpecOrNameArgument = Annotated[
    str, typer.Argument(help="Specification (file, folder, or name in workflows/), or name of a planned campaign.")
]


def _check_device(device: str | None) -> str | None:
    from esen_flows.store.timings import DEVICE_KINDS

    if device is not None and device not in DEVICE_KINDS:
        raise InputError(f"--device is the device of the workers, cpu or cuda; got {device!r}")
    return device


WorkersOption = Annotated[
    str,
    typer.Option("--device", callback=_check_device, help="Device of the workers, cpu or cuda, to size the fireworks."),
]


PlanDeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", callback=_check_device, help="Device, cpu or cuda, whose hours are predicted, in both precisions."
    ),
]


SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out structures that cannot be read, instead of refusing the file.")
]


@app.command()
def plan(
    spec: SpecArgument,
    skip_bad: SkipBadOption = False,
    device: PlanDeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a specification, store its structures, and count what is stored already and what is pending."""
    planned = _plan(spec, skip_bad, device)
    if as_json:
        print_json(planned)
        return
    typer.echo(planned)
    typer.echo(f"next: esen-flows campaign submit {spec}{' --skip-bad' if skip_bad else ''}")


@app.command()
def submit(spec: SpecOrNameArgument, device: WorkersOption = "cpu", skip_bad: SkipBadOption = False) -> None:
    """Pack pending members into fireworks for workers; members that fireworks hold already are not added again."""
    from esen_flows.campaigns.spec import find_spec
    from esen_flows.store.campaigns import campaign_names, campaign_of

    name = spec
    try:
        find_spec(spec)
    except InputError:
        if spec not in campaign_names(open_store()):
            raise
        if skip_bad:
            raise UsageError(
                f"--skip-bad is for a specification; the campaign {spec!r} has its members already"
            ) from None
        for line in campaign_of(open_store(), name).get("warnings", ()):
            typer.echo(line)
    else:
        planned = _plan(spec, skip_bad)
        typer.echo(planned)
        name = planned.name
    _submit(name, device)


@app.command()
def status(
    name: CampaignArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Update until nothing is pending; Ctrl-C ends it.")] = False,
    interval: Annotated[float, typer.Option(min=0.5, help="Seconds between updates.")] = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Show the progress of a campaign: counts, failures, rates, time left."""
    from esen_flows.campaigns.status import campaign_status

    store = open_store()
    found = campaign_status(store, name)
    if as_json:
        print_json(found)
        return
    if not watch:
        for table in _status_tables(found):
            show(table)
        campaign_metrics.print_benchmark(store, name)
        return
    with Live(Group(*_status_tables(found)), refresh_per_second=2) as live:
        while found.pending:
            time.sleep(interval)
            found = campaign_status(store, name)
            live.update(Group(*_status_tables(found)))


@app.command("list")
def list_campaigns(as_json: JsonOption = False) -> None:
    """List all campaigns of this database."""
    from esen_flows.campaigns.status import campaign_status
    from esen_flows.store.campaigns import campaign_names

    store = open_store()
    campaigns = [campaign_status(store, name) for name in campaign_names(store)]
    if as_json:
        print_json(campaigns)
        return
    numbers = [Column(name, justify="right") for name in ("members", "finished", "failed", "pending")]
    table = Table("campaign", "property", "state", *numbers)
    for found in campaigns:
        counts = (found.members, found.finished, found.failed, found.pending)
        table.add_row(found.name, found.property, found.state, *map(str, counts))
    show(table)


@app.command()
def pause(name: CampaignArgument) -> None:
    """Hold a campaign: running processes finish their current work, and nothing new begins."""
    from esen_flows.campaigns import control

    waiting = control.pause(open_store(), name)
    typer.echo(f"paused; {waiting} fireworks wait. To continue: esen-flows campaign resume {name}")


@app.command()
def resume(name: CampaignArgument, device: WorkersOption = "cpu") -> None:
    """Continue a campaign that was paused or cancelled."""
    from esen_flows.campaigns import control

    _print_submitted(name, control.resume(open_store(), name, device))


@app.command()
def cancel(name: CampaignArgument) -> None:
    """Withdraw all work that has not begun; results stay."""
    from esen_flows.campaigns import control

    withdrawn = control.cancel(open_store(), name)
    typer.echo(
        f"cancelled; {withdrawn} fireworks withdrawn, results stay. To continue: esen-flows campaign resume {name}"
    )


@app.command()
def delete(name: CampaignArgument) -> None:
    """Delete a campaign, so that its name is free; results and structures stay."""
    from esen_flows.campaigns import control
    from esen_flows.store.campaigns import delete_campaign

    store = open_store()
    withdrawn = control.cancel(store, name)
    delete_campaign(store, name)
    typer.echo(f"deleted; {withdrawn} fireworks withdrawn, results and structures stay")


@app.command()
def retry(
    name: CampaignArgument,
    failed: Annotated[
        str | None, typer.Option(help="Class of the failures, such as NotConvergedError. Default: all.")
    ] = None,
    device: WorkersOption = "cpu",
) -> None:
    """Submit failed members again, even if their failures are final."""
    from esen_flows.campaigns import control

    count = control.retry(open_store(), name, failed)
    typer.echo(f"{count} members are pending again")
    if count:
        _submit(name, device)


@app.command()
@app.command("heal", hidden=True)  # the command's former name
def recover() -> None:
    """Make fireworks of ended processes and queue jobs ready again, those of campaigns and all others."""
    from esen_flows.queue.recover import recover as recover_lost_runs

    typer.echo(recover_lost_runs(open_store()))


for command in (
    campaign_metrics.metrics,
    campaign_results.report,
    campaign_results.diff,
    campaign_results.freeze,
    campaign_results.reproduce,
    campaign_submission.submission,
):
    app.command()(command)


def _plan(spec: str, skip_bad: bool, device: Any = None) -> "Planned":
    from esen_flows.campaigns.plan import plan as plan_campaign
    from esen_flows.campaigns.spec import find_spec, read_spec

    path = find_spec(spec)
    with Console(stderr=True).status("reading structures") as line:
        checked = read_spec(path)
        text = Path(path).read_text(encoding="utf-8")
        return plan_campaign(
            open_store(), checked, text, lambda done: line.update(f"{done} structures"),
            skip_bad=skip_bad, device=device,
        )  # fmt: skip


def _submit(name: str, device: str) -> None:
    from esen_flows.campaigns.control import submit_campaign

    _print_submitted(name, submit_campaign(open_store(), name, device))


def _print_submitted(name: str, submitted: "Submitted") -> None:
    typer.echo(submitted)
    if submitted.fireworks or submitted.on_their_way:
        typer.echo(
            "to run it on this machine: esen-flows worker; on a cluster: esen-flows launcher list\n"
            f"to watch it: esen-flows campaign status {name} --watch"
        )


def _status_tables(found: "CampaignStatus") -> list[Table]:
    counts = Table(title=f"{found.name}: {found.property}, {found.state}", show_header=False)
    for label in ("members", "finished", "failed", "pending"):
        counts.add_row(label, f"{getattr(found, label)}")
    for failure, number in found.failures.items():
        counts.add_row(f"  {failure}", f"{number}")
    share = found.failed_share
    if share.value is not None:
        counts.add_row("failed of those done", f"{share.value:.2%} (95 %: {share.low:.2%} to {share.high:.2%})")
    for mean in found.means:
        width = "" if mean.half_width is None else f" ± {mean.half_width:.2g}"
        counts.add_row(f"{found.answer}, {mean.model_label}", f"{mean.value:.5g}{width} (mean of {mean.members})")
    fireworks = ", ".join(f"{number} {state}" for state, number in found.fireworks.items()) or "none"
    counts.add_row("fireworks", fireworks)
    if found.lost_runs:
        counts.add_row("processes that died", f"{found.lost_runs}")
    counts.add_row("time left", _time_left(found))
    if not found.rates:
        return [counts]
    numbers = [Column(name, justify="right") for name in ("done", "materials/s", "atoms/s")]
    rates = Table("worker", "device", *numbers)
    for rate in found.rates:
        values = (f"{rate.done}", f"{rate.materials_per_second:.3g}", f"{rate.atoms_per_second:.3g}")
        rates.add_row(rate.worker, rate.device, *values)
    return [counts, rates]


def _time_left(found: "CampaignStatus") -> str:
    if found.pending == 0:
        return "done"
    if found.seconds_left is None:
        return "unknown: no worker is running" if not found.rates else "not known yet"
    minutes, seconds = divmod(int(found.seconds_left), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"

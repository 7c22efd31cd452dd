"""`esen-flows campaign ...`: one property of many structures, from a YAML file to a queue and back."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from esen_flows.cli.commands import campaign_results
from esen_flows.errors import InputError

if TYPE_CHECKING:
    from esen_flows.campaigns.control import Submitted
    from esen_flows.campaigns.plan import Planned
    from esen_flows.campaigns.status import CampaignStatus
    from esen_flows.store.results import Store

app = typer.Typer(
    help="Campaigns: one property of many structures, planned, submitted, watched and reported.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Of the campaign; `esen-flows campaign list` has them.")]
SpecOrName = Annotated[
    str, typer.Argument(help="Specification: a YAML file, its folder, a name in workflows/; or a planned campaign.")
]
Device = Annotated[str, typer.Option(help="What the workers have, cpu or cuda: how much goes into one firework.")]


@app.command()
def plan(spec: Annotated[str, typer.Argument(help="A YAML file, its folder, or a name in workflows/.")]) -> None:
    """Check a specification, store its structures, and tell what is there already and what is to be done."""
    _print_planned(_plan(spec))
    typer.echo(f"next: esen-flows campaign submit {spec}")


@app.command()
def submit(spec: SpecOrName, device: Device = "cpu") -> None:
    """Pack what is pending into fireworks for workers; what is on its way is not added again."""
    from esen_flows.campaigns.control import submit_campaign
    from esen_flows.campaigns.spec import find_spec
    from esen_flows.store.campaigns import campaign_names

    store = _store()
    _check_device(device)
    try:
        find_spec(spec)
    except InputError:
        if spec not in campaign_names(store):
            raise
        name = spec
    else:
        planned = _plan(spec)
        _print_planned(planned)
        name = planned.name
    _print_submitted(name, submit_campaign(store, name, device))


@app.command()
def status(
    name: Name,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until nothing is pending; Ctrl-C ends it.")] = False,
    interval: Annotated[float, typer.Option(min=0.5, help="Seconds between two looks.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """How far a campaign is: counts, failures, rates, time to go."""
    from esen_flows.campaigns.status import campaign_status

    store = _store()
    found = campaign_status(store, name)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    if not watch:
        Console().print(_shown(found))
        return
    with Live(_shown(found), refresh_per_second=2) as live:
        while found.pending:
            time.sleep(interval)
            found = campaign_status(store, name)
            live.update(_shown(found))


@app.command("list")
def list_campaigns() -> None:
    """All campaigns of this database."""
    from esen_flows.campaigns.status import campaign_status
    from esen_flows.store.campaigns import campaign_names

    store = _store()
    table = Table("campaign", "property", "state", "members", "finished", "failed", "pending")
    for name in campaign_names(store):
        found = campaign_status(store, name)
        numbers = (found.members, found.finished, found.failed, found.pending)
        table.add_row(name, found.property, found.state, *map(str, numbers))
    Console().print(table)


@app.command()
def pause(name: Name) -> None:
    """Hold a campaign: what runs ends what it is at, what has not begun waits."""
    from esen_flows.campaigns import control

    waiting = control.pause(_store(), name)
    typer.echo(f"paused; {waiting} fireworks wait. Go on with: esen-flows campaign resume {name}")


@app.command()
def resume(name: Name, device: Device = "cpu") -> None:
    """Go on with a campaign that was paused or cancelled."""
    from esen_flows.campaigns import control

    _check_device(device)
    _print_submitted(name, control.resume(_store(), name, device))


@app.command()
def cancel(name: Name) -> None:
    """Take back what has not begun; results stay."""
    from esen_flows.campaigns import control

    taken = control.cancel(_store(), name)
    typer.echo(f"cancelled; {taken} fireworks taken back, results stay. Go on with: esen-flows campaign resume {name}")


@app.command()
def delete(name: Name) -> None:
    """Forget a campaign, so that its name is free; results and structures stay."""
    from esen_flows.campaigns import control
    from esen_flows.store.campaigns import delete_campaign

    store = _store()
    taken = control.cancel(store, name)
    delete_campaign(store, name)
    typer.echo(f"deleted; {taken} fireworks taken back, results and structures stay")


@app.command()
def retry(
    name: Name,
    failed: Annotated[
        str | None, typer.Option(help="Class of the failures, such as NotConvergedError; otherwise all.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Try failed members again, whatever their failure said, and submit them."""
    from esen_flows.campaigns import control

    store = _store()
    _check_device(device)
    again = control.retry(store, name, failed)
    typer.echo(f"{again} members are pending again")
    if again:
        _print_submitted(name, control.submit_campaign(store, name, device))


@app.command()
@app.command("heal", hidden=True)  # the command's former name
def recover() -> None:
    """Make fireworks ready again whose process or queue job has ended, of all campaigns and other work."""
    from esen_flows.queue.recover import recover as recover_lost_runs

    typer.echo(recover_lost_runs(_store()))


campaign_results.register(app)


def _store() -> "Store":
    from esen_flows.store.connection import open_store

    return open_store()


def _check_device(device: str) -> None:
    from esen_flows.store.timings import DEVICE_KINDS

    if device not in DEVICE_KINDS:
        raise InputError(f"--device is what the workers have, cpu or cuda, got {device!r}")


def _plan(spec: str) -> "Planned":
    from esen_flows.campaigns.plan import plan as make_plan
    from esen_flows.campaigns.spec import find_spec, read_spec

    path = find_spec(spec)
    with Console(stderr=True).status("reading structures") as shown:

        def told(done: int) -> None:
            shown.update(f"{done} structures")

        return make_plan(_store(), read_spec(path), Path(path).read_text(encoding="utf-8"), told)


def _print_planned(planned: "Planned") -> None:
    typer.echo(planned)


def _print_submitted(name: str, submitted: "Submitted") -> None:
    typer.echo(submitted)
    if submitted.fireworks or submitted.on_their_way:
        typer.echo(
            "to run it on this machine: esen-flows worker; on a cluster: esen-flows launcher list\n"
            f"to see it: esen-flows campaign status {name} --watch"
        )


def _shown(found: "CampaignStatus") -> Group:
    """A status as people read it."""
    counts = Table(title=f"{found.name}: {found.property}, {found.state}", show_header=False)
    for label, number in (
        ("members", found.members), ("finished", found.finished), ("failed", found.failed), ("pending", found.pending),
    ):  # fmt: skip
        counts.add_row(label, f"{number}")
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
    counts.add_row("time to go", _time_to_go(found))
    if not found.rates:
        return Group(counts)
    rates = Table("worker", "device", "done", "materials/s", "atoms/s")
    for rate in found.rates:
        numbers = (f"{rate.done}", f"{rate.materials_per_second:.3g}", f"{rate.atoms_per_second:.3g}")
        rates.add_row(rate.worker, rate.device, *numbers)
    return Group(counts, rates)


def _time_to_go(found: "CampaignStatus") -> str:
    if found.pending == 0:
        return "done"
    if found.seconds_left is None:
        return "unknown: nobody is at work" if not found.rates else "unknown yet"
    minutes, seconds = divmod(int(found.seconds_left), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"

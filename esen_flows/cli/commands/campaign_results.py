"""`esen-flows campaign report | diff | freeze | reproduce`: the results of a campaign, for people and for programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from esen_flows.cli.commands import report as report_command
from esen_flows.cli.machine import tune_allocator
from esen_flows.cli.options import CampaignArgument
from esen_flows.cli.output.differences import members_content, print_difference, print_members
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.progress import counted, progress_bars
from esen_flows.cli.run_or_load import interruptible
from esen_flows.cli.store import open_store
from esen_flows.cli.usage import UsageError

if TYPE_CHECKING:
    from esen_flows.campaigns.member_differences import Tolerance
    from esen_flows.campaigns.reproduce import Reproduction
    from esen_flows.store.results import Store

FolderOption = Annotated[Path, typer.Option("--output", "-o", help="Folder to write to; it is made if needed.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="How many of the largest changes to print.")]


def report(
    name: CampaignArgument, output: report_command.FolderOption = None, against: report_command.AgainstOption = None
) -> None:
    """Write report.html, members.csv, summary.json, report.md and figures: the same as `esen-flows report NAME`."""
    report_command.write_report(name, output, against or [], "campaign")


def diff(
    old: Annotated[str, typer.Argument(help="Name of a campaign.")],
    new: Annotated[str, typer.Argument(help="Name of another campaign of the same property.")],
    form: Annotated[
        Literal["table", "json", "csv"], typer.Option("--format", help="table for people, the others for programs.")
    ] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    limit: LimitOption = 10,
    tolerance: Annotated[
        str | None, typer.Option(help="Largest accepted change: 0.01 in the unit, 0.1% of the old one, or 0.01,0.1%.")
    ] = None,
) -> None:
    """Compare two campaigns: settings that differ, materials that changed class, and the largest changes.

    With --tolerance the exit status is 1 if a number changed by more, a material changed class, or one is missing.
    """
    from esen_flows.campaigns.compare import compare_campaigns
    from esen_flows.campaigns.member_differences import Tolerance

    limits = Tolerance() if tolerance is None else _tolerance(tolerance)
    found = compare_campaigns(open_store(), old, new, limits, limit)
    print_difference(found, "json" if as_json else form)
    if tolerance is not None and not found.members.is_within:
        raise typer.Exit(1)


def freeze(
    name: CampaignArgument,
    output: FolderOption,
    partial: Annotated[bool, typer.Option("--partial", help="Freeze it even if members are pending.")] = False,
) -> None:
    """Write structures, keys, versions and numbers of a campaign to a folder that `reproduce` can start from."""
    from esen_flows.campaigns.freeze import freeze as write_manifest
    from esen_flows.campaigns.manifest import MANIFEST
    from esen_flows.store.campaigns import member_count

    store = open_store()
    with counted(f"freezing {name}", member_count(store, name)) as advance:
        manifest = write_manifest(store, name, output, partial=partial, on_member=advance)
    states = ", ".join(f"{count} {state}" for state, count in manifest.states.items())
    typer.echo(f"wrote {output / MANIFEST}: {manifest.members.count} members ({states})")
    typer.echo(f"to repeat it anywhere: esen-flows campaign reproduce {output} --here")


def reproduce(
    folder: Annotated[Path, typer.Argument(help="Folder of a frozen campaign, or its manifest.json.")],
    name: Annotated[str | None, typer.Option(help="Name of the campaign here. Default: the name it had.")] = None,
    here: Annotated[bool, typer.Option("--here", help="Compute in this process, without workers.")] = False,
    limit: LimitOption = 10,
    as_json: JsonOption = False,
) -> None:
    """Repeat a frozen campaign and compare the results with the frozen ones.

    The exit status is 0 if nothing differs and 1 if something does. Without --here the work is submitted; the same
    command compares once workers have done it. Stored results are not computed again.
    """
    from esen_flows.campaigns.manifest import MANIFEST
    from esen_flows.campaigns.reproduce import plan_reproduction
    from esen_flows.store.campaigns import member_count

    store = open_store()
    planned = plan_reproduction(store, folder.parent if folder.name == MANIFEST else folder, name)
    for remark in planned.remarks:
        typer.echo(f"different here: {remark}")
    if planned.other_keys:
        typer.echo("different here: the phonopy or phono3py version, so keys differ; numbers are compared")
    pending = member_count(store, planned.name, "pending")
    if pending and not here:
        _submit(store, planned, pending)
        return
    if pending:
        _compute(store, planned.name)
        left = member_count(store, planned.name, "pending")
        if left:
            typer.echo(f"{left} members are still pending: other processes compute them, or they failed temporarily")
            raise typer.Exit(1)
    _compare(store, planned, limit, as_json)


def _submit(store: "Store", planned: "Reproduction", pending: int) -> None:
    from esen_flows.campaigns.control import submit_campaign

    submitted = submit_campaign(store, planned.name)
    renamed = "" if planned.name == planned.manifest.campaign else f" --name {planned.name}"
    typer.echo(f"{pending} members are pending; {len(submitted.fireworks)} fireworks were added")
    typer.echo("run them: esen-flows worker")
    typer.echo(f"then compare: esen-flows campaign reproduce {planned.folder}{renamed}")


def _compute(store: "Store", name: str) -> None:
    from esen_flows.campaigns.reproduce import compute_here
    from esen_flows.store.campaigns import member_count

    tune_allocator()
    with interruptible(), progress_bars() as bars:
        task = bars.add_task(f"computing {name}", total=member_count(store, name))
        compute_here(store, name, lambda done: bars.update(task, completed=done))


def _compare(store: "Store", planned: "Reproduction", limit: int, as_json: bool) -> None:
    from esen_flows.campaigns.reproduce import compare_with_frozen, tolerance_of
    from esen_flows.schemas.campaign import answer_summary_field

    spec = planned.manifest.spec
    field = answer_summary_field(spec)
    tolerance, reason = tolerance_of(planned.manifest)
    found = compare_with_frozen(store, planned, limit)
    limits = [f"{tolerance.absolute:g} ({field})"] if tolerance.absolute else []
    limits += [f"{tolerance.relative:.1%} of {field}"] if tolerance.relative else []
    typer.echo(f"tolerance, {spec.dtype}: {' + '.join(limits)}: {reason}")
    print_members(found, field)
    if as_json:
        print_json({"campaign": planned.name, "field": field, "tolerance": tolerance, **members_content(found)})
    if not found.is_within:
        raise typer.Exit(1)
    typer.echo(f"reproduced: {found.matched} members, nothing differs by more than the tolerance")


def _tolerance(text: str) -> "Tolerance":
    from esen_flows.campaigns.member_differences import Tolerance

    absolute = relative = 0.0
    try:
        for part in text.split(","):
            if part.strip().endswith("%"):
                relative = float(part.strip().removesuffix("%")) / 100
            else:
                absolute = float(part)
    except ValueError:
        raise UsageError(f"--tolerance {text!r}: give a number, a percentage, or both, such as 0.01,0.1%") from None
    if not (absolute >= 0 and relative >= 0):
        raise UsageError(f"--tolerance {text!r}: it cannot be negative")
    return Tolerance(absolute, relative)

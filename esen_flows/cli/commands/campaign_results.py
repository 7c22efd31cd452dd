"""`esen-flows campaign report | diff | freeze | reproduce`: what came out, for people and for programs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from esen_flows.cli.overrides import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from esen_flows.campaigns.member_differences import Tolerance
    from esen_flows.campaigns.reproduce import Reproduction
    from esen_flows.store.results import Store

Name = Annotated[str, typer.Argument(help="Of the campaign; `esen-flows campaign list` has them.")]
Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder to write into; it is made if need be.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (report, diff, freeze, reproduce):
        app.command()(command)


def report(name: Name, output: Folder) -> None:
    """Write what came of every member (members.csv), in sum (summary.json), for people (report.md), and figures."""
    from esen_flows.campaigns.report import write_report
    from esen_flows.store.campaigns import member_count

    store = _store()
    with _bar(f"reading {name}", member_count(store, name)) as advance:
        files = write_report(store, name, output, on_member=advance)
    for file in files:
        typer.echo(f"wrote {file}")


def diff(
    old: Annotated[str, typer.Argument(help="A campaign.")],
    new: Annotated[str, typer.Argument(help="Another campaign of the same property.")],
    form: Annotated[
        Literal["table", "json", "csv"], typer.Option("--format", help="For people, or for programs.")
    ] = "table",
    most: Annotated[int, typer.Option("--limit", min=1, help="How many of the largest moves.")] = 10,
    tolerance: Annotated[
        str | None,
        typer.Option(
            help="Ends with 1 if a number moved by more: 0.01 in its unit, 0.1% of the old one, or 0.01,0.1%."
        ),
    ] = None,
) -> None:
    """Which settings of two campaigns differ, which materials changed class, and whose number moved most.

    With --tolerance it ends with 1 if a number moved by more, a material changed class, or one is missing.
    """
    from esen_flows.campaigns.compare import compare_campaigns
    from esen_flows.campaigns.member_differences import Tolerance
    from esen_flows.cli.output.differences import print_difference

    limits = Tolerance() if tolerance is None else _tolerance(tolerance)
    found = compare_campaigns(_store(), old, new, limits, most)
    print_difference(found, form)
    if tolerance is not None and not found.members.is_within:
        raise typer.Exit(1)


def freeze(
    name: Name,
    output: Folder,
    partial: Annotated[bool, typer.Option("--partial", help="Also while members are pending.")] = False,
) -> None:
    """Write a campaign with its structures, keys, versions and numbers into a folder that `reproduce` starts from."""
    from esen_flows.campaigns.freeze import freeze as write_manifest
    from esen_flows.campaigns.manifest import MANIFEST
    from esen_flows.store.campaigns import member_count

    store = _store()
    with _bar(f"freezing {name}", member_count(store, name)) as advance:
        manifest = write_manifest(store, name, output, partial=partial, on_member=advance)
    states = ", ".join(f"{count} {state}" for state, count in manifest.states.items())
    typer.echo(f"wrote {output / MANIFEST}: {manifest.members.count} members ({states})")
    typer.echo(f"to repeat it anywhere: esen-flows campaign reproduce {output} --here")


def reproduce(
    folder: Annotated[Path, typer.Argument(help="Folder of a frozen campaign, or its manifest.json.")],
    name: Annotated[str | None, typer.Option(help="Of the campaign here; otherwise the name that it had.")] = None,
    here: Annotated[bool, typer.Option("--here", help="Compute in this process, without workers.")] = False,
    most: Annotated[int, typer.Option("--limit", min=1, help="How many of the largest moves.")] = 10,
) -> None:
    """Repeat a frozen campaign, and compare with what came out then.

    Ends with 0 if nothing differs, with 1 if something does. Without --here it submits the work, and compares when it
    is called again after workers have done it. What is stored already is not computed again.
    """
    from esen_flows.campaigns.manifest import MANIFEST
    from esen_flows.campaigns.reproduce import plan_reproduction
    from esen_flows.store.campaigns import member_count

    store = _store()
    planned = plan_reproduction(store, folder.parent if folder.name == MANIFEST else folder, name)
    for remark in planned.remarks:
        typer.echo(f"here is different: {remark}")
    if planned.other_keys:
        typer.echo("here is different: phonopy or phono3py, so that the answers have other keys; numbers are compared")
    pending = member_count(store, planned.name, "pending")
    if pending and not here:
        _submit(store, planned, pending)
        return
    if pending:
        _compute(store, planned.name)
        left = member_count(store, planned.name, "pending")
        if left:
            typer.echo(f"{left} members are still pending: others are computing them, or they failed for a while")
            raise typer.Exit(1)
    _compare(store, planned, most)


def _submit(store: "Store", planned: "Reproduction", pending: int) -> None:
    from esen_flows.campaigns.control import submit_campaign

    submitted = submit_campaign(store, planned.name)
    renamed = "" if planned.name == planned.manifest.campaign else f" --name {planned.name}"
    typer.echo(f"{pending} members are pending; {len(submitted.fireworks)} fireworks were added")
    typer.echo("run them: esen-flows worker")
    typer.echo(f"then compare: esen-flows campaign reproduce {planned.folder}{renamed}")


def _compute(store: "Store", name: str) -> None:
    from esen_flows.campaigns.reproduce import compute_here
    from esen_flows.cli.documents import interruptible
    from esen_flows.cli.machine import tune_allocator
    from esen_flows.store.campaigns import member_count

    tune_allocator()
    total = member_count(store, name)
    with interruptible(), _progress() as shown:
        task = shown.add_task(f"computing {name}", total=total)
        compute_here(store, name, lambda done: shown.update(task, completed=done))


def _compare(store: "Store", planned: "Reproduction", most: int) -> None:
    from esen_flows.campaigns.reproduce import compare_with_frozen, tolerance_of
    from esen_flows.cli.output.differences import print_members
    from esen_flows.schemas.campaign import answer_summary_field

    spec = planned.manifest.spec
    field = answer_summary_field(spec)
    tolerance, reason = tolerance_of(planned.manifest)
    found = compare_with_frozen(store, planned, most)
    limits = [f"{tolerance.absolute:g} ({field})"] if tolerance.absolute else []
    limits += [f"{tolerance.relative:.1%} of {field}"] if tolerance.relative else []
    typer.echo(f"tolerance, {spec.dtype}: {' + '.join(limits)}: {reason}")
    print_members(found, field)
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


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


@contextmanager
def _bar(words: str, total: int) -> "Iterator[Callable[[], None]]":
    """A progress bar on stderr; what it gives is called for each member."""
    with _progress() as shown:
        task = shown.add_task(words, total=total)
        yield lambda: shown.advance(task)


def _store() -> "Store":
    from esen_flows.store.connection import open_store

    return open_store()

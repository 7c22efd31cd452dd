"""`esen-flows db init | size | gc | verify | migrate | export | import`: looking after the database."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.table import Table

from esen_flows.errors import InputError, StoreError

if TYPE_CHECKING:
    from esen_flows.schemas.documents import Kind
    from esen_flows.store.queries.selection import Filters
    from esen_flows.store.results import Store

_SHOWN = 20  # problems; the rest is counted
_MEGA = 1e6

ApplyOption = Annotated[bool, typer.Option("--apply", help="Do it; without this, only tell what would be done.")]
KindOption = Annotated[
    str | None, typer.Option(help="Only results of this kind (relax, forces, phonon, conductivity or kappa, ...).")
]
FilterOption = Annotated[str | None, typer.Option(help="As in esen-flows query.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the group `db`."""
    app.command("init")(init)
    app.command("size")(size)
    app.command("gc")(gc)
    app.command("verify")(verify)
    app.command("migrate")(migrate)
    app.command("export")(export)
    app.command("import")(import_)


def init(folder: Annotated[Path, typer.Argument(help="Where to write them; made if need be.")]) -> None:
    """Write jobflow.yaml, my_launchpad.yaml and my_fworker.yaml, so that other Makers store in the same database."""
    from esen_flows.store.jobflow_files import write_jobflow_files

    store = _open()
    jobflow, launchpad, worker = (path.resolve() for path in write_jobflow_files(store.database, folder))
    typer.echo(f"written, readable by you alone because they may hold a password:\n  {jobflow}\n  {launchpad}")
    typer.echo(f"  {worker}\nto use them:\n  export JOBFLOW_CONFIG_FILE={jobflow}")
    typer.echo(f"  lpad -l {launchpad} reset   # once, unless flows were submitted: it deletes them")
    typer.echo(f"  rlaunch -l {launchpad} -w {worker} rapidfire")
    if store.database.lease is not None:
        typer.echo(
            "This database is your private server, which stops when no esen-flows process has used it for a while. "
            "Before other programs use it, start it for long enough, and on this machine:\n"
            "  ESEN_FLOWS_MONGOD_IDLE_SECONDS=86400 esen-flows db start"
        )


def size() -> None:
    """Show what the database takes on disk."""
    from esen_flows.store.upkeep.maintenance import size as sizes

    table = Table("collection", "documents", "data MB", "on disk MB", "indexes MB")
    found = sizes(_open().database)
    for one in found:
        values = (one.data_bytes, one.disk_bytes, one.index_bytes)
        table.add_row(one.name, str(one.documents), *(f"{value / _MEGA:.2f}" for value in values))
    total = sum(one.disk_bytes + one.index_bytes for one in found)
    table.caption = f"{total / _MEGA:.2f} MB on disk with indexes, without the server's journal"
    Console().print(table)


def gc(apply: ApplyOption = False) -> None:
    """Remove superseded attempts and arrays that no result names; safe while others write."""
    from esen_flows.store.upkeep.maintenance import collect_garbage

    found = collect_garbage(_open(), apply=apply)
    typer.echo(
        f"{'removed' if apply else 'would remove'} {found.attempts} superseded attempts, {found.blobs} arrays "
        f"({found.blob_bytes / _MEGA:.2f} MB), {found.chunks} pieces that dead writers left"
    )
    if not apply and found.attempts + found.blobs + found.chunks:
        typer.echo("nothing was changed; to remove them: esen-flows db gc --apply")


def verify() -> None:
    """Read everything: documents are readable, references resolve, keys and checksums hold."""
    from esen_flows.store.upkeep.verify import verify as check

    report = check(_open())
    counts = ", ".join(f"{report.checked[name]} {name}" for name in ("results", "structures", "arrays"))
    if report.problems:
        shown = "\n".join(f"  {problem}" for problem in report.problems[:_SHOWN])
        more = f"\n  ... and {len(report.problems) - _SHOWN} more" if len(report.problems) > _SHOWN else ""
        raise StoreError(f"{len(report.problems)} problems in {counts}:\n{shown}{more}")
    typer.echo(f"{counts}: all whole")


def migrate(apply: ApplyOption = False) -> None:
    """Rewrite documents of older versions in the form of this one; they can be read without that too."""
    from esen_flows.store.migrations import migrate as rewrite

    reports = rewrite(_open().database, apply=apply)
    for report in reports:
        older = sum(report.older.values())
        versions = "".join(f", {count} of version {version}" for version, count in report.older.items())
        typer.echo(f"{report.collection}: {report.current} of the current version{versions}")
        if apply and older:
            typer.echo(f"  {report.migrated} rewritten")
    newer = sum(sum(report.newer.values()) for report in reports)
    if newer:
        raise StoreError(f"{newer} documents were written by a newer version of esen_flows and left alone; upgrade it")
    if not apply and any(report.older for report in reports):
        typer.echo("nothing was changed; to rewrite them: esen-flows db migrate --apply")


def export(
    file: Annotated[Path, typer.Argument(help="A new file, such as results.tar.")],
    kind: KindOption = None,
    chemsys: FilterOption = None,
    formula: FilterOption = None,
    elements: FilterOption = None,
    spacegroup: FilterOption = None,
    model: FilterOption = None,
    campaign: FilterOption = None,
    where: Annotated[str | None, typer.Option(help="As in esen-flows query; needs --kind.")] = None,
) -> None:
    """Write results, their structures and arrays into one archive: all of them, a campaign's, or those of a query."""
    from esen_flows.store.exchange.transfer import export_archive

    filters: Filters = {
        "chemsys": chemsys,
        "formula": formula,
        "elements": elements.replace(",", " ").split() if elements else None,
        "spacegroup": spacegroup,
        "model": model,
        "campaign": campaign,
        "where": where,
    }
    if kind is None and where is not None:
        raise InputError("say which results --where is about: --kind relax, --kind conductivity, ...")
    store = _open()
    chosen = kind is not None or any(value is not None for value in filters.values())
    keys = _keys(store, "conductivity" if kind == "kappa" else kind, filters) if chosen else None
    done = export_archive(store, file, keys)
    typer.echo(f"{done.results} results, {done.structures} structures, {done.arrays} large arrays in {file}")


def import_(file: Annotated[Path, typer.Argument(help="From esen-flows db export.")]) -> None:
    """Add what an archive holds and the database does not; doing it twice changes nothing."""
    from esen_flows.store.exchange.transfer import import_archive

    done = import_archive(_open(), file)
    typer.echo(f"added {done.results} results, {done.structures} structures, {done.arrays} large arrays")


def _open() -> "Store":
    from esen_flows.store.connection import open_store

    return open_store()


def _keys(store: "Store", kind: str | None, filters: "Filters") -> Iterator[str]:
    from esen_flows.store.queries.fields import KINDS
    from esen_flows.store.queries.query import stream

    kinds = KINDS if kind is None else (kind,)
    found = [stream(store, cast("Kind", name), **filters) for name in kinds]
    return (document.key for document in chain.from_iterable(found))

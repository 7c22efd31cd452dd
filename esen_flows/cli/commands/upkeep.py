"""`esen-flows db init | size | gc | verify | migrate | export | import | ingest`: upkeep of the database."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from esen_flows.cli import options
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.tables import show
from esen_flows.cli.store import open_store
from esen_flows.cli.usage import split_names
from esen_flows.errors import InputError, StoreError
from esen_flows.schemas.properties import PROPERTIES, Kind
from esen_flows.schemas.property_lookup import kind_named

if TYPE_CHECKING:
    from esen_flows.store.queries.selection import Filters
    from esen_flows.store.results import Store

_MEGA = 1e6

ApplyOption = Annotated[bool, typer.Option("--apply", help="Make the changes; otherwise they are only counted.")]
KindOption = Annotated[str | None, typer.Option(help=f"Only results of this kind: {', '.join(PROPERTIES)}.")]


def init(folder: Annotated[Path, typer.Argument(help="Folder to write to; it is made if needed.")]) -> None:
    """Write jobflow.yaml, my_launchpad.yaml and my_fworker.yaml, so that other Makers use the same database."""
    from esen_flows.store.jobflow_files import write_jobflow_files

    database = open_store().database
    jobflow, launchpad, worker = (path.resolve() for path in write_jobflow_files(database, folder))
    typer.echo(
        "written, readable by you alone because they may hold a password:\n"
        f"  {jobflow}\n  {launchpad}\n  {worker}\n"
        "to use them:\n"
        f"  export JOBFLOW_CONFIG_FILE={jobflow}\n"
        f"  lpad -l {launchpad} reset   # once, and only before flows are submitted: it deletes them\n"
        f"  rlaunch -l {launchpad} -w {worker} rapidfire"
    )
    if database.lease is not None:
        typer.echo(
            "This database is your private server, which stops when no esen-flows process has used it for a while. "
            "Before other programs use it, start it on this machine for long enough:\n"
            "  ESEN_FLOWS_MONGOD_IDLE_SECONDS=86400 esen-flows db start"
        )


def size(as_json: JsonOption = False) -> None:
    """Show how much disk space the database uses."""
    from esen_flows.store.upkeep.maintenance import size as sizes

    collections = sizes(open_store().database)
    if as_json:
        print_json(collections)
        return
    numbers = [Column(name, justify="right") for name in ("documents", "data MB", "on disk MB", "indexes MB")]
    table = Table("collection", *numbers)
    for one in collections:
        values = (one.data_bytes, one.disk_bytes, one.index_bytes)
        table.add_row(one.name, str(one.documents), *(f"{value / _MEGA:.2f}" for value in values))
    total = sum(one.disk_bytes + one.index_bytes for one in collections)
    table.caption = f"{total / _MEGA:.2f} MB on disk with indexes, without the server's journal"
    show(table)


def gc(apply: ApplyOption = False) -> None:
    """Remove superseded attempts and arrays that no result names; safe while others write."""
    from esen_flows.store.upkeep.maintenance import collect_garbage

    found = collect_garbage(open_store(), apply=apply)
    typer.echo(
        f"{'removed' if apply else 'would remove'} {found.attempts} superseded attempts, {found.blobs} arrays "
        f"({found.blob_bytes / _MEGA:.2f} MB), {found.chunks} pieces of arrays whose writers were killed"
    )
    if not apply and found.attempts + found.blobs + found.chunks:
        typer.echo("nothing was changed; to remove them: esen-flows db gc --apply")


def verify(as_json: JsonOption = False) -> None:
    """Read everything and check that documents are readable, references resolve, keys and checksums are right."""
    from esen_flows.store.upkeep.verify import verify as check

    report = check(open_store())
    if as_json:
        print_json({"checked": report.checked, "problems": [str(problem) for problem in report.problems]})
    counts = ", ".join(f"{report.checked[name]} {name}" for name in ("results", "structures", "arrays"))
    if report.problems:
        problems = [f"  {problem}" for problem in report.problems]
        raise StoreError(f"{len(problems)} problems in {counts}:\n{_first(problems, 20, '  ')}")
    typer.echo(f"{counts}: no problems")


def migrate(apply: ApplyOption = False) -> None:
    """Rewrite documents of older versions in the form of this one, which can also read them as they are."""
    from esen_flows.store.migrations import migrate as rewrite

    reports = rewrite(open_store().database, apply=apply)
    for report in reports:
        versions = "".join(f", {count} of version {version}" for version, count in report.older.items())
        typer.echo(f"{report.collection}: {report.current} of the current version{versions}")
        if apply and any(report.older.values()):
            typer.echo(f"  {report.migrated} rewritten")
    newer = sum(sum(report.newer.values()) for report in reports)
    if newer:
        raise StoreError(f"{newer} documents were written by a newer version of esen_flows and left alone; upgrade it")
    if not apply and any(report.older for report in reports):
        typer.echo("nothing was changed; to rewrite them: esen-flows db migrate --apply")


def export(
    file: Annotated[Path, typer.Argument(help="New file, such as results.tar.")],
    kind: KindOption = None,
    chemsys: options.ChemsysOption = None,
    formula: options.FormulaOption = None,
    elements: options.ElementsOption = None,
    spacegroup: options.SpacegroupOption = None,
    model: options.LabelOption = None,
    campaign: options.CampaignOption = None,
    where: Annotated[str | None, typer.Option(help="Condition as of esen-flows query; needs --kind.")] = None,
) -> None:
    """Write results with their structures and arrays to one archive: all of them, or those that the options select."""
    from esen_flows.store.exchange.transfer import export_archive

    filters: Filters = {
        "chemsys": chemsys,
        "formula": formula,
        "elements": split_names(elements),
        "spacegroup": spacegroup,
        "model": model,
        "campaign": campaign,
        "where": where,
    }
    if kind is None and where is not None:
        raise InputError("say which results --where is about: --kind relax, --kind phonon, ...")
    store = open_store()
    selects = kind is not None or any(value is not None for value in filters.values())
    keys = _keys(store, None if kind is None else kind_named(kind), filters) if selects else None
    done = export_archive(store, file, keys)
    typer.echo(f"{done.results} results, {done.structures} structures, {done.arrays} large arrays in {file}")


def import_(file: Annotated[Path, typer.Argument(help="Archive of esen-flows db export.")]) -> None:
    """Add the results of an archive that the database does not have; a second import changes nothing."""
    from esen_flows.store.exchange.transfer import import_archive

    done = import_archive(open_store(), file)
    typer.echo(f"added {done.results} results, {done.structures} structures, {done.arrays} large arrays")


def ingest(folder: Annotated[Path, typer.Argument(help="A spool folder, or a folder of several.")]) -> None:
    """Add results that were spooled without a server to the database; a second ingest changes nothing."""
    from esen_flows.store.exchange.ingest import ingest as merge

    done = merge(open_store(), folder)
    counts = done.counts
    typer.echo(
        f"{counts['new']} results added, {counts['known']} were stored already; "
        f"{counts['structures']} structures; {folder} is unchanged"
    )
    for place in done.truncated:
        typer.echo(
            f"cut off: {place}; its process was killed while writing, so this result will be computed again on request "
            "(if this folder is a copy, copy it again)",
            err=True,
        )
    if done.damaged:
        raise StoreError(
            f"{len(done.damaged)} damaged records were not added, all others were; copy the folder again from where "
            f"it was written, or compute these results again:\n{_first(done.damaged, 5)}"
        )


def _first(lines: Sequence[str], most: int, indent: str = "") -> str:
    """The first lines, and the number of the others."""
    more = [f"{indent}... and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([*lines[:most], *more])


def _keys(store: "Store", kind: Kind | None, filters: "Filters") -> Iterator[str]:
    from esen_flows.store.queries.query import stream

    kinds = PROPERTIES if kind is None else (kind,)
    found = [stream(store, name, **filters) for name in kinds]
    return (document.key for document in chain.from_iterable(found))

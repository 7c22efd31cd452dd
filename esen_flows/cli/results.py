"""`esen-flows show KEY` and `esen-flows query KIND`: what is stored. Nothing is computed, no torch."""

import csv
import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from esen_flows.errors import InputError
from esen_flows.schemas.documents import Kind, ResultDocument

KindOrKappa = Literal["relax", "forces", "phonon", "conductivity", "kappa"]
Format = Literal["table", "json", "csv"]
# The summary fields that a table of each kind has room for; json and csv give all.
COLUMNS: dict[str, tuple[str, ...]] = {
    "relax": ("energy_per_atom_ev", "volume_per_atom_angstrom3", "a_angstrom", "n_steps"),
    "forces": ("displacements_fc2", "displacements_fc3", "parity_averaged"),
    "phonon": ("verdict", "max_frequency_thz", "min_frequency_thz"),
    "conductivity": ("kappa_rta_w_per_m_k", "kappa_wigner_w_per_m_k", "temperature_kelvin", "mesh"),
}
KeyArgument = Annotated[str, typer.Argument(help="A result key or the first four or more of its digits.")]
ElementsOption = Annotated[str | None, typer.Option(help="At least these elements: Si,O.")]
SpacegroupOption = Annotated[str | None, typer.Option(help="Number or symbol: 227 or Fd-3m.")]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How to print.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("show")(show)
    app.command("query")(query)


def show(key: KeyArgument, form: Annotated[Literal["table", "json"], typer.Option("--format", "-f")] = "table") -> None:
    """Show one stored result."""
    from esen_flows.store.connection import open_store
    from esen_flows.store.query import find_by_prefix

    found = find_by_prefix(open_store(), key)
    if not found:
        raise InputError(f"no result with a key that begins with {key!r}; list some with: esen-flows query KIND")
    if len(found) > 1:
        keys = ", ".join(document.key[: len(key) + 6] for document in found)
        raise InputError(f"{key!r} begins the keys of several results ({keys}); give more digits")
    if form == "json":
        typer.echo(json.dumps(plain(found[0]), indent=1))
        return
    _show(found[0])


def query(
    kind: Annotated[KindOrKappa, typer.Argument(help="Which kind of result; kappa is conductivity.")],
    chemsys: Annotated[str | None, typer.Option(help="Exactly these elements: Ga-As.")] = None,
    formula: Annotated[str | None, typer.Option(help="Formula: GaAs.")] = None,
    elements: ElementsOption = None,
    spacegroup: SpacegroupOption = None,
    model: Annotated[str | None, typer.Option(help="Label or key of the force field.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="The failed ones instead.")] = False,
    sort: Annotated[str | None, typer.Option(help="A field or summary value, - before it for descending.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    form: FormatOption = "table",
) -> None:
    """List stored results, newest first."""
    from esen_flows.store.connection import open_store
    from esen_flows.store.query import query as search

    sought: Kind = "conductivity" if kind == "kappa" else kind
    found = search(
        open_store(),
        sought,
        chemsys=chemsys,
        formula=formula,
        elements=elements.replace(",", " ").split() if elements else None,
        spacegroup=spacegroup,
        model=model,
        failed=failed,
        sort=sort,
        limit=limit,
    )
    if form == "json":
        typer.echo(json.dumps([plain(document) for document in found], indent=1))
    elif form == "csv":
        _print_csv(found)
    else:
        Console().print(_table(sought, found))


def plain(document: ResultDocument) -> dict[str, Any]:
    """A document as JSON-able values, without its arrays."""
    return document.model_dump(mode="json", exclude={"output", "schema_version"})


def _show(document: ResultDocument) -> None:
    from esen_flows.cli.report import print_report

    if document.failure is None:
        print_report([document])
        return
    out = Console()
    out.print(f"{document.formula}: {document.kind} by {document.model_label} failed", highlight=False)
    out.print(f"{document.failure.error}: {document.failure.message}", highlight=False, soft_wrap=True, markup=False)
    out.print("final: asking again changes nothing" if document.failure.final else "not final: ask again")
    out.print(f"key      {document.key}", highlight=False, soft_wrap=True)


def _table(kind: str, documents: Sequence[ResultDocument]) -> Table:
    table = Table(caption=None if documents else "nothing found")
    names = ("error", "message") if any(document.failure for document in documents) else COLUMNS[kind]
    for heading in ("key", "formula", "space group", "model", *names, "created"):
        table.add_column(heading)
    for document in documents:
        values = [_text(document.summary.get(name)) for name in names]
        if document.failure:
            values = [document.failure.error, document.failure.message]
        table.add_row(
            document.key[:12],
            document.formula,
            document.space_group_symbol or "",
            document.model_label,
            *values,
            f"{document.created_at:%Y-%m-%d %H:%M}",
        )
    return table


def _print_csv(documents: Sequence[ResultDocument]) -> None:
    fixed = ("key", "formula", "chemsys", "nsites", "space_group_number", "model_label", "state", "created_at")
    summary = sorted({name for document in documents for name in document.summary})
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*fixed, *summary])
    for document in documents:
        values = plain(document)
        writer.writerow([*(values[name] for name in fixed), *(document.summary.get(name) for name in summary)])


def _text(value: float | int | str | bool | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

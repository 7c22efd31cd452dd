"""`esen-flows show KEY` and `esen-flows query KIND`: what is stored. Nothing is computed, no torch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from esen_flows.cli.overrides import UsageError
from esen_flows.errors import InputError
from esen_flows.schemas.documents import ResultDocument

if TYPE_CHECKING:
    from ase import Atoms

    from esen_flows.store.queries.tables import Found
    from esen_flows.store.results import Store

Queried = Literal[
    "relax", "static", "forces", "phonon", "conductivity", "kappa", "stability", "md", "labelling", "training",
    "evaluation", "structures",
]  # fmt: skip
Format = Literal["table", "csv", "json", "jsonl", "extxyz", "cif"]
TABLE_ROWS = 50
KeyArgument = Annotated[str, typer.Argument(help="A result key or the first four or more of its digits.")]
KindArgument = Annotated[Queried, typer.Argument(help="Which kind of result; kappa is conductivity.")]
ElementsOption = Annotated[str | None, typer.Option(help="At least these elements: Si,O.")]
SpacegroupOption = Annotated[str | None, typer.Option(help="Number or symbol of the input structure: 227 or Fd-3m.")]
WhereOption = Annotated[
    str | None, typer.Option(help="Condition: \"kappa_300K > 10 and not (nsites > 8 or formula == 'GaAs')\".")
]
SortOption = Annotated[str | None, typer.Option(help="A name as in --where, - before it for descending.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="At most so many.  [default: 50 in a table, else all]")]
ColumnsOption = Annotated[
    str | None, typer.Option(help="Names as in --where, with commas between: key,formula,kappa_300K.")
]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How to print; extxyz and cif are structures.")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="File to write; for cif a folder.")]
StructureOption = Annotated[
    Literal["computed", "input"], typer.Option(help="For extxyz and cif: the relaxed structure or the one asked about.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("show")(show)
    app.command("query")(query)


def show(key: KeyArgument, form: Annotated[Literal["table", "json"], typer.Option("--format", "-f")] = "table") -> None:
    """Show one stored result."""
    from esen_flows.cli.output.listing import plain
    from esen_flows.store.connection import open_store
    from esen_flows.store.models import stored_model

    store = open_store()
    document = one_result(store, key)
    if form == "json":
        force_field = stored_model(store.database, document.model_key)
        typer.echo(json.dumps({**plain(document), "model": force_field}, indent=1))
        return
    _show(document)


def one_result(store: "Store", key: str, load_arrays: bool = False) -> ResultDocument:
    """The only result whose key begins like this.

    Raises
    ------
    InputError
        there is none, there are several, or these are no digits of a key.
    """
    from esen_flows.store.queries.query import find_by_prefix

    found = find_by_prefix(store, key)
    if not found:
        raise InputError(f"no result with a key that begins with {key!r}; list some with: esen-flows query KIND")
    if len(found) > 1:
        keys = ", ".join(document.key[: len(key) + 6] for document in found)
        raise InputError(f"{key!r} begins the keys of several results ({keys}); give more digits")
    complete = store.get(found[0].key) if load_arrays else None
    return complete or found[0]


def query(
    kind: KindArgument,
    chemsys: Annotated[str | None, typer.Option(help="Exactly these elements: Ga-As.")] = None,
    formula: Annotated[str | None, typer.Option(help="Formula: GaAs.")] = None,
    elements: ElementsOption = None,
    spacegroup: SpacegroupOption = None,
    model: Annotated[str | None, typer.Option(help="Label or key of the force field.")] = None,
    campaign: Annotated[str | None, typer.Option(help="Name of a campaign: what is tagged with it.")] = None,
    where: WhereOption = None,
    failed: Annotated[bool, typer.Option("--failed", help="The failed ones instead.")] = False,
    sort: SortOption = None,
    limit: LimitOption = None,
    columns: ColumnsOption = None,
    form: FormatOption = "table",
    output: OutputOption = None,
    structure: StructureOption = "computed",
) -> None:
    """List stored results, newest first, or write them and their structures."""
    sought = "conductivity" if kind == "kappa" else kind
    filters: dict[str, Any] = {
        "chemsys": chemsys,
        "formula": formula,
        "elements": elements.replace(",", " ").split() if elements else None,
        "spacegroup": spacegroup,
        "campaign": campaign,
        "where": where,
        "sort": sort,
        "limit": limit,
    }
    if sought != "structures":
        filters |= {"model": model, "failed": failed}
    elif model is not None or failed:
        raise UsageError("structures have no force field and do not fail: leave out --model and --failed")
    names = columns.replace(",", " ").split() if columns else None
    if form == "table":
        _list_as_table(sought, filters, names, output)
    elif form in ("extxyz", "cif"):
        _write_structures(sought, filters, names, form, output, structure)
    else:
        _write_text(sought, filters, names, form, output)


def _list_as_table(kind: Any, filters: dict[str, Any], names: list[str] | None, output: Path | None) -> None:
    from esen_flows.cli.output.listing import print_table
    from esen_flows.store.connection import open_store

    if output is not None:
        raise UsageError("a table is printed; to write a file add --format csv, json, jsonl, extxyz or cif")
    rows = filters["limit"] or TABLE_ROWS
    found = _found(open_store(), kind, {**filters, "limit": rows + 1})
    print_table(kind, found, names, filters.get("failed", False), rows)


def _write_text(kind: Any, filters: dict[str, Any], names: list[str] | None, form: str, output: Path | None) -> None:
    from esen_flows.cli.output.listing import WRITERS, output_file
    from esen_flows.store.connection import open_store

    found = _found(open_store(), kind, filters)
    with output_file(output) as out:
        WRITERS[form](out, kind, found, names)


def _write_structures(
    kind: Any, filters: dict[str, Any], names: list[str] | None, form: str, output: Path | None, structure: Any
) -> None:
    from esen_flows.cli.output import listing
    from esen_flows.store.connection import open_store

    if output is None and form == "cif":
        raise UsageError("--format cif writes a file for each structure: name their folder with --output FOLDER")
    pairs = _with_structures(open_store(), kind, filters, structure)
    if form == "cif":
        assert output is not None
        listing.report(listing.write_cifs(output, pairs), output)
        return
    with listing.output_file(output) as out:
        count = listing.write_extxyz(out, pairs, names or ("key", "formula", *_label(kind)))
    if output is not None:
        listing.report(count, output)


def _label(kind: str) -> tuple[str, ...]:
    return ("material_ids",) if kind == "structures" else ("model", "material_ids")


def _found(store: "Store", kind: Any, filters: dict[str, Any]) -> "Iterator[Found]":
    from esen_flows.store.queries.query import stream, stream_structures

    return stream_structures(store, **filters) if kind == "structures" else stream(store, kind, **filters)


def _with_structures(
    store: "Store", kind: Any, filters: dict[str, Any], structure: Any
) -> "Iterator[tuple[Found, Atoms]]":
    from esen_flows.store.queries.crystals import stream_atoms
    from esen_flows.store.queries.query import stream_structures

    if kind == "structures":
        return ((record, record.atoms) for record in stream_structures(store, **filters))
    return iter(stream_atoms(store, kind, structure, **filters))


def _show(document: ResultDocument) -> None:
    from esen_flows.cli.output.report import print_report

    if document.failure is None:
        print_report([document])
        return
    out = Console()
    out.print(f"{document.formula}: {document.kind} by {document.model_label} failed", highlight=False)
    out.print(f"{document.failure.error}: {document.failure.message}", highlight=False, soft_wrap=True, markup=False)
    out.print("final: asking again changes nothing" if document.failure.final else "not final: ask again")
    out.print(f"key      {document.key}", highlight=False, soft_wrap=True)

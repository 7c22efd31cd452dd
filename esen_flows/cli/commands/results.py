"""`esen-flows show KEY` and `esen-flows query KIND`: stored results. Nothing is computed, and torch is not imported."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from esen_flows.cli import completion, options
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.report import print_report, result_content
from esen_flows.cli.store import open_store
from esen_flows.cli.usage import UsageError, split_names
from esen_flows.errors import InputError
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.properties import PROPERTIES
from esen_flows.schemas.property_lookup import COMMANDS, kind_named
from esen_flows.units import FrequencyUnit

if TYPE_CHECKING:
    from ase import Atoms

    from esen_flows.store.queries.tables import Found
    from esen_flows.store.results import Store

    Queried = str
else:
    Queried = Literal[tuple(dict.fromkeys((*PROPERTIES, *COMMANDS, "structures")))]

TABLE_ROWS = 50
WhereOption = Annotated[
    str | None, typer.Option(help="Condition: \"kappa_300K > 10 and not (nsites > 8 or formula == 'GaAs')\".")
]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="At most this many.", show_default="50 in a table, otherwise all")
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        help="Columns, as in --where, separated by commas: key,formula,kappa_300K.",
        autocompletion=completion.columns,
    ),
]
SortOption = Annotated[
    str | None,
    typer.Option(help="Name as in --where to sort by; -NAME: descending.", autocompletion=completion.columns),
]
FormatOption = Annotated[
    Literal["table", "csv", "json", "jsonl", "extxyz", "cif"],
    typer.Option("--format", "-f", help="How to print; extxyz and cif give structures."),
]
StructureOption = Annotated[
    Literal["computed", "input"],
    typer.Option(help="For extxyz and cif: the computed structure or the input structure."),
]


def show(
    key: Annotated[str, typer.Argument(help="Result key, or at least its first four digits.")],
    unit: options.UnitOption = "THz",
    as_json: JsonOption = False,
) -> None:
    """Show one stored result; as JSON with its arrays, in which null stands for numbers that do not exist."""
    store = open_store()
    document = one_result(store, key, load_arrays=as_json)
    if as_json:
        from esen_flows.store.models import stored_model

        parents = parents_of(store, document)
        print_json({**result_content([*parents, document]), "model": stored_model(store.database, document.model_key)})
    elif document.failure is None:
        print_report([*parents_of(store, document), document], unit=unit)
    else:
        _print_failure(document)


def one_result(store: "Store", key: str, load_arrays: bool = False) -> ResultDocument:
    """The only result whose key begins with some digits.

    Parameters
    ----------
    store
        Store to search.
    key
        Key, or at least its first four digits.
    load_arrays
        Whether large arrays are loaded with the result.

    Returns
    -------
    ResultDocument
        Stored result.

    Raises
    ------
    InputError
        No result or several results have such a key, or the text is not the beginning of a key.
    """
    from esen_flows.store.queries.query import find_by_prefix

    found = find_by_prefix(store, key)
    if not found:
        raise InputError(f"no result with a key that begins with {key!r}; list some with: esen-flows query KIND")
    if len(found) > 1:
        keys = ", ".join(document.key[: len(key) + 6] for document in found)
        raise InputError(f"the keys of several results begin with {key!r} ({keys}); give more digits")
    complete = store.get(found[0].key) if load_arrays else None
    return complete or found[0]


def parents_of(store: "Store", document: ResultDocument) -> list[ResultDocument]:
    """Results of the steps before a result, as far as they are stored.

    Parameters
    ----------
    store
        Store to search.
    document
        Stored result.

    Returns
    -------
    list[ResultDocument]
        Results without large arrays, the first step first.
    """
    found: dict[str, ResultDocument] = {}

    def collect(child: ResultDocument) -> None:
        for key in child.parents.values() or [child.parent_key]:
            # The parent of the first step is a structure, which is no result.
            parent = None if key in found else store.get(key, load_arrays=False)
            if parent is not None:
                collect(parent)
                found[key] = parent

    collect(document)
    return list(found.values())


def query(
    kind: Annotated[Queried, typer.Argument(help="Kind of result, or the command that computes it.")],
    chemsys: options.ChemsysOption = None,
    formula: options.FormulaOption = None,
    elements: options.ElementsOption = None,
    spacegroup: options.SpacegroupOption = None,
    model: options.LabelOption = None,
    campaign: options.CampaignOption = None,
    where: WhereOption = None,
    failed: Annotated[bool, typer.Option("--failed", help="List failed results instead of finished ones.")] = False,
    sort: SortOption = None,
    limit: LimitOption = None,
    columns: ColumnsOption = None,
    form: FormatOption = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; for cif a folder.")] = None,
    structure: StructureOption = "computed",
    unit: options.UnitOption = "THz",
) -> None:
    """List stored results, newest first, or write them or their structures to files."""
    if as_json and form not in ("table", "json"):
        raise UsageError(f"--json and --format {form} are two formats; give one of them")
    form = "json" if as_json else form
    if unit != "THz" and form != "table":
        raise UsageError(f"--unit is for tables; names of values in {form} say that frequencies are in THz")
    stored_kind = kind if kind == "structures" else kind_named(kind)
    filters: dict[str, Any] = {
        "chemsys": chemsys,
        "formula": formula,
        "elements": split_names(elements),
        "spacegroup": spacegroup,
        "campaign": campaign,
        "where": where,
        "sort": sort,
        "limit": limit,
    }
    if stored_kind != "structures":
        filters |= {"model": model, "failed": failed}
    elif model is not None or failed:
        raise UsageError("structures have no force field and do not fail; leave out --model and --failed")
    names = split_names(columns)
    if form in ("extxyz", "cif"):
        _write_structures(stored_kind, filters, names, form, output, structure)
    else:
        _write_rows(stored_kind, filters, names, form, output, unit)


def _write_rows(
    kind: Any, filters: dict[str, Any], names: list[str] | None, form: str, output: Path | None, unit: FrequencyUnit
) -> None:
    from esen_flows.cli.output.listing import output_file, print_table, write_rows
    from esen_flows.store.queries.query import stream, stream_structures

    if form == "table" and output is not None:
        raise UsageError("a table is printed; to write a file add --format csv, json, jsonl, extxyz or cif")
    rows = filters["limit"] or TABLE_ROWS
    if form == "table":
        filters = {**filters, "limit": rows + 1}  # one more shows whether there are more
    store = open_store()
    found: Iterable[Found]
    found = stream_structures(store, **filters) if kind == "structures" else stream(store, kind, **filters)
    if form == "table":
        print_table(kind, found, names, filters.get("failed", False), rows, unit)
        return
    with output_file(output) as out:
        write_rows(out, form, kind, found, names)


def _write_structures(
    kind: Any, filters: dict[str, Any], names: list[str] | None, form: str, output: Path | None, structure: Any
) -> None:
    from esen_flows.cli.output.listing import output_file, write_cifs, write_extxyz
    from esen_flows.store.queries.crystals import stream_atoms
    from esen_flows.store.queries.query import stream_structures

    if form == "cif" and output is None:
        raise UsageError("--format cif writes a file for each structure; name their folder with --output FOLDER")
    store = open_store()
    labels: tuple[str, ...] = ("model", "material_ids")
    pairs: Iterable[tuple[Found, Atoms]]
    if kind == "structures":
        labels = ("material_ids",)
        pairs = ((record, record.atoms) for record in stream_structures(store, **filters))
    else:
        pairs = stream_atoms(store, kind, structure, **filters)
    if form == "cif" and output is not None:
        count = write_cifs(output, pairs)
    else:
        with output_file(output) as out:
            count = write_extxyz(out, pairs, names or ("key", "formula", *labels))
    if output is not None:
        typer.echo(f"wrote {count} structures to {output}", err=True)


def _print_failure(document: ResultDocument) -> None:
    out, failure = Console(), document.failure
    assert failure is not None  # or there is nothing to print
    out.print(f"{document.subject_name}: {document.kind} by {document.model_label} failed", highlight=False)
    out.print(f"{failure.error}: {failure.message}", highlight=False, soft_wrap=True, markup=False)
    out.print("final: computing it again changes nothing" if failure.final else "not final: it can be computed again")
    out.print(f"key      {document.key}", highlight=False, soft_wrap=True)

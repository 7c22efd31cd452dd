"""The report of a property command: a few numbers with references, and the cost of each step. From documents alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from esen_flows.errors import ModelError
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.model_card import Measured, ModelCard
from esen_flows.schemas.property_lookup import entry_of


def print_report(documents: Sequence[ResultDocument], files: Sequence[Path] = ()) -> None:
    """Print the last step as a table of numbers, and the cost of every step.

    Parameters
    ----------
    documents
        Stored results of all steps; the last one is the property.
    files
        Figures and structures that were written.
    """
    out, result = Console(), documents[-1]
    card = _card_of(result)
    measured = [] if card is None else [m for m in card.measured if m.formula == result.formula and m.reference]
    columns: list[Column | str] = [
        "quantity",
        Column("value", justify="right"),
        "unit",
        *(["for comparison"] if measured else []),
    ]
    title = f"{result.formula}: {entry_of(result.kind).title} by {result.model_label}"
    table = Table(*columns, title=title, title_justify="left")
    for quantity, value, unit, field in _rows(result):
        table.add_row(quantity, value, unit, *([_comparison(result, field)] if measured else []))
    out.print(table)
    for conditions in dict.fromkeys(m.conditions for m in measured if m.property in result.summary and m.conditions):
        out.print(f"compared values: {conditions}", highlight=False)
    lines = [*map(_cost_line, documents), *(f"wrote    {file}" for file in files), f"key      {result.key}"]
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True)


def _rows(document: ResultDocument) -> list[tuple[str, str, str, str]]:
    """Quantity, value, unit and summary field of every row."""
    summary, rows = document.summary, []
    for field in entry_of(document.kind).summary:
        if field.label and (value := summary.get(field.name)) is not None:
            label, unit = field.label.format_map(summary), _unit(field.unit, summary)
            rows.append((label, _number(value, field.format), unit, field.name))
    return rows + _lattice_rows(summary)


def _unit(unit: str, summary: Mapping[str, Any]) -> str:
    try:
        return unit.format_map(summary)
    except KeyError:
        return unit.partition(",")[0]


def _cost_line(document: ResultDocument) -> str:
    origin = document.provenance
    return (
        f"{document.kind:<12} {origin.seconds:9.2f} s {origin.force_evaluations:6d} force evaluations on "
        f"{origin.device}, {document.created_at:%Y-%m-%d %H:%M}, {document.key[:12]}"
    )


def _card_of(document: ResultDocument) -> ModelCard | None:
    """The card of the force field of a result, if it is installed and still describes the same checkpoint."""
    try:
        model = resolve_model(document.model_label)
    except ModelError:
        return None
    return model.card if model.key == document.model_key else None


def _number(value: object, form: str) -> str:
    text = format(value, form)
    return text.removeprefix("-") if text.strip("-0.") == "" else text  # no -0.000


def _lattice_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Lattice constants, only the first one if all are equal, and the space group."""
    rows = []
    lengths = [summary.get(f"{name}_angstrom") for name in "abc"]
    a = lengths[0]
    if isinstance(a, float):
        equal = all(isinstance(x, float) and abs(x - a) < 1e-6 * a for x in lengths)
        for name, length in list(zip("abc", lengths, strict=True))[: 1 if equal else 3]:
            rows.append((f"lattice constant {name}", f"{length:.4f}", "A", f"{name}_angstrom"))
    if summary.get("space_group"):
        rows.append(("space group", str(summary["space_group"]), "", "space_group"))
    return rows


def references_of(document: ResultDocument, field: str) -> tuple[Measured, ...]:
    """Reference values for a summary field of a result, from the card of its force field.

    Cards describe crystals without Born charges; for a result with them only lengths are comparable.

    Parameters
    ----------
    document
        Stored result.
    field
        Summary field.

    Returns
    -------
    tuple[Measured, ...]
        Measured entries of the card, with their references.
    """
    card = _card_of(document)
    if card is None or (document.summary.get("nac") and not field.endswith("_angstrom")):
        return ()
    return card.references(document.formula, field)


def _comparison(document: ResultDocument, field: str) -> str:
    entries = references_of(document, field)
    return "\n".join(f"{reference.source} {reference.value:g}" for entry in entries for reference in entry.reference)

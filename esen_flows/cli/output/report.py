"""The report of a property command: a few numbers with references, and the cost of each step. From documents alone."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from esen_flows.cli.output.branches import branch_lines
from esen_flows.cli.output.json_output import jsonable
from esen_flows.cli.output.tables import frequency_text, number_text, show
from esen_flows.errors import ModelError
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.model_card import Measured, ModelCard
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.units import PER_THZ, FrequencyUnit

FROM_DATABASE = ", from the database"
NON_METALS = frozenset(["H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Ge", "As", "Se", "Br", "Sb", "Te", "I"])
# By whether atoms were compared with those of the training data, and the verdict.
DOMAIN_WARNINGS = {
    (False, "outside"): "{model} was not trained on any structure with exactly the elements {elements}: numbers may be "
    "wrong",
    (True, "outside"): "atoms of this structure are unlike all {elements} atoms that {model} was trained on "
    "(extrapolation {value:.1f}, limit {limit:.2f}): numbers may be wrong",
    (True, "near"): "{model} was not trained on any structure with exactly the elements {elements}, but on atoms like "
    "these (extrapolation {value:.1f}, limit {limit:.2f}): check numbers that matter",
}


def print_report(
    documents: Sequence[ResultDocument],
    files: Sequence[Path] = (),
    stored: Collection[str] = (),
    unit: FrequencyUnit = "THz",
) -> None:
    """Print the last step as a table of numbers, and the cost of every step.

    Parameters
    ----------
    documents
        Stored results of all steps; the last one is the property.
    files
        Figures and structures that were written.
    stored
        Keys of results that were not computed now.
    unit
        Unit of frequencies.
    """
    out, result = Console(), documents[-1]
    compared = {
        field: references_of(documents, field) for field in (value.name for value in entry_of(result.kind).summary)
    }
    measured = [entry for entries in compared.values() for entry in entries]
    columns: list[Column | str] = [
        "quantity",
        Column("value", justify="right"),
        "unit",
        *(["for comparison"] if measured else []),
    ]
    title = f"{result.subject_name}: {entry_of(result.kind).title} by {result.model_label}"
    table = Table(*columns, title=title, title_justify="left")
    for quantity, value, own_unit, field in report_rows(result, unit):
        factor = PER_THZ[unit] if field.endswith("_thz") else 1.0
        table.add_row(quantity, value, own_unit, *([_comparison(compared.get(field, ()), factor)] if measured else []))
    show(table)
    for line in branch_lines(result):
        out.print(line, highlight=False, soft_wrap=True)
    for conditions in dict.fromkeys(entry.conditions for entry in measured if entry.conditions):
        out.print(f"compared values: {conditions}", highlight=False)
    if warning := domain_warning(result):
        out.print(f"warning  {warning}", highlight=False, soft_wrap=True)
    if hint := _polar_hint(result):
        out.print(hint, highlight=False)
    costs = [_cost_line(document) + (FROM_DATABASE if document.key in stored else "") for document in documents]
    lines = [*costs, *(f"wrote    {file}" for file in files), f"key      {result.key}"]
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True)


def domain_warning(result: ResultDocument) -> str | None:
    """What to say of a structure that the force field was not trained on, in one sentence.

    Parameters
    ----------
    result
        Stored result.

    Returns
    -------
    str | None
        The sentence; None for a structure inside, and where nothing is known.
    """
    summary = result.summary
    value, limit = summary.get("extrapolation"), summary.get("extrapolation_limit")
    text = DOMAIN_WARNINGS.get((value is not None, str(summary.get("domain"))))
    names = {"model": result.model_label, "elements": ", ".join(result.elements)}
    return None if text is None else text.format(**names, value=value, limit=limit)


def result_content(documents: Sequence[ResultDocument], stored: Collection[str] | None = None) -> dict[str, Any]:
    """The last step and all its numbers for `--json`, with the steps before it.

    Parameters
    ----------
    documents
        Stored results of all steps; the last one is the property, with its arrays.
    stored
        Keys of results that were not computed now; None where all of them were stored.

    Returns
    -------
    dict[str, Any]
        Fields of the result, its arrays as `output`, the other results without arrays as `steps`, and whether each was
        stored before as `from_database`.
    """
    contents = [
        {**jsonable(document), "from_database": stored is None or document.key in stored} for document in documents
    ]
    return {**contents[-1], "output": documents[-1].output, "steps": contents[:-1]}


def report_rows(document: ResultDocument, frequency_unit: FrequencyUnit = "THz") -> list[tuple[str, str, str, str]]:
    """Rows of the report of a result.

    Parameters
    ----------
    document
        Stored result.
    frequency_unit
        Unit of frequencies.

    Returns
    -------
    list[tuple[str, str, str, str]]
        Quantity, value, unit and summary field of every row.
    """
    summary, rows = document.summary, []
    for field in entry_of(document.kind).summary:
        if field.label and (value := summary.get(field.name)) is not None:
            label, unit = field.label.format_map(summary), _unit(field.unit, summary)
            if unit == "THz" and isinstance(value, float):
                text, unit = frequency_text(value, frequency_unit), frequency_unit
            else:
                text = number_text(value, field.format)
            rows.append((label, text, unit, field.name))
    return rows + _lattice_rows(summary)


def _unit(unit: str, summary: Mapping[str, Any]) -> str:
    try:
        return unit.format_map(summary)
    except KeyError:
        return unit.partition(",")[0]


def _polar_hint(document: ResultDocument) -> str | None:
    """What is missing in lattice results of a compound that were computed without Born charges."""
    takes_born = "born" in entry_of(document.kind).step_protocol.model_fields
    if not takes_born or document.summary.get("nac") or not is_possibly_polar(document.elements):
        return None
    return (
        f"hint: no Born charges were given. If {document.formula} is an insulator, its longitudinal optical "
        "frequencies near Gamma are missing their LO-TO splitting: --born FILE"
    )


def is_possibly_polar(elements: Collection[str]) -> bool:
    """Whether a crystal can have a splitting of longitudinal and transverse optical modes, as far as elements tell.

    Parameters
    ----------
    elements
        Chemical symbols.

    Returns
    -------
    bool
        True for compounds that are not made of metals alone. Metallic compounds with non-metals count too.

    Examples
    --------
    >>> is_possibly_polar(["Mg", "O"]), is_possibly_polar(["Si"]), is_possibly_polar(["Cu", "Au"])
    (True, False, False)
    """
    return len(elements) > 1 and not NON_METALS.isdisjoint(elements)


def _cost_line(document: ResultDocument) -> str:
    origin = document.provenance
    evaluations = "force evaluation" if origin.force_evaluations == 1 else "force evaluations"
    return (
        f"{document.kind:<12} {origin.seconds:9.2f} s {origin.force_evaluations:6d} {evaluations} on "
        f"{origin.device}, {document.created_at:%Y-%m-%d %H:%M}, {document.key[:12]}"
    )


def _card_of(document: ResultDocument) -> ModelCard | None:
    """The card of the force field of a result, if it is installed and still describes the same checkpoint."""
    try:
        model = resolve_model(document.model_label)
    except ModelError:
        return None
    return model.card if model.key == document.model_key else None


def _lattice_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Lattice constants, only the first one if all are equal, and the space group."""
    rows = []
    lengths = [(name, length) for name in "abc" if isinstance(length := summary.get(f"{name}_angstrom"), float)]
    if lengths:
        a = lengths[0][1]
        equal = all(abs(length - a) < 1e-6 * a for _, length in lengths)
        for name, length in lengths[: 1 if equal else 3]:
            rows.append((f"lattice constant {name}", f"{length:.4f}", "A", f"{name}_angstrom"))
    if summary.get("space_group"):
        rows.append(("space group", str(summary["space_group"]), "", "space_group"))
    return rows


def references_of(documents: Sequence[ResultDocument], field: str) -> tuple[Measured, ...]:
    """Reference values for a summary field of a result, from the card of its force field.

    A value is compared with one of the same crystal structure, supercells, mesh and temperature, or not at all. Cards
    describe crystals without Born charges; for a result with them only lengths are comparable.

    Parameters
    ----------
    documents
        Results of all steps; the last one is the property.
    field
        Summary field.

    Returns
    -------
    tuple[Measured, ...]
        Measured entries of the card, with their references.
    """
    result = documents[-1]
    card = _card_of(result)
    if card is None or (result.summary.get("nac") and not field.endswith("_angstrom")):
        return ()
    return card.references(result.formula or "", field, _computed_with(documents))


def _computed_with(documents: Sequence[ResultDocument]) -> dict[str, Any]:
    """Settings of a result by field of `model_card.Settings`; those of a step that is not at hand are missing."""
    found: dict[str, Any] = {"space_group_number": documents[-1].space_group_number}
    for document in documents:
        if document.kind != "relax":  # whose parity is not that of the displacements
            found |= document.protocol | document.summary
    return found


def _comparison(entries: Sequence[Measured], factor: float) -> str:
    return "\n".join(
        f"{reference.source} {factor * reference.value:.6g}" for entry in entries for reference in entry.reference
    )

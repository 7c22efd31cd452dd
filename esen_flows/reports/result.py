"""The page of a stored result: its numbers, charts and figures, its steps and settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from esen_flows.campaigns.compare import flat
from esen_flows.errors import InputError
from esen_flows.reports.lattice import conductivity_charts, phonon_charts
from esen_flows.reports.page import Cell, Column, Page, Part, Picture, Section, Table, cell_text, summary_column
from esen_flows.reports.settings import settings_table, versions_table
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.model_card import Measured
from esen_flows.schemas.property_lookup import entry_of

CHARTS = {"phonon": phonon_charts, "conductivity": conductivity_charts}
# Figures that the charts of a page stand for.
CHARTED_FIGURES = frozenset(("phonon.png", "kappa.png", "cumulative_kappa.png"))


def result_page(
    steps: Sequence[ResultDocument],
    others: Sequence[Sequence[ResultDocument]] = (),
    references: Mapping[str, Sequence[Measured]] | None = None,
    figures: Mapping[str, bytes] | None = None,
) -> Page:
    """The page of a result.

    Parameters
    ----------
    steps
        Results of all steps, the last one is the result, with its arrays.
    others
        The same of results to compare with, of the same kind and the same crystal.
    references
        Comparable values on the card of the force field, by field of the summary.
    figures
        Contents of PNG files by name; those that a chart stands for are left out.

    Returns
    -------
    Page
        The page.

    Raises
    ------
    InputError
        The others are of another kind or crystal, or phonons have different paths.
    """
    result = steps[-1]
    together = [result, *(other[-1] for other in others)]
    subjects = {(each.kind, each.subject_name) for each in together}
    if len(subjects) > 1:
        found = ", ".join(f"{kind} of {name}" for kind, name in sorted(subjects))
        raise InputError(f"these are {found}; a page compares results of one kind and one crystal")
    facts = [
        ("force field", result.model_label),
        ("state", result.state),
        ("space group", str(result.summary.get("space_group") or "")),
        ("computed", f"{result.created_at:%Y-%m-%d %H:%M} UTC"),
        ("computing time", f"{sum(each.provenance.seconds for each in steps):.4g} s"),
        ("key", result.key[:12]),
    ]
    sections = []
    if result.failure is not None:
        ending = "Computing it again changes nothing." if result.failure.final else "It can be computed again."
        sections.append(Section("Failure", [f"{result.failure.error}: {result.failure.message}", ending]))
    else:
        sections.append(Section("Numbers", [_numbers(together, references or {})]))
    shown: list[Part] = []
    if result.kind in CHARTS and result.failure is None:
        shown += CHARTS[result.kind](together)
    shown += [
        Picture(name.removesuffix(".png").replace("_", " "), png)
        for name, png in (figures or {}).items()
        if name not in CHARTED_FIGURES or result.kind not in CHARTS
    ]
    if shown:
        sections.append(Section("Figures", shown))
    chains = [steps, *others]
    names = [f"{chain[-1].model_label} {chain[-1].key[:8]}" for chain in chains]
    sections += [
        Section("Steps", [_steps(steps)]),
        Section("Settings", [settings_table(names, [_settings(chain) for chain in chains])]),
        Section("Provenance", _provenance(result)),
    ]
    title = f"{result.subject_name}: {entry_of(result.kind).title}"
    return Page("result", title, "", [fact for fact in facts if fact[1]], sections)


def _numbers(documents: Sequence[ResultDocument], references: Mapping[str, Sequence[Measured]]) -> Table:
    rows: list[list[Cell]] = []
    for entry in entry_of(documents[0].kind).summary:
        values = [document.summary.get(entry.name) for document in documents]
        if all(value is None for value in values):
            continue
        column = summary_column(entry, documents[0].summary)
        compared = "; ".join(
            f"{reference.source} {reference.value:g}"
            for measured in references.get(entry.name, ())
            for reference in measured.reference
        )
        rows.append([column.title, column.unit, *(_value(value, column.form) for value in values), compared])
    names = [f"{each.model_label} {each.key[:8]}" if len(documents) > 1 else "value" for each in documents]
    # Numbers of a column have different units and digits, so that they are texts, to the right as numbers.
    columns = [Column("quantity"), Column("unit"), *(Column(name, "", "s") for name in names), Column("for comparison")]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Table(columns, rows)


def _value(value: Any, form: str) -> str:
    return cell_text(value, form) if isinstance(value, int | float | str | None) else str(value)


def _steps(steps: Sequence[ResultDocument]) -> Table:
    rows = [
        (
            each.kind, each.provenance.seconds, each.provenance.force_evaluations, each.provenance.device,
            f"{each.created_at:%Y-%m-%d %H:%M}", each.key,
        )
        for each in steps
    ]  # fmt: skip
    columns = (
        Column("step"), Column("computing time", "s", ".4g"), Column("force evaluations", "", "d"), Column("device"),
        Column("date", "UTC"), Column("key"),
    )  # fmt: skip
    return Table(columns, rows)


def _settings(steps: Sequence[ResultDocument]) -> dict[str, Any]:
    found: dict[str, Any] = {"force field": steps[-1].model_key[:16]}
    for step in steps:
        found |= dict(flat(step.protocol, f"{step.kind}."))
        found |= dict(flat(step.numeric, f"{step.kind}.numeric."))
    return found


def _provenance(result: ResultDocument) -> list[Part]:
    origin = result.provenance
    facts = {"host": origin.host, "git revision": origin.git_revision, "result key": result.key}
    rows = [(name, str(value)) for name, value in facts.items() if value]
    versions = {"esen_flows": origin.package_version, "python": origin.python, **origin.libraries}
    table = versions_table({name: {version: 1} for name, version in versions.items()})
    return [Table((Column("fact"), Column("value")), rows), table]

"""The page of a model card: what is known of a force field, what was measured, and how it was audited."""

from collections.abc import Mapping, Sequence
from typing import Any

from esen_flows.campaigns.audits import AuditVerdict
from esen_flows.campaigns.compare import flat
from esen_flows.metrics.paper_tables import counterpart
from esen_flows.metrics.published import OLD_RMSD_SCALE, published_rows
from esen_flows.reports.board import BoardEntry, board_parts
from esen_flows.reports.campaign import AUDIT_COLUMNS, verdict_row
from esen_flows.reports.page import (
    Axis,
    Cell,
    Chart,
    Column,
    Page,
    Part,
    Section,
    Table,
    Trace,
    compact_table,
    written_unit,
)
from esen_flows.reports.settings import settings_table
from esen_flows.schemas.model_card import Measured, ModelCard

_WIDE = 30.0  # ratio of the largest to the smallest number from which axes are logarithmic
# Fields of a card that are shown apart from the others.
_APART = frozenset(("name", "description", "measured", "elements", "intended_use", "limitations", "family"))


def model_page(card: ModelCard, key: str | None, verdicts: Sequence[AuditVerdict], results: Mapping[str, int]) -> Page:
    """The page of a force field.

    Parameters
    ----------
    card
        Its card.
    key
        Its key; None if it is not on this machine.
    verdicts
        Verdicts of its stored audits.
    results
        Number of its stored results by kind.

    Returns
    -------
    Page
        The page.
    """
    facts = [
        ("family", card.family),
        ("conservative", "yes" if card.conservative else "no"),
        ("symmetry", card.equivariance),
        ("elements", "any" if card.elements is None else f"{len(card.elements)}"),
        ("on this machine", "no" if key is None else "yes"),
    ]
    sections = [Section("Use", _use(card))]
    if card.measured:
        sections.append(Section("Measured", _measured(card.measured)))
    row = counterpart(card.name, published_rows())
    if row is not None:
        of_other_scale = ("CPS", "rmsd_1e-2") if row.key in OLD_RMSD_SCALE else ()
        values = {name: value for name, value in row.values.items() if name not in of_other_scale}
        parts = board_parts([BoardEntry(row.name, values)])
        sections.append(Section("On the leaderboard", [f"Published as {row.name}, added {row.added}.", *parts]))
    audits: Part = "No audit of it is stored in this database."
    if verdicts:
        audits = compact_table(AUDIT_COLUMNS, [verdict_row(verdict) for verdict in verdicts])
    sections.append(Section("Audits", [audits]))
    if results:
        columns = (Column("kind"), Column("results", "", "d"))
        sections.append(Section("Stored results", [Table(columns, list(results.items()))]))
    content = card.model_dump(mode="json", exclude=set(_APART), exclude_none=True, exclude_defaults=True)
    known: dict[str, Any] = {"model key": key} if key is not None else {}
    sections.append(Section("Card", [settings_table(["value"], [known | dict(flat(content))])]))
    return Page("model", card.name, " ".join(card.description.split()), facts, sections)


def _use(card: ModelCard) -> list[Part]:
    parts: list[Part] = [card.intended_use]
    if card.limitations:
        parts.append(f"Limits: {card.limitations}")
    if card.elements is not None:
        parts.append(f"Elements: {' '.join(card.elements)}")
    return parts


def _measured(entries: Sequence[Measured]) -> list[Part]:
    rows: list[tuple[Cell, ...]] = []
    for entry in entries:
        for reference in entry.reference or (None,):
            difference = None
            if reference is not None and reference.value:
                difference = 100 * (entry.value / reference.value - 1)
            source, value = ("", None) if reference is None else (reference.source, reference.value)
            unit = written_unit(entry.unit)
            rows.append((entry.property, entry.formula, entry.value, unit, source, value, difference, entry.conditions))
    columns = (
        Column("property"), Column("formula"), Column("value", "", ".5g"), Column("unit"), Column("compared with"),
        Column("its value", "", ".5g"), Column("difference", "%", "+.3g"), Column("conditions"),
    )  # fmt: skip
    return [*_parities(entries), compact_table(columns, rows)]


def _parities(entries: Sequence[Measured]) -> list[Chart]:
    """A chart for each property that was measured and compared for several crystals."""
    points: dict[tuple[str, str, str], list[tuple[str, float, float]]] = {}
    for entry in entries:
        for reference in entry.reference[:1]:
            where = (entry.property, entry.unit, reference.source)
            points.setdefault(where, []).append((entry.formula or entry.property, reference.value, entry.value))
    charts = []
    for (name, unit, source), found in points.items():
        if len(found) < 3:  # two points make no picture
            continue
        trace = Trace(name, [each[1] for each in found], [each[2] for each in found], [each[0] for each in found])
        numbers = [number for each in found for number in each[1:]]
        is_wide = min(numbers) > 0 and max(numbers) > _WIDE * min(numbers)
        axes = [Axis(title, written_unit(unit), is_wide) for title in (source, "this force field")]
        charts.append(Chart(name, axes[0], axes[1], [trace], has_diagonal=True))
    return charts

"""The content of a page as plain values: sections of tables, charts, pictures and text. Nothing here knows HTML."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from esen_flows.schemas.property_entry import SummaryField

Cell = str | float | int | bool | None
Numbers = Sequence[float | None]
FEW_ROWS = 12  # a longer table has a field for a filter
MOST_ROWS = 2000  # of a table, so that a page of a quarter of a million members still opens
MOST_POINTS = 4000  # of a chart

# Units that end names of fields, the longest first.
_UNITS = {
    "mev_per_atom_ps": "meV/atom/ps", "ev_per_atom_ps": "eV/atom/ps", "mev_per_atom": "meV/atom",
    "ev_per_atom": "eV/atom", "mev_per_angstrom3": "meV/Å³", "mev_per_angstrom": "meV/Å", "ev_per_angstrom3": "eV/Å³",
    "ev_per_angstrom2": "eV/Å²", "ev_per_angstrom": "eV/Å", "per_atom_angstrom3": "Å³/atom", "angstrom3": "Å³",
    "angstrom2": "Å²", "angstrom": "Å", "kj_per_mol": "kJ/mol", "j_per_k_mol": "J/K/mol", "w_per_m_k": "W/m/K",
    "m_per_s": "m/s", "gpa": "GPa", "thz": "THz", "kelvin": "K", "ev": "eV", "ps": "ps", "k": "K", "seconds": "s",
}  # fmt: skip
_WORDS = {
    "e above hull": "hull distance", "e form": "formation energy", "rmsd": "RMSD", "nsites": "atoms",
    "srme": "SRME", "sre": "SRE", "srd": "SRD", "fmax": "largest force", "n steps": "steps", "kappa": "κ",
    "reference": "DFT", "reference e above hull": "hull distance, DFT", "spectrum w1": "distance of the spectra",
    "model": "force field", "label": "member",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    title
        Title.
    unit
        Unit of its numbers; empty for numbers without one, and for text.
    form
        Format specification of its numbers; empty for a column of text.
    is_state
        Whether its cells are states (finished, failed, ...), by which rows can be chosen.
    """

    title: str
    unit: str = ""
    form: str = ""
    is_state: bool = False


@dataclass(frozen=True)
class Table:
    """A table that can be sorted, and filtered if it is long.

    Attributes
    ----------
    columns
        Its columns.
    rows
        Cells of each row, as many as there are columns.
    title
        Title above the table; empty: the section's is enough.
    note
        Remark above the table.
    is_searchable
        Whether it has a field for a filter.
    lists_members
        Whether its rows are what the points of charts stand for; a click on a point chooses the row.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    note: str = ""
    is_searchable: bool = False
    lists_members: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    Attributes
    ----------
    title
        Quantity.
    unit
        Its unit; empty for numbers without one.
    logarithmic
        Whether it is logarithmic; points at or below zero are then left out.
    ticks
        Places and texts of named points, instead of numbers.
    limits
        Ends of the axis in the unit of the numbers; None: those of the data.

    Raises
    ------
    ValueError
        An end of a logarithmic axis is not above zero.
    """

    title: str
    unit: str = ""
    logarithmic: bool = False
    ticks: Sequence[tuple[float, str]] = ()
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.logarithmic and self.limits is not None and min(self.limits) <= 0:
            raise ValueError(f"axis {self.title!r}: ends of a logarithmic axis must be above zero, not {self.limits}")


@dataclass(frozen=True)
class Trace:
    """Points or a line of a chart.

    Attributes
    ----------
    name
        Name in the legend.
    x
        (n,) horizontal places; None ends a line.
    y
        (n,) vertical places.
    labels
        Name of each point, shown beside its numbers; empty for lines without names of points.
    mode
        How they are drawn.
    colour
        Number of the colour; traces of one thing have one colour.
    emphasised
        Whether it is drawn larger than the others.
    """

    name: str
    x: Numbers
    y: Numbers
    labels: Sequence[str] = ()
    mode: Literal["markers", "lines", "lines+markers", "bars"] = "markers"
    colour: int = 0
    emphasised: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes
    ----------
    title
        Title.
    x
        Horizontal axis.
    y
        Vertical axis.
    traces
        What is drawn.
    note
        Remark below the title.
    has_diagonal
        Whether the line of equal numbers is drawn.
    """

    title: str
    x: Axis
    y: Axis
    traces: Sequence[Trace]
    note: str = ""
    has_diagonal: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure as a PNG file.

    Attributes
    ----------
    title
        What it shows.
    png
        Content of the file.
    """

    title: str
    png: bytes


Part = Table | Chart | Picture | str  # a text is a paragraph


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading.

    Attributes
    ----------
    title
        Heading.
    parts
        Tables, charts, pictures and paragraphs in their order; charts that follow one another stand side by side.
    """

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Page:
    """Everything on a page.

    Attributes
    ----------
    kind
        What it is about: campaign, model, result, submission.
    title
        Name of that.
    description
        A few sentences; empty if there are none.
    facts
        Names and texts of the most important facts.
    sections
        The rest.
    """

    kind: str
    title: str
    description: str = ""
    facts: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = field(default_factory=tuple)


def compact_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], **more: Any) -> Table:
    """A table without the columns that are empty in all rows.

    Parameters
    ----------
    columns
        Its columns.
    rows
        Cells of each row.
    more
        Further attributes of the table. One of more than twelve rows has a field for a filter.

    Returns
    -------
    Table
        The table.
    """
    kept = [i for i, column in enumerate(columns) if any(cell_text(row[i], column.form) for row in rows)]
    cells = [[row[i] for i in kept] for row in rows]
    return Table([columns[i] for i in kept], cells, is_searchable=len(rows) > FEW_ROWS, **more)


def cell_text(value: Cell, form: str = "") -> str:
    """A cell as text.

    Parameters
    ----------
    value
        Value; None and numbers that are not finite give an empty text.
    form
        Format specification of numbers.

    Returns
    -------
    str
        The text. A number that rounds to zero has no sign.

    Examples
    --------
    >>> cell_text(-4e-7, ".3f"), cell_text(12.80071), cell_text(972), cell_text(True), cell_text(None)
    ('0.000', '12.8007', '972', 'yes', '')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if form == "d":
        return f"{value:.0f}"
    if isinstance(value, int) and not form:
        return str(value)
    sign = "+" if form.startswith("+") else ""
    return format(value, f"{sign}z{form.removeprefix('+') or '.6g'}")


def title_of(text: str) -> str:
    """A text that begins with a capital, except where it begins with a symbol.

    Parameters
    ----------
    text
        Text.

    Returns
    -------
    str
        The title.

    Examples
    --------
    >>> title_of("hull distance"), title_of("κ at 300 K")
    ('Hull distance', 'κ at 300 K')
    """
    return text[:1].upper() + text[1:] if text.isascii() else text


def column_of(name: str, form: str = ".5g") -> Column:
    """A column for a field by its name, which ends in its unit.

    Parameters
    ----------
    name
        Name of the field.
    form
        Format specification of its numbers.

    Returns
    -------
    Column
        The column, with the name in words and its unit.

    Examples
    --------
    >>> column_of("max_frequency_thz").title, column_of("max_frequency_thz").unit
    ('max frequency', 'THz')
    >>> column_of("e_above_hull_ev_per_atom").title
    'hull distance'
    """
    ending = next((ending for ending in _UNITS if name.endswith(f"_{ending}")), "")
    words = (name.removesuffix(f"_{ending}") if ending else name).replace("_", " ")
    if not words.startswith("reference") or words in _WORDS:
        title = _WORDS.get(words, words)
    else:
        rest = words.removeprefix("reference ")
        title = f"{_WORDS.get(rest, rest)}, DFT"
    return Column(title, _UNITS.get(ending, ""), form)


def summary_column(entry: SummaryField, summary: Mapping[str, Any]) -> Column:
    """A column for a value of a summary.

    Parameters
    ----------
    entry
        What is known about the value.
    summary
        A summary, whose values may stand in the title and the unit.

    Returns
    -------
    Column
        The column.
    """
    plain = column_of(entry.name, entry.format or ".6g")
    form = "" if entry.type != "number" else plain.form
    title = _filled(entry.label, summary) or plain.title
    return Column(title, written_unit(_filled(entry.unit, summary)) or (plain.unit if form else ""), form)


def written_unit(unit: str) -> str:
    """A unit as it is written on pages.

    Parameters
    ----------
    unit
        Unit in ASCII.

    Returns
    -------
    str
        Unit with the signs of Angstrom and of powers.

    Examples
    --------
    >>> written_unit("A^3/atom"), written_unit("eV/A")
    ('Å³/atom', 'eV/Å')
    """
    return re.sub(r"\bA(ngstrom)?\b", "Å", unit).replace("^3", "³").replace("^2", "²")


def _filled(text: str, summary: Mapping[str, Any]) -> str:
    try:
        return text.format_map(summary)
    except (KeyError, TypeError, ValueError):  # an earlier version lacks the value
        return text.partition(",")[0] if "{" in text else text


def spread(count: int, most: int) -> list[int]:
    """Places of at most some rows among all, evenly spread.

    Parameters
    ----------
    count
        Number of rows.
    most
        Largest number of places.

    Returns
    -------
    list[int]
        Places in ascending order, with the first and the last one.

    Examples
    --------
    >>> spread(3, 5), spread(101, 3)
    ([0, 1, 2], [0, 50, 100])
    """
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]

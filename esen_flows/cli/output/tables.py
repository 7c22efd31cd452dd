"""Tables that stay readable: numbers are never cut, text folds, and a pipe gets plain aligned lines."""

import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from esen_flows.units import PER_THZ, FrequencyUnit

_WIDE = 10_000  # characters; no line is longer
_LEAST_TEXT = 8  # characters to which a column of text may be folded


def number_text(value: object, form: str) -> str:
    """A value as text, rounded to what its format gives.

    Parameters
    ----------
    value
        Value of a summary.
    form
        Format specification of the value.

    Returns
    -------
    str
        The text. A number that rounds to zero has no sign: noise of -4e-7 THz must not look like an instability.

    Examples
    --------
    >>> number_text(-4.333e-07, ".3f"), number_text(12.8007, ".3f"), number_text("stable", "")
    ('0.000', '12.801', 'stable')
    """
    text = format(value, form)
    return text.removeprefix("-") if text.strip("-0.") == "" else text


def frequency_text(thz: float, unit: FrequencyUnit) -> str:
    """A frequency as text, with the digits that a thousandth of a THz is worth.

    Parameters
    ----------
    thz
        Frequency in THz.
    unit
        Unit of the text.

    Returns
    -------
    str
        The number without its unit.

    Examples
    --------
    >>> frequency_text(15.3, "THz"), frequency_text(15.3, "cm-1"), frequency_text(15.3, "meV")
    ('15.300', '510.4', '63.276')
    """
    return number_text(PER_THZ[unit] * thz, ".1f" if unit == "cm-1" else ".3f")


def terminal_width() -> int | None:
    """Width of the terminal that a table is printed to.

    Returns
    -------
    int | None
        Characters in a line; None for a pipe or a file, whose lines may have any length.
    """
    console = Console()
    return console.width if console.is_terminal else None


def natural_width(table: Table) -> int:
    """Width of a table in which nothing is folded.

    Parameters
    ----------
    table
        Table with its rows.

    Returns
    -------
    int
        Characters in a line.
    """
    return sum(map(_width, table.columns)) + 3 * len(table.columns) + 1


def show(table: Table) -> None:
    """Print a table: with lines and folded text in a terminal, as plain aligned columns into a pipe.

    Parameters
    ----------
    table
        Table with its rows; columns that are justified to the right hold numbers and are never folded, nor are those
        that are marked so.
    """
    for column in table.columns:
        column.overflow = "fold"
        column.no_wrap |= column.justify == "right"
    width = terminal_width()
    if width is None:
        _print_plain(table)
        return
    least = sum(_width(column) if column.no_wrap else min(_width(column), _LEAST_TEXT) for column in table.columns)
    # Lines that are longer than a narrow terminal can be read; numbers that are cut cannot.
    Console(width=max(width, least + 3 * len(table.columns) + 1)).print(table, markup=False)


def _print_plain(table: Table) -> None:
    table.box, table.pad_edge, table.padding = None, False, (0, 2, 0, 0)
    table.title_justify = table.caption_justify = "left"
    console = Console(width=_WIDE, color_system=None)
    with console.capture() as captured:
        console.print(table, markup=False)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _width(column: Column) -> int:
    cells: Sequence[object] = [column.header, *column.cells]
    texts = [cell.plain if isinstance(cell, Text) else str(cell) for cell in cells]
    return max((cell_len(line) for text in texts for line in text.splitlines()), default=0)

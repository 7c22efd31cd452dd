"""How much one number depends on each choice: a panel for each of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes

from esen_flows.errors import InputError
from esen_flows.plots.style import FAINT, INK, PALETTE, field_text, new_figure, save

_COLUMNS = 3
_LEAST_WIDTH = 4.2  # inches
_CHARACTERS_PER_INCH = 18  # of the line below the panels
_MOST_TICKS = 8  # on the horizontal axis of a panel
_BAND = 0.01  # half width of the band around the last point, relative


@dataclass(frozen=True)
class Series:
    """One choice, varied.

    Attributes
    ----------
    name
        Field that is varied.
    values
        Values as they were given, in order.
    numbers
        Result with each value; None where there is none.
    chosen
        Index of the value that all other series keep; None if it is not among the values.
    """

    name: str
    values: tuple[str, ...]
    numbers: tuple[float | None, ...]
    chosen: int | None


def plot_convergence(series: Sequence[Series], quantity: str, subject: str, key: str, path: str | Path) -> Path:
    """A panel for each series, all on one vertical axis, with a band of one per cent around the last number.

    Parameters
    ----------
    series
        Choices that were varied.
    quantity
        Name of the numbers, with their unit.
    subject
        Crystal and force field, for the title.
    key
        Key of the result around which all series vary.
    path
        PNG file to write; an SVG file is written beside it.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        No series has a number.
    """
    if not any(number is not None for one in series for number in one.numbers):
        raise InputError("nothing to plot: no point of the study has a result; see the reasons above")
    columns = 2 if len(series) == 4 else min(_COLUMNS, len(series))
    rows = -(-len(series) // columns)
    width = max(3.2 * columns, _LEAST_WIDTH)
    with new_figure(width, 2.8 * rows + 0.4) as figure:
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for panel, one in zip(panels, series, strict=False):
            _draw(panel, one)
        for empty in panels[len(series) :]:
            empty.set_visible(False)
        for first in panels[::columns]:
            first.set_ylabel(quantity)
        figure.suptitle(subject, fontsize=10, x=0.02, ha="left")
        legend = "filled: kept while another choice varies; band: 1 % around the last value"
        figure.supxlabel(fill(legend, int(_CHARACTERS_PER_INCH * width)), fontsize=8, x=0.02, ha="left", color=INK)
        return save(figure, path, f"convergence {key}")


def _draw(axes: Axes, one: Series) -> None:
    places = np.arange(len(one.values))
    numbers = np.array([np.nan if number is None else number for number in one.numbers])
    ordered = all(value.replace(".", "", 1).isdigit() for value in one.values)
    axes.plot(places, numbers, "o-" if ordered else "o", color=PALETTE[0], markerfacecolor="white")
    if one.chosen is not None:
        axes.plot(places[one.chosen], numbers[one.chosen], "o", color=PALETTE[0])
    if np.isfinite(numbers[-1]):
        low, high = sorted((numbers[-1] * (1 - _BAND), numbers[-1] * (1 + _BAND)))
        axes.axhspan(low, high, color=FAINT, alpha=0.2, linewidth=0)
    step = ceil(len(places) / _MOST_TICKS)
    axes.set_xticks(places[::step], [value.replace("_", "\n") for value in one.values[::step]])
    axes.set(xlim=(-0.5, len(places) - 0.5), xlabel=field_text(one.name))

"""Axes, and what is drawn into them, by the rules of `style`."""

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.patheffects import AbstractPathEffect, Normal, Stroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from esen_flows.units import FrequencyUnit

_LEAST_RATIO = 5.0  # between the ends of a logarithmic axis, so that it has at least two of the marks 1, 2, 5, 10
_PLAIN_RATIO = 1e4  # above it powers of ten are easier to read


def logarithmic(axis: Axis) -> None:
    """Make an axis logarithmic with plain numbers as labels, and wide enough to have two of them; after drawing.

    Parameters
    ----------
    axis
        Axis to change.
    """
    name = "x" if axis is axis.axes.xaxis else "y"
    axis.axes.set(**{f"{name}scale": "log"})
    low, high = axis.get_view_interval()
    if high / low < _LEAST_RATIO:
        margin = (_LEAST_RATIO * low / high) ** 0.5
        low, high = low / margin, high * margin
    axis.axes.set(**{f"{name}lim": (low, high)})
    axis.set_minor_formatter(NullFormatter())
    if high / low <= _PLAIN_RATIO:
        axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def room_above(axes: Axes, rows: int) -> None:
    """Raise the upper end of a linear vertical axis, so that a legend has a place of its own; after drawing.

    Parameters
    ----------
    axes
        Axes to change.
    rows
        Entries of the legend.
    """
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + min(0.08 * (rows + 1), 0.6) * (high - low))


def over_points(width: float) -> list[AbstractPathEffect]:
    """Effects that set a line off from points of its own colour, by a white edge.

    Parameters
    ----------
    width
        Width of the line in points.

    Returns
    -------
    list[AbstractPathEffect]
        For the `path_effects` of a line.
    """
    return [Stroke(linewidth=width + 1.6, foreground="white"), Normal()]


def frequency_unit(unit: FrequencyUnit) -> str:
    """A unit of frequency as the label of an axis.

    Parameters
    ----------
    unit
        The unit.

    Returns
    -------
    str
        Text for matplotlib.
    """
    return "cm$^{-1}$" if unit == "cm-1" else unit

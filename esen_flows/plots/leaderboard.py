"""Two metrics of many models against each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from esen_flows.errors import InputError
from esen_flows.plots.style import FAINT, INK, PALETTE, new_figure, save

_MARKER_RADIUS_PIXELS = 3.5


@dataclass(frozen=True)
class ModelPoint:
    """One model in the plane of two metrics.

    Attributes
    ----------
    name
        Name of the model.
    x
        Value of the metric on the horizontal axis.
    y
        Value of the metric on the vertical axis.
    conservative
        Whether forces are derivatives of the energy; None where that is not known.
    own
        Whether the values are this database's and not published ones.
    """

    name: str
    x: float
    y: float
    conservative: bool | None
    own: bool = False


def plot_models(points: Sequence[ModelPoint], x_label: str, y_label: str, path: str | Path) -> Path:
    """Models as points in the plane of two metrics; conservative and direct force fields differ in colour.

    Points get their names where there is room for them.

    Parameters
    ----------
    points
        Models; those of this database are drawn as stars, with their names.
    x_label
        Name of the first metric, with its unit.
    y_label
        Name of the second metric, with its unit.
    path
        PNG file to write; an SVG file is written beside it.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        No model has both metrics.
    """
    if not points:
        raise InputError(f"no model has both {x_label} and {y_label}")
    kinds = (
        (True, "conservative forces", PALETTE[0]),
        (False, "direct forces", PALETTE[1]),
        (None, "no forces", FAINT),
    )
    with new_figure(6.4, 4.6) as figure:
        axes = figure.subplots()
        for conservative, label, colour in kinds:
            chosen = [p for p in points if p.conservative is conservative and not p.own]
            if chosen:
                axes.scatter([p.x for p in chosen], [p.y for p in chosen], s=22, color=colour, label=label, alpha=0.85)
        own = [p for p in points if p.own]
        if own:
            axes.scatter(
                [p.x for p in own],
                [p.y for p in own],
                s=120,
                marker="*",
                color=PALETTE[2],
                label="this database",
                zorder=3,
            )
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend(fontsize=8, loc="best")
        figure.draw_without_rendering()  # so that the sizes of the names are known
        _name(axes, sorted(points, key=lambda point: not point.own))
        return save(figure, path, f"{len(points)} models")


def _name(axes: Axes, points: Sequence[ModelPoint]) -> None:
    """Write the names of points that cover neither another name nor another point; the first points come first."""
    middle = sum(axes.get_xlim()) / 2
    positions = axes.transData.transform([(point.x, point.y) for point in points])
    taken: list[Bbox] = []
    for point in points:
        side = -1 if point.x > middle else 1
        text = axes.annotate(
            point.name, (point.x, point.y), xytext=(5 * side, 0), textcoords="offset points", va="center",
            ha="right" if side < 0 else "left", fontsize=7, color=INK,
        )  # fmt: skip
        box = text.get_window_extent()
        covers = any(box.padded(_MARKER_RADIUS_PIXELS).contains(*other) for other in positions)
        if not point.own and (covers or box.count_overlaps(taken)):
            text.remove()
        else:
            taken.append(box)

"""Figures of predicted stability and of values against DFT's, a curve or a panel for each force field."""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from esen_flows.errors import InputError
from esen_flows.plots.style import FAINT, INK, PALETTE, new_figure, save

Floats = NDArray[np.float64]
_LINES = ("-", "--", ":", "-.")
_MANY = 1_000  # points that are drawn as their density
_COLUMNS = 3
_DRAWN = 600  # points of a curve, which are more than a figure has pixels


def _styles(names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names with a colour each, and another kind of line when the colours begin again."""
    for i, name in enumerate(names):
        yield name, {"color": PALETTE[i % len(PALETTE)], "linestyle": _LINES[i // len(PALETTE) % len(_LINES)]}


def _check(curves: Mapping[str, object], title: str) -> None:
    if not curves:
        raise InputError(f"nothing to plot: no force field of {title} has such a curve")


def plot_roc(curves: Mapping[str, tuple[Floats, Floats, float]], path: str | Path, title: str) -> Path:
    """Rate of true positives against that of false positives.

    Parameters
    ----------
    curves
        (n,) rates of false and of true positives, and the area under the curve, by label of the force field.
    path
        PNG file to write; an SVG file is written beside it.
    title
        Name of the campaign or of the crystals.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        There is no curve.
    """
    _check(curves, title)
    with new_figure(4.4, 4.2) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=FAINT, lw=0.8, label="chance  (area 0.500)")
        for model, style in _styles([*curves]):
            false, true, area = curves[model]
            axes.plot(false, true, label=f"{model}  (area {area:.3f})", **style)
        axes.set(
            xlabel="Rate of false positives", ylabel="Rate of true positives", title=title, aspect="equal",
            xlim=(-0.01, 1.01), ylim=(-0.01, 1.01),
        )  # fmt: skip
        axes.legend(loc="lower right")
        return save(figure, path, f"{title}, ROC curves of stability")


def plot_rolling_errors(curves: Mapping[str, tuple[Floats, Floats, Floats]], path: str | Path, title: str) -> Path:
    """Mean absolute error of the hull distance against DFT's distance, with bands of one standard error.

    In the grey triangle the error is larger than the distance, so that stability cannot be told.

    Parameters
    ----------
    curves
        (n,) DFT's distances, mean absolute errors and standard errors in eV/atom, by label of the force field.
    path
        PNG file to write; an SVG file is written beside it.
    title
        Name of the campaign or of the crystals.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        There is no curve.
    """
    _check(curves, title)
    with new_figure() as figure:
        axes = figure.subplots()
        highest = 1.08 * 1000 * max(float(np.nanmax(np.append(mean, 0.02))) for _, mean, _ in curves.values())
        axes.fill([-highest, 0, highest], [highest, 0, highest], color=FAINT, alpha=0.18, lw=0)
        for model, style in _styles([*curves]):
            centres, mean, deviation = (1000 * values for values in curves[model])
            axes.plot(centres, mean, label=model, **style)
            axes.fill_between(centres, mean - deviation, mean + deviation, color=style["color"], alpha=0.2, lw=0)
        limits = 1000 * next(iter(curves.values()))[0][[0, -1]]
        axes.set(
            xlabel="Hull distance by DFT (meV/atom)", ylabel="Mean absolute error (meV/atom)", title=title,
            xlim=limits.tolist(), ylim=(0, highest),
        )  # fmt: skip
        axes.legend(loc="best")
        return save(figure, path, f"{title}, errors near the hull")


def plot_precision_recall(curves: Mapping[str, tuple[Floats, Floats, Floats]], path: str | Path, title: str) -> Path:
    """Precision and recall of the crystals that are predicted most stable, against their number.

    Parameters
    ----------
    curves
        (n,) numbers of crystals, precision and recall by label of the force field.
    path
        PNG file to write; an SVG file is written beside it.
    title
        Name of the campaign or of the crystals.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        There is no curve.
    """
    _check(curves, title)
    with new_figure(7.6, 3.6) as figure:
        left, right = figure.subplots(1, 2, sharex=True)
        for model, style in _styles([*curves]):
            k, precision, recall = curves[model]
            half = _DRAWN // 2
            shown = np.unique(np.concatenate([np.geomspace(1, len(k), half), np.linspace(1, len(k), half)]).astype(int))
            marker = "o" if len(k) == 1 else ""
            for axes, values in ((left, precision), (right, recall)):
                axes.plot(k[shown - 1], values[shown - 1], label=model, marker=marker, **style)
                axes.plot(k[-1:], values[-1:], marker="o", ms=3.5, color=style["color"])
        for axes, name in ((left, "Precision"), (right, "Recall")):
            axes.set(xlabel="Crystals, the most stable first", ylabel=name, ylim=(0, 1.02))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        left.set_title(title)
        right.legend(loc="best")
        return save(figure, path, f"{title}, precision and recall of the most stable")


def plot_parity(
    pairs: Mapping[str, tuple[Floats, Floats]],
    quantity: str,
    path: str | Path,
    title: str,
    *,
    logarithmic: bool = False,
) -> Path:
    """Values of force fields against DFT's, a panel for each force field; more than 1,000 points as their density.

    Parameters
    ----------
    pairs
        (n,) DFT's values and (n,) predicted ones by label of the force field; pairs with NaN are left out.
    quantity
        Name of the quantity with its unit.
    path
        PNG file to write; an SVG file is written beside it.
    title
        Name of the campaign or of the crystals.
    logarithmic
        Whether the axes are; pairs that are not positive are then left out.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        There is no pair.
    """
    shown = {model: kept for model, (true, own) in pairs.items() if len((kept := _finite(true, own, logarithmic))[0])}
    _check(shown, title)
    columns = 2 if len(shown) == 4 else min(len(shown), _COLUMNS)
    rows = ceil(len(shown) / columns)
    low, high = _limits(list(shown.values()), logarithmic)
    with new_figure(3.3 * columns + 0.6, 3.3 * rows + 0.3) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        for axes, (model, (true, own)) in zip(panels, shown.items(), strict=False):
            if logarithmic:
                axes.set(xscale="log", yscale="log")
            axes.plot([low, high], [low, high], color=INK, lw=0.8, zorder=3)
            _points(axes, true, own, (low, high), logarithmic)
            inside = (np.minimum(true, own) >= low) & (np.maximum(true, own) <= high)
            outside = f", {int((~inside).sum()):,} outside" if not inside.all() else ""
            axes.set_title(f"{model}\n{len(true):,} points{outside}", fontsize=8)
            axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
            if not logarithmic:  # the same marks on both axes, few enough for their numbers
                axes.xaxis.set_major_locator(MaxNLocator(5))
                axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.tick_params(labelsize=8)
        figure.supxlabel(f"{quantity}, DFT", fontsize=9)
        figure.supylabel(f"{quantity}, force field", fontsize=9)
        figure.suptitle(title, fontsize=10, x=0.02, ha="left")
        return save(figure, path, f"{title}, {quantity} against DFT")


def _finite(true: Floats, own: Floats, positive: bool) -> tuple[Floats, Floats]:
    kept = np.isfinite(true) & np.isfinite(own)
    if positive:
        kept &= np.minimum(true, own) > 0
    return true[kept], own[kept]


def _limits(pairs: Sequence[tuple[Floats, Floats]], logarithmic: bool) -> tuple[float, float]:
    """The same limits for both axes and all panels, without the last thousandths of many points."""
    values = np.concatenate([np.concatenate(pair) for pair in pairs])
    values = np.log10(values) if logarithmic else values
    share = 0.001 if len(values) > _MANY else 0.0
    low, high = np.quantile(values, [share, 1 - share]).tolist()
    margin = 0.04 * (high - low) or 0.5
    low, high = low - margin, high + margin
    return (10**low, 10**high) if logarithmic else (low, high)


def _points(axes: Axes, true: Floats, own: Floats, limits: tuple[float, float], logarithmic: bool) -> None:
    if len(true) <= _MANY:
        axes.scatter(true, own, s=24 if len(true) < _MANY // 10 else 5, color=PALETTE[0], alpha=0.7, lw=0)
        return
    low, high = np.log10(limits) if logarithmic else limits
    kind: Literal["log", "linear"] = "log" if logarithmic else "linear"
    drawn = axes.hexbin(
        true, own, gridsize=60, extent=(low, high, low, high), xscale=kind, yscale=kind, mincnt=1, cmap="viridis",
        norm=LogNorm(), linewidths=0.1,
    )  # fmt: skip
    axes.figure.colorbar(drawn, ax=axes, shrink=0.7, label="points", pad=0.02)

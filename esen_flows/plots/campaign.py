"""Figures of a campaign: members against time, the distribution of the property, and the cost of members."""

from collections.abc import Mapping
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from esen_flows.errors import InputError
from esen_flows.plots.axes import logarithmic, over_points, room_above
from esen_flows.plots.style import FAINT, PALETTE, field_text, new_figure, save

# Axis labels of the principal numbers of properties, and whether the numbers span decades.
_AXES = {
    "energy_per_atom_ev": ("Energy (eV/atom)", False),
    "max_frequency_thz": ("Highest frequency (THz)", False),
    "kappa_rta_w_per_m_k": (r"$\kappa$ by RTA near 300 K (W m$^{-1}$ K$^{-1}$)", True),
}
_MOST_POINTS = 2000  # per curve; more cannot be seen
_MOST_VECTORS = 3000  # markers; a larger number would make an SVG file of many MB and is drawn as pixels
_MOST_BINS = 80
_FEW = 40  # members up to which every one is drawn; a histogram of so few shows its own edges


def plot_progress(finished: np.ndarray, failed: np.ndarray, path: str | Path, name: str) -> Path:
    """Number of members that were done, and of those that had failed, against the time since the first.

    Parameters
    ----------
    finished, failed
        (n,) times at which members were done, in seconds since any origin and in any order.
    path
        PNG file to write; an SVG file is written beside it.
    name
        Name of the campaign.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        No member is done.
    """
    done = np.sort(np.concatenate([finished, failed]))
    if len(done) == 0:
        raise InputError(f"nothing to plot: no member of {name} is done")
    longest = done[-1] - done[0]
    scales = (("Hours", 3600.0), ("Minutes", 60.0), ("Seconds", 1.0))
    unit, seconds = next((scale for scale in scales if longest > 2 * scale[1]), scales[-1])
    until = max(longest, 1.0) / seconds
    with new_figure() as figure:
        axes = figure.subplots()
        for moments, color, label in ((done, PALETTE[0], "done"), (np.sort(failed), PALETTE[1], "of these failed")):
            if len(moments):
                chosen = np.unique(np.linspace(0, len(moments) - 1, _MOST_POINTS).astype(int))
                times = (moments[chosen] - done[0]) / seconds
                # A curve ends where the campaign does, not at its own last member.
                steps = [*times, until], [*(chosen + 1), len(moments)]
                axes.step(*steps, where="post", color=color, label=label)
                if len(moments) <= _FEW:
                    axes.plot(times, chosen + 1, "o", color=color, clip_on=False)
        # Without limits, members that were done at one moment would get an axis from -0.05 to 0.05.
        axes.set(xlim=(0, until), xlabel=f"{unit} since the first member was done")
        axes.set(ylim=(0, 1.25 * len(done)), ylabel="Members")  # room for the legend
        axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=(1, 2, 2.5, 5, 10)))
        axes.set_title(f"{name}  ·  {len(done)} members done")
        axes.legend(loc="upper left")
        return save(figure, path, f"campaign {name}, progress")


def plot_distribution(values: Mapping[str, np.ndarray], field: str, path: str | Path, name: str) -> Path:
    """Distribution of the principal number over the members, by force field: of few members every one, else histograms.

    Parameters
    ----------
    values
        (n,) numbers by label of the force field, in the unit that `field` names.
    field
        Summary field of the results, such as "energy_per_atom_ev".
    path, name
        As for `plot_progress`.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        There are no values.
    """
    everything = np.concatenate([*values.values(), np.empty(0)])
    label, decades = _AXES.get(field, (field_text(field), False))
    if decades:
        everything = everything[everything > 0]
    if len(everything) == 0:
        raise InputError(f"nothing to plot: no finished member of {name} has {field}")
    most = max(map(len, values.values()))
    with new_figure() as figure:
        axes = figure.subplots()
        if most <= _FEW:
            _draw_members(axes, values, everything)
            title = f"{name}  ·  line: median"
        else:
            _draw_histograms(axes, values, _edges(everything, most, decades))
            title = f"{name}  ·  dotted: medians"
            room_above(axes, len(values))
        axes.set(xlabel=label, title=title)
        if decades:
            logarithmic(axes.xaxis)
        return save(figure, path, f"campaign {name}, distribution of {field}")


def _draw_members(axes: Axes, values: Mapping[str, np.ndarray], shown: np.ndarray) -> None:
    """A row of points for each force field, with a line at the median."""
    for row, ((_, numbers), color) in enumerate(zip(values.items(), PALETTE * len(values), strict=False)):
        numbers = numbers[np.isin(numbers, shown)]  # a logarithmic axis has no place for others
        axes.plot(numbers, np.full(len(numbers), row), "o", color=color, alpha=0.5, markersize=7, markeredgewidth=0)
        if len(numbers):
            axes.plot(2 * [np.median(numbers)], [row - 0.25, row + 0.25], color=color, linewidth=1.4)
    axes.set_yticks(range(len(values)), [f"{model} ({len(numbers)})" for model, numbers in values.items()])
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.margins(x=0.05)


def _draw_histograms(axes: Axes, values: Mapping[str, np.ndarray], edges: np.ndarray) -> None:
    for (model, numbers), color in zip(values.items(), PALETTE * len(values), strict=False):
        if len(numbers):
            axes.stairs(np.histogram(numbers, edges)[0], edges, color=color, linewidth=1.4, label=model)
            axes.axvline(float(np.median(numbers)), color=color, linewidth=0.8, linestyle=":")
    axes.set(ylabel="Members per bin")
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=(1, 2, 2.5, 5, 10)))
    axes.legend(loc="upper right")


def _edges(values: np.ndarray, most: int, decades: bool) -> np.ndarray:
    """Edges of bins that all force fields share; their number is that of Rice's rule for `most` values."""
    low, high = values.min(), values.max()
    if low == high:
        return np.array([0.9, 1.1]) * low if decades else np.array([low - 0.5, high + 0.5])
    count = min(_MOST_BINS, ceil(2 * most ** (1 / 3)))
    return np.geomspace(low, high, count + 1) if decades else np.linspace(low, high, count + 1)


def plot_cost(atoms: Mapping[str, np.ndarray], seconds: Mapping[str, np.ndarray], path: str | Path, name: str) -> Path:
    """Computing time of each member against its size, by force field, with medians over members of equal size.

    Parameters
    ----------
    atoms, seconds
        (n,) by label of the force field: atoms of the input structure, and seconds on one device.
    path, name
        As for `plot_progress`.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        No member was computed, or its members are force fields and have no atoms.
    """
    if not any(np.any((cost > 0) & (atoms[model] > 0)) for model, cost in seconds.items()):
        raise InputError(f"nothing to plot: no member of {name} was computed")
    total = sum(map(len, seconds.values()))
    many, few = total > _MOST_VECTORS, total <= _FEW
    with new_figure() as figure:
        axes = figure.subplots()
        for (model, cost), color in zip(seconds.items(), PALETTE * len(seconds), strict=False):
            known = cost > 0  # stored results cost nothing, which has no place on a logarithmic axis
            size, cost = atoms[model][known], cost[known]
            axes.scatter(
                size,
                cost,
                s=20 if few else 6,
                color=color,
                alpha=0.2 if many else 0.5,
                linewidths=0,
                label=model,
                rasterized=many,
            )
            sizes = np.unique(size)
            if not few:  # a line from point to point would look like a law
                medians = [np.median(cost[size == each]) for each in sizes]
                axes.plot(sizes, medians, color=color, zorder=3, path_effects=over_points(1.4))
        axes.set(xlabel="Atoms in the input structure", ylabel="Time per member (s)")
        logarithmic(axes.xaxis)
        logarithmic(axes.yaxis)
        axes.grid(visible=True, color=FAINT, linewidth=0.3)
        axes.set_title(name if few else f"{name}  ·  line: medians")
        marks = axes.legend(markerscale=1 if few else 2, loc="upper left").legend_handles
        for mark in filter(None, marks):
            mark.set_alpha(1.0)
        return save(figure, path, f"campaign {name}, cost")

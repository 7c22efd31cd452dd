"""Learning curves of trainings with one or several stages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes

from esen_flows.errors import InputError
from esen_flows.plots.axes import logarithmic
from esen_flows.plots.style import PALETTE, new_figure, save

Row = Mapping[str, float]


@dataclass(frozen=True)
class StageCurves:
    """Tables of one stage.

    Attributes
    ----------
    steps
        Rows of steps.csv, one per logged step.
    history
        Rows of history.csv, one per validation.
    """

    steps: Sequence[Row]
    history: Sequence[Row]


_PANELS = (
    ("loss", "steps", "Training loss"),
    ("energy_mae_mev_per_atom", "history", "Held-out energy MAE (meV/atom)"),
    ("force_mae_mev_per_angstrom", "history", "Held-out force MAE (meV/Å)"),
)


def plot_learning_curves(
    runs: Mapping[str, Sequence[StageCurves]], path: str | Path, *, clock: Literal["seconds", "cpu_seconds"] = "seconds"
) -> Path:
    """Training loss and held-out errors against the time spent on steps, stage after stage.

    Parameters
    ----------
    runs
        Stages of each run, by its name in the legend.
    path
        PNG file to write; an SVG file is written beside it.
    clock
        Column with the time; "cpu_seconds" compares trainings on a machine that others use too.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        No stage has been validated yet.
    """
    if not any(stage.history and stage.steps for stages in runs.values() for stage in stages):
        raise InputError("nothing to plot: no stage has been validated yet")
    with new_figure(10.0, 3.4) as figure:
        panels = figure.subplots(1, len(_PANELS))
        for (column, table, title), axes in zip(_PANELS, panels, strict=True):
            for (name, stages), color in zip(runs.items(), PALETTE * len(runs), strict=False):
                _draw(axes, stages, table, column, color, name, clock)
            minutes = "Minutes of training" if clock == "seconds" else "CPU minutes of training"
            axes.set(xlabel=minutes, ylabel=title)
            logarithmic(axes.yaxis)
        if len(runs) > 1:
            panels[-1].legend()
        else:
            panels[0].set_title(next(iter(runs)))
        return save(figure, path, f"training {', '.join(runs)}")


def _draw(
    axes: Axes, stages: Sequence[StageCurves], table: str, column: str, color: str, name: str, clock: str
) -> None:
    begin = 0.0
    for number, stage in enumerate(stages):
        rows = getattr(stage, table)
        minutes = np.array([begin + row[clock] / 60 for row in rows])
        values = np.array([row[column] for row in rows])
        if table == "steps":
            values = _smooth(values)
        axes.plot(minutes, values, color=color, label=name if number == 0 else None)
        if number:
            axes.axvline(begin, color=color, linewidth=0.6, linestyle=":")
        ends = [row[clock] / 60 for row in (*stage.steps, *stage.history)]
        begin += max(ends, default=0.0)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Medians over nine steps, because single batches differ by more than the loss falls from one to the next."""
    return np.array([np.median(values[max(0, i - 4) : i + 5]) for i in range(len(values))])

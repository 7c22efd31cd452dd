"""Cumulative distributions of the distances between relaxed structures and DFT's."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from esen_flows.errors import InputError
from esen_flows.plots.style import PALETTE, new_figure, save

Curve = tuple[Sequence[float], Sequence[float], float]


def plot_cumulative_distances(curves: Mapping[str, Curve], path: str | Path, name: str) -> Path:
    """Fraction of the structures below each distance, a curve for each force field.

    Parameters
    ----------
    curves
        Distances, fractions, and area under the curve relative to 1, by label of the force field.
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
        There is no curve.
    """
    if not curves:
        raise InputError(f"nothing to plot: no structure of {name} was compared with DFT's")
    with new_figure() as figure:
        axes = figure.subplots()
        for (model, (distances, fractions, area)), color in zip(curves.items(), PALETTE * len(curves), strict=False):
            axes.plot(distances, fractions, color=color, label=f"{model}  (area {area:.3f})")
        axes.set(
            xlabel="RMSD / (volume per atom)$^{1/3}$", ylabel="Fraction of structures", title=name, ylim=(0.0, 1.02)
        )
        axes.legend(loc="lower right")
        return save(figure, path, f"campaign {name}, distances from DFT's structures")

"""Energies of the structures that an exploration found, by the number of modes that were followed."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from esen_flows.plots.style import FAINT, INK, PALETTE, new_figure, origin_of, output_of, save, set_title
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.exploration import Branch, lowest_branch

_HALF_WIDTH = 0.22  # of the bar of a structure, in depths
_LINES = 18  # of text that fit above one another


def plot_branches(document: ResultDocument, path: str | Path) -> Path:
    """Energy of each structure above the lowest one in meV per atom, joined with the structure that was displaced.

    Parameters
    ----------
    document
        Finished relaxation with symmetry="explore".
    path
        PNG file to write; an SVG file is written beside it.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        The document is not a finished relaxation.
    """
    branches = [Branch.model_validate(one) for one in output_of(document, "relax")["branches"]]
    lowest = lowest_branch(branches)
    energies = np.array([np.nan if one.energy_per_atom_ev is None else one.energy_per_atom_ev for one in branches])
    heights = 1000.0 * (energies - energies[lowest])
    depths = max(branch.depth for branch in branches)
    with new_figure(width_inch=3.2 + 1.6 * depths) as figure:
        axes = figure.subplots()
        for number, branch in enumerate(branches):
            color = PALETTE[1] if number == lowest else PALETTE[0]
            ends = branch.depth - _HALF_WIDTH, branch.depth
            axes.plot(ends, [heights[number]] * 2, color=color, linewidth=2.0, solid_capstyle="butt")
            if branch.parent is not None:
                steps = branches[branch.parent].depth, ends[0]
                axes.plot(steps, [heights[branch.parent], heights[number]], color=FAINT, linewidth=0.7, zorder=0)
        spread = max(np.nanmax(heights) - np.nanmin(heights), 1e-3)
        for depth in range(depths + 1):
            here = [number for number, branch in enumerate(branches) if branch.depth == depth and not branch.failure]
            _name(axes, branches, here, heights, spread / _LINES)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="Modes followed", ylabel="Energy above the lowest structure (meV/atom)")
        axes.set_xlim(-0.3, depths + 0.75)
        failed = sum(branch.failure is not None for branch in branches)
        remark = f"{len(branches)} structures" + (f", {failed} failed" if failed else "")
        set_title(axes, [document], remark, f"lowest: {branches[lowest].verdict}")
        return save(figure, path, origin_of(document))


def _name(axes: Axes, branches: list[Branch], numbers: list[int], heights: np.ndarray, apart: float) -> None:
    """Write symbols beside the bars of one depth; equal ones at one height once, and none over another."""
    last, seen = -np.inf, set()
    for number in sorted(numbers, key=lambda one: heights[one]):
        text = str(branches[number].space_group_symbol)
        if (text, round(heights[number] / apart)) in seen:
            continue
        seen.add((text, round(heights[number] / apart)))
        last = max(heights[number], last + apart)
        axes.text(branches[number].depth + 0.04, last, text, va="center", fontsize=7, color=INK)

"""The energy along a relaxation."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from esen_flows.plots.style import FAINT, PALETTE, new_figure, origin_of, output_of, save, set_title
from esen_flows.schemas.documents import ResultDocument

# Below this many meV per atom the axis is linear, so that the rounding noise of the last steps does not fill decades.
_LINEAR_MEV = 1e-3
_MOST_MARKERS = 200


def plot_relaxation(document: ResultDocument, path: str | Path) -> Path:
    """Energy above that of the last step, in meV per atom, step by step.

    Parameters
    ----------
    document
        Finished relaxation.
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
    output = output_of(document, "relax")
    energies = np.asarray(output["energies_ev"], dtype=float)
    relative = 1000.0 * (energies - energies[-1]) / len(np.asarray(output["structure"]["numbers"]))
    with new_figure() as figure:
        axes = figure.subplots()
        axes.axhline(0.0, color=FAINT, linewidth=0.6, zorder=0)
        look: dict[str, Any] = (
            {"marker": "o", "markersize": 3} if len(relative) <= _MOST_MARKERS else {"linewidth": 0.8}
        )
        axes.plot(np.arange(len(relative)), relative, color=PALETTE[0], **look)
        axes.set_yscale("symlog", linthresh=_LINEAR_MEV)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="Step", ylabel="Energy above the last step (meV/atom)")
        state = "converged" if output["converged"] else "not converged"
        set_title(axes, [document], f"{state}, largest force {output['fmax_ev_per_angstrom']:.1e} eV/Å")
        return save(figure, path, origin_of(document))

"""Curves of diatomic molecules, a small panel for each element."""

from collections.abc import Mapping
from math import ceil
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray

from esen_flows.plots.style import FAINT, PALETTE, new_figure, origin_of, output_of, save
from esen_flows.schemas.diatomics import DiatomicsOutput
from esen_flows.schemas.documents import ResultDocument

_COLUMNS = 11
_HIGHEST_EV = 10.0  # above the end of the curve
Floats = NDArray[np.float64]


def plot_diatomics(
    document: ResultDocument, path: str | Path, reference: Mapping[str, tuple[Floats, Floats]] | None = None
) -> Path:
    """Energies against the separation from 0.8 covalent radii on, relative to the largest separation.

    Parameters
    ----------
    document
        Finished curves.
    path
        PNG file to write; an SVG file is written beside it.
    reference
        Separations (n,) in Angstrom and energies (n,) in eV by DFT, by element; None: none are drawn.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        The document is not a finished result of this kind.
    """
    output = DiatomicsOutput.model_validate(output_of(document, "diatomics"))
    rows = ceil(len(output.elements) / _COLUMNS)
    columns = min(len(output.elements), _COLUMNS)
    with new_figure(max(1.0 * columns, 4.0), 0.85 * rows + 0.8) as figure:
        panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        for panel in panels[len(output.elements) :]:
            panel.set_axis_off()
        for panel, element, energies in zip(panels, output.elements, output.energies_ev, strict=False):
            curves = [(np.asarray(output.distances_angstrom), energies, PALETTE[0])]
            if reference is not None and element in reference:
                curves.insert(0, (*reference[element], FAINT))
            for distances, values, colour in curves:
                shown = distances >= 0.8 * covalent_radii[atomic_numbers[element]]
                relative = values[shown] - values[-1]
                panel.plot(distances[shown], np.where(relative < _HIGHEST_EV, relative, np.nan), color=colour, lw=0.9)
            panel.set_title(element, fontsize=7, pad=1.5)
            panel.tick_params(labelsize=5, length=1.5, pad=1)
        figure.supxlabel("Separation (Å)", fontsize=8)
        figure.supylabel("Energy (eV)", fontsize=8)
        title = document.model_label + ("" if reference is None else "  ·  PBE in grey")
        figure.suptitle(title, fontsize=9, x=0.02, ha="left")
        return save(figure, path, origin_of(document))

"""Thermal properties of harmonic phonons against temperature."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.constants import R

from esen_flows.plots.style import FAINT, labelled, new_figure, origin_of, output_of, save, set_title
from esen_flows.schemas.documents import ResultDocument


def plot_thermal(document: ResultDocument, path: str | Path, others: Sequence[ResultDocument] = ()) -> Path:
    """Helmholtz free energy, and entropy and heat capacity, per mole of primitive cells.

    Parameters
    ----------
    document
        Finished phonon calculation.
    path
        PNG file to write; an SVG file is written beside it.
    others
        Phonons of the same crystal to draw in the same figure, for example of other force fields.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        A document is not a finished phonon calculation.
    """
    documents = [document, *others]
    outputs = [output_of(each, "phonon") for each in documents]
    atoms = len(np.asarray(outputs[0]["structure"]["numbers"]))
    with new_figure(8.0, 3.8) as figure:
        energy, heat = figure.subplots(1, 2)
        energy.axhline(0.0, color=FAINT, linewidth=0.6, zorder=0)
        heat.axhline(3 * atoms * R, color=FAINT, linewidth=0.9, linestyle=":", label="3NR", zorder=0)
        for output, label, colour in labelled(documents, outputs):
            temperatures = np.asarray(output["temperatures_kelvin"])
            look: dict[str, Any] = {"color": colour, "marker": "o" if len(temperatures) == 1 else ""}
            energy.plot(temperatures, output["free_energy_kj_per_mol"], label=label, **look)
            heat.plot(temperatures, output["heat_capacity_j_per_k_mol"], label="_" if others else "C$_V$", **look)
            entropy = "_" if others else "S"
            heat.plot(temperatures, output["entropy_j_per_k_mol"], linestyle="--", label=entropy, **look)
        if others:
            # Colours tell results apart and lines quantities, so that the legend names each once.
            heat.plot([], [], color="black", label="C$_V$")
            heat.plot([], [], color="black", linestyle="--", label="S")
            figure.legend(*energy.get_legend_handles_labels(), loc="outside lower left", ncols=2)
        heat.legend(loc="best")
        energy.set(xlabel="Temperature (K)", ylabel="Free energy (kJ/mol)")
        heat.set(xlabel="Temperature (K)", ylabel="C$_V$, S (J K$^{-1}$ mol$^{-1}$)", ylim=(0.0, None))
        cells = f"per mol of primitive cells ({atoms} atom{'s' if atoms > 1 else ''})"
        set_title(energy, documents, cells)
        return save(figure, path, origin_of(document))

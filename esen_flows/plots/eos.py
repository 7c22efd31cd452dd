"""Energy against volume, with the fitted equation of state."""

from pathlib import Path

import numpy as np

from esen_flows.physics.eos import evaluated
from esen_flows.plots.style import FAINT, PALETTE, new_figure, origin_of, output_of, save, set_title
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.eos import EosOutput

_NAMES = {"birch_murnaghan": "Birch-Murnaghan", "vinet": "Vinet"}


def plot_eos(document: ResultDocument, path: str | Path) -> Path:
    """Energies above the least one, in meV per atom, and the curves of both equations.

    Parameters
    ----------
    document
        Finished equation of state.
    path
        PNG file to write; an SVG file is written beside it.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        The document is not a finished equation of state.
    """
    output = EosOutput.model_validate(output_of(document, "eos"))
    volumes, answer = output.volumes_per_atom_angstrom3, output.fits[output.equation]
    fine = np.linspace(volumes[0], volumes[-1], 200)
    with new_figure() as figure:
        axes = figure.subplots()
        for number, (name, fit) in enumerate(sorted(output.fits.items())):
            curve = 1000.0 * (evaluated(name, fit, fine) - answer.energy_per_atom_ev)
            axes.plot(fine, curve, color=PALETTE[number], linestyle=("-", "--")[number], label=_NAMES[name])
        relative = 1000.0 * (output.energies_per_atom_ev - answer.energy_per_atom_ev)
        axes.plot(volumes, relative, "o", color="black", markersize=4, label="relaxed")
        axes.axvline(answer.volume_per_atom_angstrom3, color=FAINT, linewidth=0.6, zorder=0)
        axes.set(xlabel="Volume (Å$^3$/atom)", ylabel="Energy above the minimum (meV/atom)")
        axes.legend()
        modulus = f"B$_0$ = {answer.bulk_modulus_gpa:.1f} ± {answer.bulk_modulus_interval_gpa:.2g} GPa"
        set_title(axes, [document], modulus, f"B$_0$′ = {answer.bulk_modulus_derivative:.2f}")
        return save(figure, path, origin_of(document))

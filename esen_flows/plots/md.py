"""A trajectory: energies, temperature, pair distances, displacements and vibrations."""

from pathlib import Path

import numpy as np

from esen_flows.plots.axes import frequency_unit
from esen_flows.plots.style import FAINT, PALETTE, new_figure, origin_of, output_of, save, set_title
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.md_output import MDOutput
from esen_flows.units import PER_THZ, FrequencyUnit

_SHOWN = 0.99  # fraction of the vibrations whose frequencies are drawn


def plot_md(document: ResultDocument, path: str | Path, *, unit: FrequencyUnit = "THz") -> Path:
    """Energy without the heat of the thermostat, temperature, g(r), displacements and vibrations.

    Parameters
    ----------
    document
        Finished molecular dynamics.
    path
        PNG file to write; an SVG file is written beside it.
    unit
        Unit of the frequencies.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        The document is not finished molecular dynamics.
    """
    output = MDOutput.model_validate(output_of(document, "md"))
    times, conserved = output.times_ps, output.conserved_energies_ev
    with new_figure(8.0, 5.6) as figure:
        grid = figure.subplots(2, 2)
        energy, temperature, (pairs, vibrations) = grid[0, 0], grid[0, 1], grid[1]
        energy.plot(times, 1000.0 * (conserved - conserved[0]) / len(output.structure.numbers), color=PALETTE[0])
        energy.set(xlabel="Time (ps)", ylabel="Conserved energy (meV/atom)")
        temperature.axhline(output.temperature_kelvin, color=FAINT, linewidth=0.6, zorder=0)
        temperature.plot(times, output.temperatures_kelvin, color=PALETTE[1], linewidth=0.8)
        temperature.set(xlabel="Time (ps)", ylabel="Temperature (K)")
        if output.rdf is not None and output.rdf_distances_angstrom is not None:
            pairs.axhline(1.0, color=FAINT, linewidth=0.6, zorder=0)
            pairs.plot(output.rdf_distances_angstrom, output.rdf, color=PALETTE[2])
            pairs.set(xlabel="Distance (Å)", ylabel="g(r)")
        else:
            pairs.plot(output.msd_times_ps, output.msd_angstrom2, color=PALETTE[2])
            pairs.set(xlabel="Time (ps)", ylabel="Mean square displacement (Å$^2$)")
        vibrations.plot(PER_THZ[unit] * output.vdos_frequencies_thz, output.vdos / PER_THZ[unit], color=PALETTE[3])
        within = np.cumsum(output.vdos) < _SHOWN * output.vdos.sum()
        vibrations.set_xlim(0.0, 1.1 * PER_THZ[unit] * float(output.vdos_frequencies_thz[within].max(initial=1.0)))
        text = frequency_unit(unit)
        vibrations.set(xlabel=f"Frequency ({text})", ylabel=f"Density of states (1/{text})")
        drift = output.drift
        words = (
            ""
            if drift is None
            else (f"drift {drift.slope_mev_per_atom_ps:.2g} ± {drift.slope_interval_mev_per_atom_ps:.1g} meV/atom/ps")
        )
        set_title(energy, [document], f"{output.temperature_kelvin:g} K, {output.time_step_fs:g} fs", words)
        return save(figure, path, origin_of(document))

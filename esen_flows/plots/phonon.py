"""Phonon bands and density of states, side by side on one frequency axis; thermal properties against temperature."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from matplotlib.axes import Axes

from esen_flows.errors import InputError
from esen_flows.plots.axes import frequency_unit
from esen_flows.plots.style import (
    FAINT,
    INK,
    PALETTE,
    labelled,
    new_figure,
    origin_of,
    output_of,
    save,
    set_title,
    shared,
)
from esen_flows.schemas.documents import ResultDocument
from esen_flows.units import PER_THZ, FrequencyUnit

_VERDICT = {"stable": "stable", "acoustic_noise": "stable (acoustic noise)", "unstable": "unstable"}


def plot_phonon(
    document: ResultDocument, path: str | Path, others: Sequence[ResultDocument] = (), unit: FrequencyUnit = "THz"
) -> Path:
    """Bands along the high-symmetry path and density of states; imaginary frequencies below zero.

    Parameters
    ----------
    document
        Finished phonon calculation.
    path
        PNG file to write; an SVG file is written beside it.
    others
        Phonons of the same crystal to draw in the same figure, for example of other force fields.
    unit
        Unit of the frequencies.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        A document is not a finished phonon calculation, or has another path through the Brillouin zone.
    """
    documents = [document, *others]
    outputs = [_in_unit(output_of(each, "phonon"), unit) for each in documents]
    with new_figure(7.0, 4.2) as figure:
        bands, dos = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1), gridspec_kw={"wspace": 0.08})
        for i, (output, label, colour) in enumerate(labelled(documents, outputs)):
            # The first document is drawn on top of the others.
            _draw_bands(bands, output, matched_distances(output, outputs[0], label), label, colour, 3.0 - 0.1 * i)
            _draw_dos(dos, output, colour, with_elements=not others)
        _finish_bands(bands, outputs, unit)
        dos.set(xlabel=f"DOS (states/{frequency_unit(unit)}/cell)", xlim=(0.0, None))
        if len(documents) > 1:
            # Below the axes, because bands leave no corner free: the acoustic ones begin in those at the bottom.
            figure.legend(*bands.get_legend_handles_labels(), loc="outside lower left", ncols=2)
        set_title(bands, documents, shared([_VERDICT[output["verdict"]] for output in outputs]))
        return save(figure, path, origin_of(document))


def _in_unit(output: dict[str, Any], unit: FrequencyUnit) -> dict[str, Any]:
    """An output whose frequencies are in another unit than their names say, and its densities of states too."""
    factor, projected = PER_THZ[unit], output.get("projected_dos_states_per_thz")
    return {
        **output,
        "band_frequencies_thz": [factor * np.asarray(bands) for bands in output["band_frequencies_thz"]],
        "dos_frequencies_thz": factor * np.asarray(output["dos_frequencies_thz"]),
        "dos_states_per_thz": np.asarray(output["dos_states_per_thz"]) / factor,
        "projected_dos_states_per_thz": None if projected is None else np.asarray(projected) / factor,
    }


def matched_distances(output: dict[str, Any], first: dict[str, Any], label: str) -> list[np.ndarray]:
    """Distances along the path, stretched segment by segment onto those of the first document.

    Force fields give slightly different lattice constants and therefore paths of slightly different lengths.

    Parameters
    ----------
    output
        Output of phonons.
    first
        That of the first document.
    label
        Name of the phonons, for the message.

    Returns
    -------
    list[np.ndarray]
        (n_points,) distances of each segment.

    Raises
    ------
    InputError
        The two have different paths.
    """
    own_path, first_path = ("-".join(each["band_labels"]) for each in (output, first))
    if own_path != first_path or len(output["band_distances"]) != len(first["band_distances"]):
        raise InputError(
            f"{label} has the path {own_path}, the first document {first_path}; give phonons along the same path"
        )
    stretched = []
    for own, reference in zip(output["band_distances"], first["band_distances"], strict=True):
        own, reference = np.asarray(own), np.asarray(reference)
        fraction = (own - own[0]) / (own[-1] - own[0])
        stretched.append(own if output is first else reference[0] + fraction * (reference[-1] - reference[0]))
    return stretched


def _draw_bands(
    axes: Axes, output: dict[str, Any], distances: list[np.ndarray], label: str, colour: str, zorder: float
) -> None:
    errors = output.get("band_frequency_errors_thz")  # from random orientations
    for i, (distance, frequencies) in enumerate(zip(distances, output["band_frequencies_thz"], strict=True)):
        lines = axes.plot(distance, frequencies, color=colour, linewidth=1.2, zorder=zorder)
        for one, error in zip(frequencies.T, errors[i].T if errors else (), strict=False):
            axes.fill_between(distance, one - error, one + error, color=colour, alpha=0.3, lw=0, zorder=zorder - 1)
        if i == 0:  # one entry in the legend for all bands
            lines[0].set_label(label)


def _draw_dos(axes: Axes, output: dict[str, Any], colour: str, *, with_elements: bool) -> None:
    """The total DOS; for a single document of several elements also the part of each element."""
    frequencies, states = np.asarray(output["dos_frequencies_thz"]), np.asarray(output["dos_states_per_thz"])
    axes.plot(states, frequencies, color=INK if with_elements else colour, linewidth=1.2, label="total")
    parts = output.get("projected_dos_states_per_thz")
    numbers = np.asarray(output["structure"]["numbers"])
    elements = np.unique(numbers)
    if not with_elements:
        return
    if parts is None or len(elements) < 2:
        axes.fill_betweenx(frequencies, 0.0, states, color=colour, alpha=0.25, linewidth=0)
        return
    for i, element in enumerate(elements):
        part = np.asarray(parts)[numbers == element].sum(axis=0)
        own = PALETTE[(i + 1) % len(PALETTE)]  # the bands have the first colour
        axes.fill_betweenx(frequencies, 0.0, part, color=own, alpha=0.25, linewidth=0)
        axes.plot(part, frequencies, color=own, linewidth=1.0, label=chemical_symbols[element])
    axes.legend(loc="best", handlelength=1.2)


def _finish_bands(axes: Axes, outputs: list[dict[str, Any]], unit: FrequencyUnit) -> None:
    positions, labels = tick_labels(outputs[0]["band_labels"], np.asarray(outputs[0]["band_label_distances"]))
    for position in positions:
        axes.axvline(position, color=FAINT, linewidth=0.6, zorder=0)
    axes.axhline(0.0, color=FAINT, linewidth=0.6, zorder=0)
    axes.set_xticks(positions, labels)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(positions[0], positions[-1])
    values = [np.asarray(f) for output in outputs for f in output["band_frequencies_thz"]]
    top, bottom = max(v.max() for v in values), min(v.min() for v in values)
    # Acoustic noise of a thousandth of a THz is not shown as imaginary frequencies.
    imaginary = bottom < -0.02 * top
    axes.set_ylim(1.08 * bottom if imaginary else 0.0, 1.05 * top)
    ylabel = f"Frequency ({frequency_unit(unit)})"
    axes.set(xlabel="Wave vector", ylabel=f"{ylabel}, imaginary below 0" if imaginary else ylabel)


def tick_labels(labels: Sequence[str], distances: np.ndarray) -> tuple[list[float], list[str]]:
    """Positions and texts of the ticks at the high-symmetry points.

    Parameters
    ----------
    labels
        Names of the points along the path.
    distances
        (n,) distances of the points along the path.

    Returns
    -------
    tuple[list[float], list[str]]
        Positions and texts; different points at one distance, where the path jumps, share a tick.

    Examples
    --------
    >>> tick_labels(["GAMMA", "X", "U", "GAMMA"], np.array([0.0, 1.0, 1.0, 2.5]))
    ([0.0, 1.0, 2.5], ['Γ', 'X|U', 'Γ'])
    """
    positions: list[float] = []
    texts: list[str] = []
    for label, distance in zip(labels, distances, strict=True):
        text = point_text(label)
        if positions and np.isclose(distance, positions[-1], atol=1e-8):
            if text != texts[-1]:
                texts[-1] = f"{texts[-1]}|{text}"
        else:
            positions.append(float(distance))
            texts.append(text)
    return positions, texts


def point_text(label: str) -> str:
    """Text for a high-symmetry point, with Greek letters and subscripts.

    Parameters
    ----------
    label
        Name of the point, or several names joined by "|".

    Returns
    -------
    str
        Text for matplotlib.

    Examples
    --------
    >>> point_text("GAMMA"), point_text("S_0|X")
    ('Γ', 'S$_{0}$|X')
    """
    if "|" in label:
        return "|".join(point_text(part) for part in label.split("|"))
    plain = label.replace("$", "").replace("\\", "").replace("mathrm", "").strip("{}")
    # "G" is not Γ: body-centred tetragonal and face-centred orthorhombic lattices have a point of this name.
    greek = {"GAMMA": "Γ", "DELTA": "Δ", "SIGMA": "Σ", "LAMBDA": "Λ"}
    name, _, index = plain.partition("_")
    name = greek.get(name.upper(), name)
    return f"{name}$_{{{index.strip('{}')}}}$" if index else name

"""Lifetimes of phonons, and conductivity accumulated over their mean free paths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from esen_flows.errors import InputError
from esen_flows.plots.axes import frequency_unit, logarithmic
from esen_flows.plots.style import (
    FAINT,
    KAPPA_UNIT,
    labelled,
    mesh_text,
    new_figure,
    origin_of,
    output_of,
    save,
    set_title,
    shared,
)
from esen_flows.schemas.documents import ResultDocument
from esen_flows.units import PER_THZ, FrequencyUnit

# Modes with shorter or longer mean free paths than those that carry all but this share of the heat are off the axis:
# modes at rest have group velocities of 1e-48 m/s instead of zero, which would leave the curve one pixel.
_OFF_AXIS = 1e-3
_MICROMETRE_PER_METRE_PS_PER_S = 1e-6  # m/s times ps is 1e-12 m


def plot_lifetimes(
    document: ResultDocument, path: str | Path, others: Sequence[ResultDocument] = (), unit: FrequencyUnit = "THz"
) -> Path:
    """Lifetime (ps) of every irreducible mode against its frequency, with a line where it is one period.

    Phonons below that line are overdamped and cannot be pictured as particles between collisions.

    Parameters
    ----------
    document
        Finished conductivity.
    path
        PNG file to write; an SVG file is written beside it.
    others
        Conductivities to draw in the same figure, for example of other force fields.
    unit
        Unit of the frequencies.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        A document is not a finished conductivity, or was computed by a version that kept no lifetimes.
    """
    documents = [document, *others]
    outputs = [_with_lifetimes(each) for each in documents]
    with new_figure() as figure:
        axes = figure.subplots()
        for output, label, colour in labelled(documents, outputs):
            shown = np.isfinite(output["lifetimes_ps"]) & (output["frequencies_thz"] > 0)
            frequencies, lifetimes = output["frequencies_thz"][shown], output["lifetimes_ps"][shown]
            axes.plot(PER_THZ[unit] * frequencies, lifetimes, ".", color=colour, markersize=2.5, alpha=0.6, label=label)
        highest = max(float(output["frequencies_thz"].max()) for output in outputs)
        sampled = np.linspace(highest / 100, highest, 200)
        axes.plot(PER_THZ[unit] * sampled, 1 / sampled, color=FAINT, linewidth=0.9, linestyle="--", label="one period")
        axes.set(xlabel=f"Frequency ({frequency_unit(unit)})", ylabel="Lifetime (ps)")
        logarithmic(axes.yaxis)
        axes.set_xlim(0.0, 1.02 * PER_THZ[unit] * highest)
        axes.legend(loc="best", markerscale=3)
        set_title(axes, documents, *_conditions(outputs))
        return save(figure, path, origin_of(document))


def plot_mean_free_paths(document: ResultDocument, path: str | Path, others: Sequence[ResultDocument] = ()) -> Path:
    """RTA conductivity of all modes with mean free paths up to a length, against that length (micrometres).

    Grains or films of that size cut off the contribution of longer mean free paths.

    Parameters
    ----------
    document, path, others
        As for `plot_lifetimes`.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        A document is not a finished conductivity, or was computed by a version that kept no lifetimes.
    """
    documents = [document, *others]
    outputs = [_with_lifetimes(each) for each in documents]
    with new_figure() as figure:
        axes = figure.subplots()
        curves = [cumulative_by_mean_free_path(output) for output in outputs]
        shortest, longest = _extent(curves)
        for (lengths, cumulative), (_, label, colour) in zip(curves, labelled(documents, outputs), strict=True):
            total = float(cumulative[-1]) if len(cumulative) else 0.0
            # The curve is drawn over the whole axis, at its total beyond its own longest path.
            drawn = np.append(lengths, longest), np.append(cumulative, total)
            axes.step(*drawn, where="post", color=colour, label=f"{label}: {total:.4g}")
            if total <= 0:  # no mode of this mesh has a group velocity
                continue
            half = float(lengths[np.searchsorted(cumulative, 0.5 * total)])
            axes.plot([half, half], [0.0, 0.5 * total], color=colour, linewidth=0.8, linestyle=":")
        axes.set(ylabel=rf"Cumulative $\kappa$ {KAPPA_UNIT}", xlim=(shortest, longest), ylim=(0.0, None))
        logarithmic(axes.xaxis)
        axes.set_xlabel("Mean free path (µm); dotted: half of the heat")
        axes.legend(loc="best", title=f"total {KAPPA_UNIT}", alignment="left")
        set_title(axes, documents, *_conditions(outputs))
        return save(figure, path, origin_of(document))


def cumulative_by_mean_free_path(output: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Conductivity accumulated over mean free paths.

    Parameters
    ----------
    output
        Output of a conductivity, as numpy arrays, with lifetimes, group velocities and mode conductivities.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        (n,) mean free paths in ascending order (micrometres), and (n,) RTA conductivities (W/m/K) of all modes up to
        each of them.
    """
    speeds = np.linalg.norm(output["group_velocities_m_per_s"], axis=2)
    lengths = (speeds * output["lifetimes_ps"] * _MICROMETRE_PER_METRE_PS_PER_S).ravel()
    parts = np.asarray(output["mode_kappa_w_per_m_k"]["rta"]).ravel()
    carries = np.isfinite(lengths) & (lengths > 0)
    order = np.argsort(lengths[carries])
    return lengths[carries][order], np.cumsum(parts[carries][order])


def _extent(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Ends of the axis: the mean free paths between which the heat of all results is carried, with a margin."""
    ends: list[float] = []
    for lengths, cumulative in curves:
        if len(lengths) and cumulative[-1] > 0:
            first, last = np.searchsorted(cumulative, np.array([_OFF_AXIS, 1.0 - _OFF_AXIS]) * cumulative[-1])
            ends += [float(lengths[first]), float(lengths[last])]
    return (min(ends) / 1.5, max(ends) * 1.5) if ends else (1e-3, 1.0)


def _with_lifetimes(document: ResultDocument) -> dict[str, Any]:
    output = output_of(document, "conductivity")
    if output.get("lifetimes_ps") is None:
        raise InputError(
            f"conductivity {document.key[:12]} was computed by a version that kept no lifetimes; compute it with "
            "another mesh, which needs no force call"
        )
    arrays = ("frequencies_thz", "lifetimes_ps", "group_velocities_m_per_s")
    return {**output, **{name: np.asarray(output[name], dtype=float) for name in arrays}}


def _conditions(outputs: Sequence[dict[str, Any]]) -> list[str | None]:
    """Temperature and mesh as far as all results share them."""
    temperature = shared([f"RTA, {output['cumulative_temperature_kelvin']:g} K" for output in outputs])
    return [temperature, shared([mesh_text(output) for output in outputs])]

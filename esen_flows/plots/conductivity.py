"""Lattice thermal conductivity against temperature, and accumulated over frequency."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from esen_flows.plots.axes import frequency_unit
from esen_flows.plots.style import (
    FAINT,
    INK,
    KAPPA_UNIT,
    PALETTE,
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

_METHOD = {"rta": "RTA", "wigner": "Wigner", "lbte": "LBTE"}
# Coherences below this share of the total would only stretch a logarithmic axis; the legend gives their share instead.
_SHOWN_COHERENCE = 0.1
_ANISOTROPIC = 0.01  # relative difference from which xx, yy and zz are drawn


@dataclass(frozen=True)
class ReferencePoint:
    """A conductivity to compare with, for example from DFT or an experiment.

    Attributes
    ----------
    label
        Source, for the legend.
    temperature_kelvin
        Temperature, K.
    kappa_w_per_m_k
        Conductivity, W/m/K.
    """

    label: str
    temperature_kelvin: float
    kappa_w_per_m_k: float


def plot_kappa(document: ResultDocument, path: str | Path, references: Sequence[ReferencePoint] = ()) -> Path:
    """Mean of xx, yy and zz of the conductivity against temperature, by every method, on logarithmic axes.

    If xx, yy and zz of the first method differ by more than a hundredth, thin lines show them too. Populations and
    coherences of the Wigner result are drawn if coherences reach a tenth of the total.

    Parameters
    ----------
    document
        Finished conductivity.
    path
        PNG file to write; an SVG file is written beside it.
    references
        Points to draw in the same figure.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        A document is not a finished conductivity.
    """
    output = output_of(document, "conductivity")
    temperatures = np.asarray(output["temperatures_kelvin"], dtype=float)
    with new_figure() as figure:
        axes = figure.subplots()
        for i, (method, result) in enumerate(output["methods"].items()):
            _draw_method(axes, temperatures, method, result, i)
        first = next(iter(output["methods"].values()))
        _draw_components(axes, temperatures, np.asarray(first["kappa_w_per_m_k"]))
        for i, point in enumerate(references):
            marker, colour = "D*^vPX"[i % 6], PALETTE[(i + 2) % len(PALETTE)]
            where = ([point.temperature_kelvin], [point.kappa_w_per_m_k])
            axes.plot(*where, marker, color=colour, markersize=9, markeredgecolor="white", zorder=4, label=point.label)
        _logarithmic_axes(axes, np.append(temperatures, [point.temperature_kelvin for point in references]))
        axes.set(xlabel="Temperature (K)", ylabel=rf"$\kappa$ {KAPPA_UNIT}")
        axes.legend(loc="best")
        set_title(axes, [document], mesh_text(output))
        return save(figure, path, origin_of(document))


def _draw_method(axes: Axes, temperatures: np.ndarray, method: str, result: dict[str, Any], index: int) -> None:
    tensor = np.asarray(result["kappa_w_per_m_k"])
    colour, name = PALETTE[index % len(PALETTE)], _METHOD.get(method, method)
    mean = directional_mean(tensor)
    coherence = result.get("kappa_coherence_w_per_m_k")
    share = 0.0 if coherence is None else _largest_share(directional_mean(np.asarray(coherence)), mean)
    remark = ""
    if coherence is not None and share < _SHOWN_COHERENCE:
        remark = f" (coherences ≤ {np.ceil(1000.0 * share) / 10.0:g} %)"  # rounded up, so that the bound holds
    # Methods that agree lie on top of each other; larger open markers let the first one show through.
    look: dict[str, Any] = {"markersize": 8, "markerfacecolor": "none"} if index else {}
    axes.plot(temperatures, mean, "s--" if index else "o-", color=colour, label=name + remark, **look)
    if share >= _SHOWN_COHERENCE:
        parts = (("populations", result.get("kappa_particle_w_per_m_k"), "-."), ("coherences", coherence, ":"))
        for part_name, part, line in parts:
            if part is not None:
                values = directional_mean(np.asarray(part))
                axes.plot(temperatures, values, color=colour, linestyle=line, label=f"{name} {part_name}")


def _draw_components(axes: Axes, temperatures: np.ndarray, tensor: np.ndarray) -> None:
    """xx, yy and zz of the first method, where they differ."""
    diagonal = tensor[:, :3]
    if _largest_share(np.ptp(diagonal, axis=1), directional_mean(tensor)) > _ANISOTROPIC:
        for name, line, values in zip(("xx", "yy", "zz"), ("-", "--", ":"), diagonal.T, strict=True):
            axes.plot(temperatures, values, color=FAINT, linewidth=0.9, linestyle=line, label=name, zorder=1)


def _largest_share(parts: np.ndarray, wholes: np.ndarray) -> float:
    """Largest share of (n,) parts in (n,) wholes; 0 if nothing is conducted, as on a mesh of zone boundaries only."""
    return float(np.max(np.divide(parts, wholes, out=np.zeros_like(wholes), where=wholes > 0)))


def directional_mean(tensor: np.ndarray) -> np.ndarray:
    """Mean of xx, yy and zz of conductivities.

    Parameters
    ----------
    tensor
        (n, 6) conductivities in Voigt order.

    Returns
    -------
    np.ndarray
        (n,) means, in the unit of the tensor.

    Examples
    --------
    >>> directional_mean(np.array([[1.0, 2.0, 6.0, 0.5, 0.5, 0.5]]))
    array([3.])
    """
    mean: np.ndarray = np.asarray(tensor)[:, :3].mean(axis=1)
    return mean


def _logarithmic_axes(axes: Axes, temperatures: np.ndarray) -> None:
    axes.set_xscale("log")
    if any(np.any(np.asarray(line.get_ydata()) > 0) for line in axes.lines):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = float(temperatures.min()), float(temperatures.max())
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 300, 500, 700, 1000, 1500, 2000, 3000) if low <= t <= high]
    axes.set_xlim(low / 1.08, high * 1.08)
    axes.xaxis.set_major_locator(FixedLocator(ticks or sorted({low, high})))
    axes.xaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def plot_cumulative(
    document: ResultDocument, path: str | Path, others: Sequence[ResultDocument] = (), unit: FrequencyUnit = "THz"
) -> Path:
    """Conductivity of all modes up to a frequency against that frequency; the right axis gives the share of the total.

    Parameters
    ----------
    document
        Finished conductivity.
    path
        PNG file to write; an SVG file is written beside it.
    others
        Conductivities to draw in the same figure.
    unit
        Unit of the frequencies.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        A document is not a finished conductivity.
    """
    documents = [document, *others]
    outputs = [output_of(each, "conductivity") for each in documents]
    first_total = float(np.asarray(outputs[0]["cumulative_kappa_w_per_m_k"])[-1])
    with new_figure() as figure:
        axes = figure.subplots()
        for output, label, colour in labelled(documents, outputs):
            frequencies = PER_THZ[unit] * np.asarray(output["cumulative_frequencies_thz"])
            values = np.asarray(output["cumulative_kappa_w_per_m_k"])
            axes.plot(frequencies, values, color=colour, label=f"{label}: {values[-1]:.4g}")
            if not others:
                axes.fill_between(frequencies, 0.0, values, color=colour, alpha=0.15, linewidth=0)
        if others:
            axes.legend(loc="best", title=f"total {KAPPA_UNIT}", alignment="left")
        elif first_total > 0:
            _mark_total_and_half(axes, outputs[0], first_total, unit)
        highest = max(float(np.asarray(o["cumulative_frequencies_thz"])[-1]) for o in outputs)
        axes.set_xlim(0.0, PER_THZ[unit] * highest)
        highest = max(float(np.asarray(o["cumulative_kappa_w_per_m_k"]).max()) for o in outputs)
        axes.set_ylim(0.0, 1.08 * highest if highest > 0 else None)
        axes.set(xlabel=f"Frequency ({frequency_unit(unit)})", ylabel=rf"Cumulative $\kappa$ {KAPPA_UNIT}")
        if first_total > 0:
            share = axes.secondary_yaxis("right", functions=_percent_of(first_total))
            share.set_ylabel(f"Share of the {'first ' if others else ''}total (%)")
        temperature = shared([f"RTA, {output['cumulative_temperature_kelvin']:g} K" for output in outputs])
        set_title(axes, documents, temperature, shared([mesh_text(output) for output in outputs]))
        return save(figure, path, origin_of(document))


def _percent_of(total: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Functions from a conductivity to its share in per cent, and back."""
    return (lambda kappa: 100.0 * kappa / total), (lambda percent: percent * total / 100.0)


def _mark_total_and_half(axes: Axes, output: dict[str, Any], total: float, unit: FrequencyUnit) -> None:
    """Mark the total, and the frequency below which half of the heat is carried."""
    frequencies = PER_THZ[unit] * np.asarray(output["cumulative_frequencies_thz"])
    half = float(np.interp(0.5 * total, np.asarray(output["cumulative_kappa_w_per_m_k"]), frequencies))
    axes.axhline(total, color=FAINT, linewidth=0.8, linestyle="--")
    axes.plot([half, half], [0.0, 0.5 * total], color=FAINT, linewidth=0.8, linestyle=":")
    below = f"{half:.{0 if unit == 'cm-1' else 1}f} {frequency_unit(unit)}"
    text = f"total {total:.4g} W m$^{{-1}}$ K$^{{-1}}$\nhalf of it below {below}"
    axes.annotate(text, (0.97, 0.12), xycoords="axes fraction", ha="right", color=INK, fontsize=9)

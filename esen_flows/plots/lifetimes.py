"""What carries the heat: lifetimes of phonons, and the conductivity of those with short enough mean free paths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from esen_flows.errors import InputError
from esen_flows.plots.style import FAINT, PALETTE, labels_of, new_figure, origin_of, output_of, save, set_title
from esen_flows.schemas.documents import ResultDocument

_MICROMETRE_PER_METRE_PS_PER_S = 1e-6  # m/s times ps is 1e-12 m


def plot_lifetimes(document: ResultDocument, path: str | Path, others: Sequence[ResultDocument] = ()) -> Path:
    """Lifetime (ps) of every irreducible mode against its frequency (THz), and where a lifetime is one period.

    Below that line phonons are overdamped, and a picture of particles between collisions does not hold.

    Parameters
    ----------
    document
        a finished conductivity document.
    path
        the PNG file to write; an SVG file is written beside it.
    others
        conductivity documents to lay over it, as by other force fields.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        not a finished conductivity document, or one of a version that did not keep lifetimes.
    """
    documents = [document, *others]
    outputs = [_with_lifetimes(each) for each in documents]
    with new_figure() as figure:
        axes = figure.subplots()
        for i, (output, label) in enumerate(zip(outputs, labels_of(documents), strict=True)):
            shown = np.isfinite(output["lifetimes_ps"]) & (output["frequencies_thz"] > 0)
            frequencies, lifetimes = output["frequencies_thz"][shown], output["lifetimes_ps"][shown]
            colour = PALETTE[i % len(PALETTE)]
            axes.plot(frequencies, lifetimes, ".", color=colour, markersize=2.5, alpha=0.6, label=label)
        highest = max(float(output["frequencies_thz"].max()) for output in outputs)
        sampled = np.linspace(highest / 100, highest, 200)
        axes.plot(sampled, 1 / sampled, color=FAINT, linewidth=0.9, linestyle="--", label="one period")
        axes.set_yscale("log")
        axes.set_xlim(0.0, 1.02 * highest)
        axes.set_xlabel("Frequency (THz)")
        axes.set_ylabel("Lifetime (ps)")
        axes.legend(loc="best", markerscale=3)
        set_title(axes, document, _conditions(outputs[0]))
        return save(figure, path, origin_of(document))


def plot_mean_free_paths(document: ResultDocument, path: str | Path, others: Sequence[ResultDocument] = ()) -> Path:
    """Conductivity of all modes with mean free paths up to a length (micrometres), by relaxation times.

    Grains or films of that size cut off what lies beyond; see `plot_lifetimes`.
    """
    documents = [document, *others]
    outputs = [_with_lifetimes(each) for each in documents]
    with new_figure() as figure:
        axes = figure.subplots()
        for i, (output, label) in enumerate(zip(outputs, labels_of(documents), strict=True)):
            lengths, cumulative = cumulative_by_mean_free_path(output)
            colour, total = PALETTE[i % len(PALETTE)], float(cumulative[-1]) if len(cumulative) else 0.0
            axes.step(lengths, cumulative, where="post", color=colour, label=f"{label}: {total:.4g}")
            if total <= 0:  # a mesh on which no mode moves
                continue
            half = float(lengths[np.searchsorted(cumulative, 0.5 * total)])
            axes.plot([half, half], [0.0, 0.5 * total], color=colour, linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("Mean free path (µm); dotted: half of the heat")
        axes.set_ylabel(r"Cumulative $\kappa$ (W m$^{-1}$ K$^{-1}$)")
        axes.legend(loc="best", title=r"total (W m$^{-1}$ K$^{-1}$)", alignment="left")
        set_title(axes, document, _conditions(outputs[0]))
        return save(figure, path, origin_of(document))


def cumulative_by_mean_free_path(output: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Mean free paths (micrometres), ascending, and the RTA conductivity (W/m/K) of all modes up to each."""
    speeds = np.linalg.norm(output["group_velocities_m_per_s"], axis=2)
    lengths = (speeds * output["lifetimes_ps"] * _MICROMETRE_PER_METRE_PS_PER_S).ravel()
    parts = np.asarray(output["mode_kappa_w_per_m_k"]["rta"]).ravel()
    carries = np.isfinite(lengths) & (lengths > 0)
    order = np.argsort(lengths[carries])
    return lengths[carries][order], np.cumsum(parts[carries][order])


def _with_lifetimes(document: ResultDocument) -> dict[str, Any]:
    output = output_of(document, "conductivity")
    if output.get("lifetimes_ps") is None:
        raise InputError(
            f"conductivity {document.key[:12]} was computed by a version that kept no lifetimes; ask with another "
            "mesh, which makes no force call"
        )
    arrays = ("frequencies_thz", "lifetimes_ps", "group_velocities_m_per_s")
    return {**output, **{name: np.asarray(output[name], dtype=float) for name in arrays}}


def _conditions(output: dict[str, Any]) -> str:
    mesh = "×".join(str(n) for n in output["mesh"])
    return f"RTA, {output['cumulative_temperature_kelvin']:g} K, mesh {mesh}"

"""Lifetimes of phonons, and conductivity accumulated over their mean free paths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from esen_flows.errors import InputError
from esen_flows.plots.style import FAINT, KAPPA_UNIT, labelled, new_figure, origin_of, output_of, save, set_title
from esen_flows.schemas.documents import ResultDocument

_MICROMETRE_PER_METRE_PS_PER_S = 1e-6  # m/s times ps is 1e-12 m


def plot_lifetimes(document: ResultDocument, path: str | Path, others: Sequence[ResultDocument] = ()) -> Path:
    """Lifetime (ps) of every irreducible mode against its frequency (THz), with a line where it is one period.

    Phonons below that line are overdamped and cannot be pictured as particles between collisions.

    Parameters
    ----------
    document
        Finished conductivity.
    path
        PNG file to write; an SVG file is written beside it.
    others
        Conductivities to draw in the same figure, for example of other force fields.

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
            axes.plot(frequencies, lifetimes, ".", color=colour, markersize=2.5, alpha=0.6, label=label)
        highest = max(float(output["frequencies_thz"].max()) for output in outputs)
        sampled = np.linspace(highest / 100, highest, 200)
        axes.plot(sampled, 1 / sampled, color=FAINT, linewidth=0.9, linestyle="--", label="one period")
        axes.set(xlabel="Frequency (THz)", ylabel="Lifetime (ps)", xlim=(0.0, 1.02 * highest), yscale="log")
        axes.legend(loc="best", markerscale=3)
        set_title(axes, document, _conditions(outputs[0]))
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
        for output, label, colour in labelled(documents, outputs):
            lengths, cumulative = cumulative_by_mean_free_path(output)
            total = float(cumulative[-1]) if len(cumulative) else 0.0
            axes.step(lengths, cumulative, where="post", color=colour, label=f"{label}: {total:.4g}")
            if total <= 0:  # no mode of this mesh has a group velocity
                continue
            half = float(lengths[np.searchsorted(cumulative, 0.5 * total)])
            axes.plot([half, half], [0.0, 0.5 * total], color=colour, linewidth=0.8, linestyle=":")
        axes.set(xscale="log", ylim=(0.0, None), ylabel=rf"Cumulative $\kappa$ {KAPPA_UNIT}")
        axes.set_xlabel("Mean free path (µm); dotted: half of the heat")
        axes.legend(loc="best", title=f"total {KAPPA_UNIT}", alignment="left")
        set_title(axes, document, _conditions(outputs[0]))
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


def _with_lifetimes(document: ResultDocument) -> dict[str, Any]:
    output = output_of(document, "conductivity")
    if output.get("lifetimes_ps") is None:
        raise InputError(
            f"conductivity {document.key[:12]} was computed by a version that kept no lifetimes; compute it with "
            "another mesh, which needs no force call"
        )
    arrays = ("frequencies_thz", "lifetimes_ps", "group_velocities_m_per_s")
    return {**output, **{name: np.asarray(output[name], dtype=float) for name in arrays}}


def _conditions(output: dict[str, Any]) -> str:
    mesh = "×".join(str(n) for n in output["mesh"])
    return f"RTA, {output['cumulative_temperature_kelvin']:g} K, mesh {mesh}"

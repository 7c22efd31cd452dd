"""Figures of what a benchmark has judged, for the report of a campaign and for `leaderboard --figure`."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.errors import InputError
from esen_flows.metrics.artefacts import read_formation_energies
from esen_flows.metrics.discovery import DiscoveryReference, predicted_hull_distances
from esen_flows.metrics.discovery_curves import (
    HullDistances,
    precision_recall_curve,
    receiver_operating_curve,
    rolling_error,
)
from esen_flows.metrics.geometry import cumulative_distances

_STANDARD_NAME = re.compile(r"\d{4}-\d\d-\d\d-discovery")
_HULL, _HULL_DFT = "e_above_hull_ev_per_atom", "reference_e_above_hull_ev_per_atom"
# Value and DFT's value among the columns of a material, title, and whether its axes are logarithmic.
PARITIES = (
    (_HULL, _HULL_DFT, "Hull distance (eV/atom)", False),
    ("kappa_w_per_m_k", "reference_w_per_m_k", r"$\kappa$ at 300 K (W m$^{-1}$ K$^{-1}$)", True),
    ("max_frequency_k", "reference_max_frequency_k", "Highest frequency (K)", False),
)


class Drawn(NamedTuple):
    """A figure that was written.

    Attributes
    ----------
    path
        The PNG file.
    left_out
        Why force fields are not in it, a sentence for each.
    """

    path: Path
    left_out: list[str]


def draw(kind: str, models: Sequence[JudgedModel], path: Path, title: str) -> Drawn:
    """Draw one figure.

    Parameters
    ----------
    kind
        One of `FIGURES`.
    models
        Judged force fields; those without values of this kind are left out. Where curves are of different numbers of
        crystals, their labels give them.
    path
        PNG file to write; an SVG file is written beside it.
    title
        Title of the figure.

    Returns
    -------
    Drawn
        The PNG file, and what is not in it.

    Raises
    ------
    InputError
        No force field has values of this kind, and the message says why; or two have the same name.
    """
    names = [model.model for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{', '.join(twice)} would be several curves of one name; draw them in figures of their own")
    return FIGURES[kind](models, path, title)


def draw_all(models: Sequence[JudgedModel], folder: Path, title: str) -> list[Path]:
    """Draw all figures for which there are values.

    Parameters
    ----------
    models
        Judged force fields.
    folder
        Folder to write into.
    title
        Title of the figures.

    Returns
    -------
    list of Path
        The files.
    """
    files: list[Path] = []
    for kind in FIGURES:
        with suppress(InputError):  # another benchmark's figure, or nothing to show yet
            png = draw(kind, models, folder / f"{kind}.png", title).path
            files += [png, png.with_suffix(".svg")]
    return files


def judged_file(path: Path, reference: DiscoveryReference) -> JudgedModel:
    """A file of predicted formation energies as a judged force field, for figures.

    Parameters
    ----------
    path
        File of the discovery task (DATE-discovery.csv.gz), of a submission or a published one.
    reference
        DFT's values.

    Returns
    -------
    JudgedModel
        Hull distances without metrics, under the name of the file, or of its folder where all files are called alike
        (DATE-discovery.csv.gz).

    Raises
    ------
    InputError
        The file cannot be read, or no crystal of it is in the reference.
    """
    distances = predicted_hull_distances(reference, read_formation_energies(path)).tolist()
    rows = [
        {_HULL: own, _HULL_DFT: true, "unique_prototype": unique, "state": "finished"}
        for own, true, unique in zip(
            distances, reference.e_above_hull_ev_per_atom.tolist(), reference.unique_prototype.tolist(), strict=True
        )
    ]
    name = path.name.removesuffix(".gz").removesuffix(".csv")
    if _STANDARD_NAME.fullmatch(name) and path.resolve().parent.name:
        name = path.resolve().parent.name
    return JudgedModel(name, len(rows), len(rows), {}, {}, {}, "", rows)


def _column(model: JudgedModel, name: str) -> np.ndarray:
    return np.array([row.get(name) for row in model.materials], dtype=float)  # None becomes NaN


def _hull_distances(model: JudgedModel) -> HullDistances | None:
    """Distances of the unique prototypes that are done and that DFT knows; None if there is none."""
    if not model.materials or _HULL not in model.materials[0]:
        return None
    true = _column(model, _HULL_DFT)
    chosen = [bool(row["unique_prototype"]) and row["state"] in ("finished", "failed") for row in model.materials]
    kept = np.array(chosen) & np.isfinite(true)
    return HullDistances(true[kept], _column(model, _HULL)[kept]).rounded() if kept.any() else None


def _curves(models: Sequence[JudgedModel], curve: Callable[[HullDistances], Any]) -> tuple[dict[str, Any], list[str]]:
    """Curve of each force field that has one, and why others have none; an error if there is no curve at all."""
    found, counts, reasons = {}, {}, []
    for model in models:
        distances = _hull_distances(model)
        if distances is None:
            reasons.append(f"{model.model} has no hull distance of a unique prototype that DFT knows")
            continue
        try:
            found[model.model] = curve(distances)
        except InputError as error:
            reasons.append(f"{model.model}: {error}")
        else:
            counts[model.model] = len(distances.true)
    if not found:
        raise InputError("; ".join(reasons) or "there is no force field to draw")
    return _with_counts(found, counts), reasons


def _with_counts(curves: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """Curves under labels with their numbers of crystals, where these differ."""
    if len(set(counts.values())) < 2:
        return dict(curves)
    return {f"{model}, {counts[model]:,} crystals": curve for model, curve in curves.items()}


def _roc(models: Sequence[JudgedModel], path: Path, title: str) -> Drawn:
    curves, left_out = _curves(models, receiver_operating_curve)
    from esen_flows.plots.discovery import plot_roc

    return Drawn(plot_roc(curves, path, title), left_out)


def _rolling(models: Sequence[JudgedModel], path: Path, title: str) -> Drawn:
    curves, left_out = _curves(models, rolling_error)
    from esen_flows.plots.discovery import plot_rolling_errors

    return Drawn(plot_rolling_errors(curves, path, title), left_out)


def _precision_recall(models: Sequence[JudgedModel], path: Path, title: str) -> Drawn:
    curves, left_out = _curves(models, precision_recall_curve)
    from esen_flows.plots.discovery import plot_precision_recall

    return Drawn(plot_precision_recall(curves, path, title), left_out)


def _rmsd(models: Sequence[JudgedModel], path: Path, title: str) -> Drawn:
    distances = {one.model: [row["rmsd"] for row in one.materials if row.get("rmsd") is not None] for one in models}
    counts = {model: len(values) for model, values in distances.items() if values}
    curves = {model: cumulative_distances(distances[model]) for model in counts}
    if not curves:
        raise InputError(
            "no relaxed structure was compared with DFT's; this needs a campaign of benchmark discovery and, on this "
            "machine, the set wbm-relaxed (esen-flows data pull wbm-relaxed) and moyopy"
        )
    left_out = [
        f"{model} has no relaxed structure that was compared with DFT's" for model in distances if model not in counts
    ]
    from esen_flows.plots.geometry import plot_cumulative_distances

    return Drawn(plot_cumulative_distances(_with_counts(curves, counts), path, title), left_out)


def _parity(models: Sequence[JudgedModel], path: Path, title: str) -> Drawn:
    for own, dft, quantity, is_logarithmic in PARITIES:
        pairs = {
            model.model: (_column(model, dft), _column(model, own))
            for model in models
            if model.materials and own in model.materials[0]
        }
        if pairs:
            left_out = [f"{model.model} has no values of this quantity" for model in models if model.model not in pairs]
            from esen_flows.plots.discovery import plot_parity

            return Drawn(plot_parity(pairs, quantity, path, title, logarithmic=is_logarithmic), left_out)
    raise InputError("parity needs values of the benchmarks discovery, kappa-103 or mdr-phonons; there are none")


FIGURES: Mapping[str, Callable[[Sequence[JudgedModel], Path, str], Drawn]] = {
    "roc": _roc,
    "rolling-mae": _rolling,
    "precision-recall": _precision_recall,
    "rmsd": _rmsd,
    "parity": _parity,
}

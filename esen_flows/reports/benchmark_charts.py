"""Charts of judged force fields against DFT."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from esen_flows.campaigns.benchmark_figures import PARITIES
from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.metrics.geometry import cumulative_distances
from esen_flows.reports.page import Axis, Chart, Trace, column_of, title_of

_E_FORM = ("e_form_ev_per_atom", "reference_e_form_ev_per_atom", "", False)


def benchmark_charts(judged: Sequence[JudgedModel]) -> list[Chart]:
    """Charts for which there are values: parity with DFT, and distances from DFT's structures.

    Parameters
    ----------
    judged
        Judged force fields, each with a name of its own.

    Returns
    -------
    list of Chart
        The charts.
    """
    charts = [_parity(judged, own, dft, log) for own, dft, _, log in (_E_FORM, *PARITIES)]
    charts.append(_distances(judged))
    return [chart for chart in charts if chart is not None]


def _parity(judged: Sequence[JudgedModel], own: str, dft: str, is_logarithmic: bool) -> Chart | None:
    column = column_of(own)
    traces, sentences = [], []
    for colour, model in enumerate(judged):
        found = [row for row in model.materials if _is_known(row.get(own)) and _is_known(row.get(dft))]
        if not found:
            continue
        ours, theirs = ([float(row[name]) for row in found] for name in (own, dft))
        traces.append(Trace(model.model, theirs, ours, [_label(row) for row in found], colour=colour))
        error = sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(found)
        quantity = f"mean absolute difference {error:.3g} {column.unit}".rstrip()
        sentences.append(f"{model.model}: {quantity}, {len(found)} materials.")
    if not traces:
        return None
    x, y = (Axis(f"{column.title}, {name}", column.unit, is_logarithmic) for name in ("DFT", "force field"))
    title = f"{title_of(column.title)} against DFT"
    return Chart(title, x, y, traces, " ".join(sentences), has_diagonal=True)


def _is_known(value: Any) -> bool:
    return value is not None and isfinite(value)


def _label(row: Mapping[str, Any]) -> str:
    return " · ".join(str(part) for part in (row["material"], row.get("formula")) if part)


def _distances(judged: Sequence[JudgedModel]) -> Chart | None:
    traces = []
    for colour, model in enumerate(judged):
        found = [row["rmsd"] for row in model.materials if row.get("rmsd") is not None]
        if found:
            distances, fractions, area = cumulative_distances(found)
            name = f"{model.model} (area {area:.3f}, {len(found)} structures)"
            traces.append(Trace(name, distances, fractions, mode="lines", colour=colour, emphasised=True))
    if not traces:
        return None
    axes = Axis("RMSD", "(V/atom)^⅓"), Axis("fraction of structures", limits=(0.0, 1.02))
    return Chart("Distances from DFT's structures", *axes, traces)

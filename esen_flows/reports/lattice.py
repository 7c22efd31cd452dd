"""Charts of phonons and of thermal conductivities, from documents alone."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esen_flows.errors import InputError
from esen_flows.plots.conductivity import directional_mean
from esen_flows.plots.phonon import matched_distances, tick_labels
from esen_flows.plots.style import labels_of, output_of
from esen_flows.reports.page import Axis, Chart, Part, Trace, spread
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.documents import ResultDocument
from esen_flows.store.results import Store

Floats = NDArray[np.float64]
_MOST_CRYSTALS = 6  # of a campaign, whose bands are drawn
_MOST_CURVES = 60  # of cumulative conductivities in one chart
_POINTS = 60  # of a cumulative conductivity
_BANDS = ("band_distances", "band_frequencies_thz", "band_label_distances", "dos_frequencies_thz", "dos_states_per_thz")
_CUMULATIVE = ("cumulative_frequencies_thz", "cumulative_kappa_w_per_m_k")
_METHODS = {"rta": "RTA", "wigner": "Wigner", "lbte": "LBTE"}


@dataclass(frozen=True)
class Accumulated:
    """Conductivity of the modes below each frequency.

    Attributes
    ----------
    name
        Name of the curve.
    frequencies_thz
        (n,) frequencies in THz, ascending.
    kappa_w_per_m_k
        (n,) conductivity of the modes below each in W/m/K.
    colour
        Number of its colour.
    """

    name: str
    frequencies_thz: Floats
    kappa_w_per_m_k: Floats
    colour: int = 0


def phonon_charts(documents: Sequence[ResultDocument], labels: Sequence[str] = (), subject: str = "") -> list[Chart]:
    """Bands and density of states of one crystal, of several results over each other.

    Parameters
    ----------
    documents
        Finished phonons along the same path.
    labels
        Their names. Default: force fields and settings in which they differ.
    subject
        Name of the crystal. Default: its formula.

    Returns
    -------
    list of Chart
        Bands, and the density of states.

    Raises
    ------
    InputError
        A document is not a finished phonon calculation, or has another path through the Brillouin zone.
    """
    outputs = [output_of(document, "phonon") for document in documents]
    names = list(labels or labels_of(documents))
    bands, states = [], []
    for colour, (output, name) in enumerate(zip(outputs, names, strict=True)):
        x: list[float | None] = []
        y: list[float | None] = []
        for distances, frequencies in zip(
            matched_distances(output, outputs[0], name), output["band_frequencies_thz"], strict=True
        ):
            for band in np.asarray(frequencies).T:
                x += [*distances.tolist(), None]
                y += [*band.tolist(), None]
        bands.append(Trace(name, x, y, mode="lines", colour=colour))
        dos = [np.asarray(output[each]).tolist() for each in ("dos_states_per_thz", "dos_frequencies_thz")]
        states.append(Trace(name, dos[0], dos[1], mode="lines", colour=colour))
    places, texts = tick_labels(outputs[0]["band_labels"], np.asarray(outputs[0]["band_label_distances"]))
    ticks = [(place, _plain_point(text)) for place, text in zip(places, texts, strict=True)]
    numbers = [value for trace in bands for value in trace.y if value is not None]
    # Acoustic noise of a thousandth of a THz is not shown as imaginary frequencies.
    low, high = min(numbers), max(numbers)
    is_imaginary = low < -0.02 * high
    frequency = Axis(
        "frequency, imaginary below 0" if is_imaginary else "frequency", "THz",
        limits=(1.08 * low if is_imaginary else 0.0, 1.05 * high),
    )  # fmt: skip
    path = Axis("wave vector", ticks=ticks, limits=(places[0], places[-1]))
    formula = subject or documents[0].subject_name
    return [
        Chart(f"Phonons of {formula}", path, frequency, bands),
        Chart(f"Density of states of {formula}", Axis("DOS", "states/THz/cell"), frequency, states),
    ]


def _plain_point(text: str) -> str:
    """A special point without matplotlib's markup."""
    lowered = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    return re.sub(r"\$_\{(.*?)\}\$", lambda found: found[1].translate(lowered), text)


def conductivity_charts(documents: Sequence[ResultDocument]) -> list[Chart]:
    """Conductivity against temperature and accumulated over frequency, of several results over each other.

    Parameters
    ----------
    documents
        Finished conductivities.

    Returns
    -------
    list of Chart
        The charts.

    Raises
    ------
    InputError
        A document is not a finished conductivity.
    """
    outputs = [output_of(document, "conductivity") for document in documents]
    traces: list[Trace] = []
    curves: list[Accumulated] = []
    for colour, (output, name) in enumerate(zip(outputs, labels_of(documents), strict=True)):
        temperatures = np.asarray(output["temperatures_kelvin"]).tolist()
        for method, result in output["methods"].items():
            mean = directional_mean(np.asarray(result["kappa_w_per_m_k"])).tolist()
            title = f"{_METHODS.get(method, method)}, {name}"
            traces.append(Trace(title, temperatures, mean, mode="lines+markers", colour=len(traces)))
        curves.append(_accumulated(name, output, colour))
    formula = documents[0].subject_name
    axes = Axis("temperature", "K", logarithmic=True), Axis("κ, mean of xx, yy, zz", "W/m/K", logarithmic=True)
    return [Chart(f"Thermal conductivity of {formula}", *axes, traces), cumulative_chart(curves)]


def _accumulated(name: str, output: Mapping[str, Any], colour: int) -> Accumulated:
    frequencies, kappa = (np.asarray(output[each], dtype=float) for each in _CUMULATIVE)
    return Accumulated(name, frequencies, kappa, colour)


def cumulative_chart(curves: Sequence[Accumulated], *, as_share: bool = False) -> Chart:
    """Conductivity of the modes below each frequency.

    Parameters
    ----------
    curves
        Curves; of more than sixty an even choice is drawn, in the order of their totals.
    as_share
        Whether shares of the totals are drawn, for different crystals in one chart.

    Returns
    -------
    Chart
        The chart.
    """
    note = "Of the relaxation-time approximation." if not as_share else "Each line is a crystal."
    ordered = [curve for curve in curves if curve.kappa_w_per_m_k[-1] > 0]
    if len(ordered) > _MOST_CURVES:
        ordered.sort(key=lambda curve: float(curve.kappa_w_per_m_k[-1]))
        note += f" {_MOST_CURVES} of {len(ordered)} crystals are drawn, an even choice by their conductivity."
        ordered = [ordered[i] for i in spread(len(ordered), _MOST_CURVES)]
    traces = []
    for curve in ordered:
        total = float(curve.kappa_w_per_m_k[-1])
        x = np.linspace(0.0, float(curve.frequencies_thz[-1]), _POINTS if as_share else 4 * _POINTS)
        y = np.interp(x, curve.frequencies_thz, curve.kappa_w_per_m_k, left=0.0) * (100.0 / total if as_share else 1.0)
        name = f"{curve.name}: {total:.4g} W/m/K"
        traces.append(Trace(name, x.tolist(), y.tolist(), mode="lines", colour=curve.colour))
    quantity = (
        Axis("share of the conductivity", "%", limits=(0.0, 102.0)) if as_share else Axis("cumulative κ", "W/m/K")
    )
    return Chart("Cumulative conductivity", Axis("frequency", "THz"), quantity, traces, note)


def campaign_charts(store: Store, spec: CampaignSpec, rows: Sequence[Mapping[str, Any]]) -> list[Part]:
    """Charts of the lattice properties of a campaign: phonons of force fields over each other, cumulative conductivity.

    Parameters
    ----------
    store
        Store of the campaign.
    spec
        Its specification.
    rows
        Its members with their numbers.

    Returns
    -------
    list of Part
        Charts and what was chosen for them; empty for a campaign of another property.
    """
    finished = [row for row in rows if row["state"] == "finished"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    if spec.property == "conductivity":
        by_kappa = sorted(finished, key=lambda row: _value(row, "kappa_rta_w_per_m_k"))
        chosen = [by_kappa[i] for i in spread(len(by_kappa), _MOST_CURVES)]
        curves = [
            _accumulated(_name(row), document.output or {}, models.index(row["model"]))
            for row, document in _documents(store, chosen, _CUMULATIVE)
        ]
        return [cumulative_chart(curves, as_share=True)] if curves else []
    if spec.property != "phonon":
        return []
    crystals = _chosen_crystals(finished, len(models))
    parts: list[Part] = []
    if len(crystals) < (n_crystals := len({row["label"] for row in finished})):
        reason = "on which the force fields differ most" if len(models) > 1 else "with the lowest frequencies"
        parts.append(f"Bands of {len(crystals)} of {n_crystals:,} crystals are drawn, those {reason}.")
    for crystal in crystals:
        found = list(_documents(store, crystal, _BANDS))
        try:
            documents, labels = [document for _, document in found], [row["model"] for row, _ in found]
            parts += phonon_charts(documents, labels, _name(crystal[0]))
        except InputError as error:  # the relaxed cells have different lattices
            parts.append(f"{_name(crystal[0])}: {error}")
    return parts


def _chosen_crystals(finished: Sequence[Mapping[str, Any]], models: int) -> list[list[Mapping[str, Any]]]:
    """Crystals on which force fields differ most; of one force field those with the lowest frequencies."""
    crystals: dict[str, list[Mapping[str, Any]]] = {}
    for row in finished:
        crystals.setdefault(row["label"], []).append(row)

    def interest(crystal: list[Mapping[str, Any]]) -> float:
        highest = [_value(row, "max_frequency_thz") for row in crystal]
        if models > 1:
            return max(highest) - min(highest)
        return -_value(crystal[0], "min_frequency_thz")

    return sorted(crystals.values(), key=interest, reverse=True)[:_MOST_CRYSTALS]


def _documents(
    store: Store, rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> Iterator[tuple[Mapping[str, Any], ResultDocument]]:
    """Results of members with the named arrays; force constants, which are large, are not read if that is possible."""
    for row in rows:
        document = store.get(row["key"], load_arrays=False)
        if document is not None and document.output is not None and not _is_here(document.output, names):
            document = store.get(row["key"])
        if document is not None and document.output is not None:
            yield row, document


def _is_here(output: Mapping[str, Any], names: Sequence[str]) -> bool:
    return all(isinstance(output[name], np.ndarray | list) for name in names)


def _value(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    return value if isinstance(value, float) else 0.0


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['label']} {row['formula']}"

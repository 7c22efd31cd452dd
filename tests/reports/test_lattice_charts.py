"""Charts of phonons and conductivities hold the numbers of their documents."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from esen_flows.errors import InputError
from esen_flows.reports.lattice import campaign_charts, conductivity_charts, cumulative_chart, phonon_charts
from esen_flows.reports.page import Chart
from esen_flows.schemas.documents import ResultDocument


def lines(trace: Any) -> list[list[float]]:
    """The lines of a trace, which None separates."""
    found: list[list[float]] = [[]]
    for value in trace.y:
        if value is None:
            found.append([])
        else:
            found[-1].append(value)
    return [line for line in found if line]


def test_bands_are_those_of_the_document(phonon_document) -> None:
    document = phonon_document()
    bands, dos = phonon_charts([document])
    (trace,) = bands.traces
    expected = [band.tolist() for segment in document.output["band_frequencies_thz"] for band in segment.T]
    assert lines(trace) == expected
    assert [text for _, text in bands.x.ticks] == ["Γ", "X|U", "Γ"]
    assert (bands.y.title, bands.y.unit) == ("frequency", "THz")
    assert dos.traces[0].x == document.output["dos_states_per_thz"].tolist()


def test_force_fields_lie_over_each_other_on_one_path(phonon_document) -> None:
    soft = phonon_document(length=1.1, stiffness=5.0, model_label="soft", key="d" * 64)
    bands, _ = phonon_charts([phonon_document(), soft])
    assert [trace.name for trace in bands.traces] == ["chain_model", "soft"]
    assert bands.traces[1].x == pytest.approx(bands.traces[0].x)
    assert bands.traces[0].colour != bands.traces[1].colour


def test_imaginary_frequencies_are_named(phonon_document) -> None:
    bands, _ = phonon_charts([phonon_document(shift_thz=1.0)])
    assert bands.y.title == "frequency, imaginary below 0"
    assert bands.y.limits is not None
    assert bands.y.limits[0] < 0


def test_conductivity_against_temperature_and_frequency(conductivity_document) -> None:
    document = conductivity_document(coherence=1.0)
    kappa, cumulative = conductivity_charts([document])
    rta, wigner = kappa.traces
    assert rta.y == pytest.approx([300.0, 150.0, 100.0, 60.0, 30.0])
    assert wigner.y == pytest.approx([301.0, 151.0, 101.0, 61.0, 31.0])
    assert (kappa.x.unit, kappa.y.unit) == ("K", "W/m/K")
    assert cumulative.traces[0].y[-1] == pytest.approx(100.0)
    assert cumulative.traces[0].name == "chain_model: 100 W/m/K"


def test_every_method_of_every_force_field_has_its_colour(conductivity_document) -> None:
    documents = [conductivity_document(), conductivity_document(model_label="soft", key="d" * 64)]
    for document in documents:
        document.output["methods"]["lbte"] = document.output["methods"]["rta"]
    traces = conductivity_charts(documents)[0].traces
    assert len({trace.name for trace in traces}) == len({trace.colour for trace in traces}) == 6


class Stored:
    """A store of documents in memory; force constants are not read unless arrays are asked for."""

    def __init__(self, **documents: ResultDocument) -> None:
        self.documents = documents

    def get(self, key: str, load_arrays: bool = True) -> ResultDocument | None:
        return self.documents.get(key)


def row(key: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "label": key, "formula": "NaCl", "model": "a", "state": "finished", **more}


def test_a_campaign_of_conductivities_shows_shares(conductivity_document) -> None:
    store = Stored(one=conductivity_document(), two=conductivity_document(scale=0.1))
    rows = [row("one", kappa_rta_w_per_m_k=100.0), row("two", kappa_rta_w_per_m_k=10.0), row("gone", state="failed")]
    (chart,) = campaign_charts(store, SimpleNamespace(property="conductivity"), rows)  # type: ignore[arg-type]
    assert isinstance(chart, Chart)
    assert [trace.name for trace in chart.traces] == ["two NaCl: 10 W/m/K", "one NaCl: 100 W/m/K"]
    assert [trace.y[-1] for trace in chart.traces] == pytest.approx([100.0, 100.0])
    assert chart.y.unit == "%"


def test_a_campaign_of_phonons_shows_where_force_fields_differ_most(phonon_document) -> None:
    near, far = phonon_document(), phonon_document(stiffness=4.0, model_label="b")
    store = Stored(a1=near, b1=near, a2=near, b2=far)
    rows = [
        row("a1", label="same", max_frequency_thz=5.0), row("b1", label="same", model="b", max_frequency_thz=5.0),
        row("a2", label="other", max_frequency_thz=5.0), row("b2", label="other", model="b", max_frequency_thz=3.0),
    ]  # fmt: skip
    found = campaign_charts(store, SimpleNamespace(property="phonon"), rows)  # type: ignore[arg-type]
    assert len(found) == 4
    first = found[0]
    assert isinstance(first, Chart)
    assert [trace.name for trace in first.traces] == ["a", "b"]
    assert max(map(max, lines(first.traces[1]))) < max(map(max, lines(first.traces[0])))

    # Six of seven crystals are drawn, and the page says so.
    many = [row("a1", label=f"m{i}", max_frequency_thz=5.0, min_frequency_thz=-0.1 * i) for i in range(7)]
    note, *charts = campaign_charts(store, SimpleNamespace(property="phonon"), many)  # type: ignore[arg-type]
    assert note == "Bands of 6 of 7 crystals are drawn, those with the lowest frequencies."
    assert len(charts) == 12


def test_of_many_curves_an_even_choice_is_drawn(conductivity_document) -> None:
    from esen_flows.reports.lattice import Accumulated

    curves = [Accumulated(f"m{i}", np.array([0.0, 1.0]), np.array([0.0, float(i)])) for i in range(100)]
    chart = cumulative_chart(curves, as_share=True)
    assert len(chart.traces) == 60
    assert "60 of 99 crystals are drawn" in chart.note  # one conducts nothing


def test_other_kinds_are_refused(phonon_document) -> None:
    with pytest.raises(InputError, match="shows a 'conductivity' document"):
        conductivity_charts([phonon_document()])

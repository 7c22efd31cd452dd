"""The conductivities that are drawn are those of the document."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from esen_flows.errors import InputError
from esen_flows.plots.conductivity import ReferencePoint, directional_mean, plot_cumulative, plot_kappa


def lines_by_label(figure: Figure) -> dict:
    return {line.get_label(): line for line in figure.axes[0].lines}


def test_kappa_as_given(conductivity_document, drawn, tmp_path: Path) -> None:
    document = conductivity_document()
    reference = ReferencePoint("DFT-PBE", 300.0, 119.5)
    path = plot_kappa(document, tmp_path / "kappa.png", references=[reference])
    assert path.stat().st_size > 10_000
    axes = drawn[0].axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() == "Temperature (K)"
    assert "W m" in axes.get_ylabel()
    lines = lines_by_label(drawn[0])
    # 30000/T at 100 ... 1000 K, by hand.
    np.testing.assert_allclose(lines["RTA"].get_ydata(), [300.0, 150.0, 100.0, 60.0, 30.0])
    np.testing.assert_array_equal(lines["RTA"].get_xdata(), document.output["temperatures_kelvin"])
    # 0.01 of 30.01 at 1000 K is 0.033 %.
    wigner = lines["Wigner (coherences ≤ 0.1 %)"]
    np.testing.assert_allclose(wigner.get_ydata(), [300.01, 150.01, 100.01, 60.01, 30.01])
    assert (*lines["DFT-PBE"].get_xdata(), *lines["DFT-PBE"].get_ydata()) == (300.0, 119.5)
    assert "mesh 11×11×11" in axes.get_title(loc="left")


def test_coherences_are_drawn_where_they_matter(conductivity_document, drawn, tmp_path: Path) -> None:
    plot_kappa(conductivity_document(coherence=8.0), tmp_path / "kappa.png")
    lines = lines_by_label(drawn[0])
    np.testing.assert_allclose(lines["Wigner coherences"].get_ydata(), 8.0)
    np.testing.assert_allclose(lines["Wigner populations"].get_ydata(), lines["RTA"].get_ydata())
    np.testing.assert_allclose(lines["Wigner"].get_ydata(), lines["RTA"].get_ydata() + 8.0)


@pytest.mark.parametrize("anisotropy", [0.0, 0.5])
def test_components_are_drawn_where_they_differ(conductivity_document, drawn, tmp_path, anisotropy) -> None:
    plot_kappa(conductivity_document(anisotropy=anisotropy), tmp_path / "kappa.png")
    lines = lines_by_label(drawn[0])
    assert ("zz" in lines) == bool(anisotropy)
    if anisotropy:
        np.testing.assert_allclose(lines["zz"].get_ydata(), 1.5 * lines["xx"].get_ydata())
        np.testing.assert_allclose(lines["RTA"].get_ydata(), lines["xx"].get_ydata() * 3.5 / 3.0)


def test_one_temperature_is_a_visible_point(conductivity_document, drawn, tmp_path: Path) -> None:
    document = conductivity_document()
    document.output["temperatures_kelvin"] = np.array([300.0])
    for method in document.output["methods"].values():
        for name, values in method.items():
            method[name] = None if values is None else values[2:3]
    plot_kappa(document, tmp_path / "kappa.png")
    assert lines_by_label(drawn[0])["RTA"].get_marker() == "o"
    assert drawn[0].axes[0].get_xlim() == pytest.approx((300.0 / 1.08, 300.0 * 1.08))


def test_cumulative_as_given(conductivity_document, drawn, tmp_path: Path) -> None:
    document = conductivity_document()
    path = plot_cumulative(document, tmp_path / "cumulative.png")
    assert path.stat().st_size > 10_000
    axes = drawn[0].axes[0]
    assert axes.get_xlabel() == "Frequency (THz)"
    assert "W m" in axes.get_ylabel()
    assert "RTA, 300 K" in axes.get_title(loc="left")
    line = lines_by_label(drawn[0])["chain_model: 100"]
    np.testing.assert_array_equal(line.get_xdata(), document.output["cumulative_frequencies_thz"])
    np.testing.assert_array_equal(line.get_ydata(), document.output["cumulative_kappa_w_per_m_k"])
    # sin^2(pi f / 16) is one half at f = 4.
    assert "total 100" in axes.texts[0].get_text()
    assert "half of it below 4.0 THz" in axes.texts[0].get_text()


def test_cumulative_of_several_documents(conductivity_document, drawn, tmp_path: Path) -> None:
    other = conductivity_document(scale=1.2, model_label="labeller")
    plot_cumulative(conductivity_document(), tmp_path / "cumulative.png", others=[other])
    texts = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert texts == ["chain_model: 100", "labeller: 120"]
    assert drawn[0].axes[0].get_ylim()[1] == pytest.approx(1.08 * 120.0)


@pytest.mark.parametrize("plot", [plot_kappa, plot_cumulative])
def test_another_kind_is_refused(plot, phonon_document, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shows a 'conductivity' document"):
        plot(phonon_document(), tmp_path / "kappa.png")
    assert not list(tmp_path.iterdir())


def test_directional_mean_leaves_shear_out() -> None:
    np.testing.assert_allclose(directional_mean(np.array([[1.0, 2.0, 6.0, 50.0, 50.0, 50.0]])), [3.0])


def test_a_conductivity_of_zero_is_drawn(conductivity_document, drawn, tmp_path: Path) -> None:
    """On a mesh of zone boundaries only, all group velocities vanish."""
    document = conductivity_document(scale=0.0, coherence=0.0)
    plot_kappa(document, tmp_path / "kappa.png")
    assert plot_cumulative(document, tmp_path / "cumulative.png").with_suffix(".svg").exists()
    np.testing.assert_array_equal(lines_by_label(drawn[0])["RTA"].get_ydata(), np.zeros(5))

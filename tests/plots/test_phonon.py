"""The bands and the density of states that are drawn are those of the document."""

from pathlib import Path

import numpy as np
import pytest

from esen_flows.errors import InputError
from esen_flows.plots.phonon import plot_phonon, point_text, tick_labels
from esen_flows.plots.thermal import plot_thermal


def test_bands_and_dos_as_given(phonon_document, drawn, tmp_path: Path) -> None:
    document = phonon_document()
    path = plot_phonon(document, tmp_path / "bands.png")
    assert path.stat().st_size > 10_000
    bands, dos = drawn[0].axes
    assert bands.get_ylabel() == "Frequency (THz)"
    assert dos.get_xlabel() == "DOS (states/THz/cell)"
    assert [text.get_text() for text in bands.get_xticklabels()] == ["Γ", "X|U", "Γ"]
    assert bands.get_xticks() == pytest.approx([0.0, 1.0, 1.7])
    curves = [line for line in bands.lines if len(line.get_xdata()) == 41]
    assert len(curves) == 4
    output = document.output
    for i, line in enumerate(curves):
        segment, band = divmod(i, 2)
        np.testing.assert_array_equal(line.get_xdata(), output["band_distances"][segment])
        np.testing.assert_array_equal(line.get_ydata(), output["band_frequencies_thz"][segment][:, band])
    by_label = {line.get_label(): line for line in dos.lines}
    np.testing.assert_array_equal(by_label["total"].get_xdata(), output["dos_states_per_thz"])
    np.testing.assert_array_equal(by_label["Na"].get_xdata(), output["projected_dos_states_per_thz"][0])
    np.testing.assert_array_equal(by_label["Cl"].get_xdata(), output["projected_dos_states_per_thz"][1])


def test_another_unit_keeps_the_number_of_states(phonon_document, drawn, tmp_path: Path) -> None:
    plot_phonon(phonon_document(), tmp_path / "bands.png", unit="meV")
    bands, dos = drawn[0].axes
    assert (bands.get_ylabel(), dos.get_xlabel()) == ("Frequency (meV)", "DOS (states/meV/cell)")
    output = phonon_document().output
    first = next(line for line in bands.lines if len(line.get_xdata()) == 41)
    # 1 THz is h = 4.135668 meV.
    assert first.get_ydata() == pytest.approx(4.135667697 * output["band_frequencies_thz"][0][:, 0], rel=1e-9)
    total = next(line for line in dos.lines if line.get_label() == "total")
    states = np.sum(output["dos_states_per_thz"][1:] * np.diff(output["dos_frequencies_thz"]))
    assert np.sum(total.get_xdata()[1:] * np.diff(total.get_ydata())) == pytest.approx(states)


def test_thermal_properties_as_given(phonon_document, drawn, tmp_path: Path) -> None:
    document = phonon_document()
    other = document.model_copy(update={"model_label": "other"})
    plot_thermal(document, tmp_path / "thermal.png", [other])
    energy, heat = drawn[0].axes
    assert (energy.get_ylabel(), energy.get_xlabel()) == ("Free energy (kJ/mol)", "Temperature (K)")
    np.testing.assert_array_equal(energy.lines[1].get_ydata(), document.output["free_energy_kj_per_mol"])
    classical, capacity, entropy = (line.get_ydata() for line in heat.lines[:3])
    assert classical[0] == pytest.approx(6 * 8.314462618)  # 3NR of two atoms
    np.testing.assert_array_equal(capacity, document.output["heat_capacity_j_per_k_mol"])
    np.testing.assert_array_equal(entropy, document.output["entropy_j_per_k_mol"])
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == [document.model_label, "other"]
    assert [text.get_text() for text in heat.get_legend().get_texts()] == ["3NR", "C$_V$", "S"]


def test_optical_branch_at_gamma_is_the_textbook_value(phonon_document, drawn, tmp_path: Path) -> None:
    # omega^2 = 2 K (1/m + 1/M) x (m = 1, M = 2, in units where K/2 is `stiffness`/2): sqrt(9 x 3) = 5.196.
    plot_phonon(phonon_document(), tmp_path / "bands.png")
    top = max(line.get_ydata().max() for line in drawn[0].axes[0].lines if len(line.get_xdata()) == 41)
    assert top == pytest.approx(np.sqrt(27.0))


@pytest.mark.parametrize(("shift", "lowest"), [(0.0, 0.0), (0.001, 0.0), (1.0, -1.08)])
def test_imaginary_region_opens_only_for_an_instability(phonon_document, drawn, tmp_path, shift, lowest) -> None:
    plot_phonon(phonon_document(shift_thz=shift), tmp_path / "bands.png")
    assert drawn[0].axes[0].get_ylim()[0] == pytest.approx(lowest)
    assert ("imaginary below 0" in drawn[0].axes[0].get_ylabel()) == (lowest < 0.0)
    assert ("unstable" in drawn[0].axes[0].get_title(loc="left")) == bool(shift)


def test_others_are_stretched_onto_the_first_path(phonon_document, drawn, tmp_path: Path) -> None:
    other = phonon_document(length=1.02, stiffness=8.0, model_label="labeller")
    plot_phonon(phonon_document(), tmp_path / "bands.png", others=[other])
    bands, dos = drawn[0].axes
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["chain_model", "labeller"]
    curves = [line for line in bands.lines if len(line.get_xdata()) == 41]
    assert len(curves) == 8
    np.testing.assert_allclose(curves[4].get_xdata(), curves[0].get_xdata(), atol=1e-12)
    np.testing.assert_array_equal(curves[4].get_ydata(), other.output["band_frequencies_thz"][0][:, 0])
    assert len({line.get_color() for line in dos.lines}) == 2


def test_another_path_is_refused(phonon_document, tmp_path: Path) -> None:
    other = phonon_document(model_label="labeller")
    other.output["band_labels"] = ["GAMMA", "M", "U", "GAMMA"]
    with pytest.raises(InputError, match="labeller has the path GAMMA-M-U-GAMMA"):
        plot_phonon(phonon_document(), tmp_path / "bands.png", others=[other])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("label", "text"),
    [("GAMMA", "Γ"), ("\\Gamma", "Γ"), ("$\\Gamma$", "Γ"), ("X", "X"), ("S_0", "S$_{0}$"), ("U|K", "U|K"),
     ("SIGMA_0", "Σ$_{0}$"), ("$\\mathrm{H_2}$", "H$_{2}$"), ("U|GAMMA", "U|Γ"),
     ("G", "G"), ("G_0|M", "G$_{0}$|M")],
)  # fmt: skip
def test_point_text(label: str, text: str) -> None:
    assert point_text(label) == text


def test_tick_labels_join_points_only_where_the_path_jumps() -> None:
    positions, texts = tick_labels(["GAMMA", "X", "U", "K", "K", "GAMMA"], np.array([0.0, 1.0, 2.0, 2.0, 3.0, 4.0]))
    assert positions == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert texts == ["Γ", "X", "U|K", "K", "Γ"]

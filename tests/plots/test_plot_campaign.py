"""Figures of a campaign show the numbers that they are given."""

from pathlib import Path

import numpy as np
import pytest

from esen_flows.errors import InputError
from esen_flows.plots.campaign import plot_cost, plot_distribution, plot_progress


def test_progress_counts_members_by_hours(drawn, tmp_path: Path) -> None:
    finished = 1e9 + 3600.0 * np.array([4.0, 0.0, 2.0])
    path = plot_progress(finished, 1e9 + np.array([3600.0]), tmp_path / "progress.png", "wbm")
    assert path.stat().st_size > 5_000
    assert path.with_suffix(".svg").is_file()
    (axes,) = drawn[0].axes
    done, members, failed, _ = axes.lines
    np.testing.assert_allclose(done.get_xdata(), [0, 1, 2, 4, 4])
    np.testing.assert_array_equal(done.get_ydata(), [1, 2, 3, 4, 4])
    np.testing.assert_allclose(members.get_xdata(), [0, 1, 2, 4])  # of few members every one is marked
    np.testing.assert_allclose(failed.get_xdata(), [1, 4])
    assert axes.get_xlabel() == "Hours since the first member was done"


def test_members_done_at_one_moment_get_an_axis_from_zero(drawn, tmp_path: Path) -> None:
    plot_progress(np.full(14, 1e9), np.empty(0), tmp_path / "progress.png", "trial")
    (axes,) = drawn[0].axes
    assert axes.get_xlim() == (0.0, 1.0)
    assert axes.get_xlabel() == "Seconds since the first member was done"
    np.testing.assert_array_equal(axes.lines[0].get_xdata()[[0, -1]], [0.0, 1.0])


def test_progress_of_a_quarter_of_a_million_is_a_small_file(tmp_path: Path) -> None:
    moments = np.random.default_rng(0).uniform(0, 1e5, 257_487)
    path = plot_progress(moments, np.empty(0), tmp_path / "progress.png", "wbm")
    assert path.with_suffix(".svg").stat().st_size < 200_000


def test_distributions_share_their_bins(drawn, tmp_path: Path) -> None:
    values = {"a": np.repeat([1.0, 3.0], [40, 2]), "b": np.array([7.0]), "none": np.empty(0)}
    plot_distribution(values, "max_frequency_thz", tmp_path / "d.png", "c")
    (axes,) = drawn[0].axes
    first, second = axes.patches
    assert first.get_data().values.tolist() == [40, 0, 2, 0, 0, 0, 0]  # 2 * 42 ** (1 / 3) is 6.95
    assert second.get_data().values[-1] == 1
    np.testing.assert_array_equal(first.get_data().edges, second.get_data().edges)
    assert axes.get_xlabel() == "Highest frequency (THz)"
    assert axes.get_xscale() == "linear"


def test_of_few_members_every_one_is_drawn(drawn, tmp_path: Path) -> None:
    values = {"a": np.array([1.0, 2.0, 6.0]), "none": np.empty(0), "b": np.array([-4.0])}
    plot_distribution(values, "energy_per_atom_ev", tmp_path / "d.png", "c")
    (axes,) = drawn[0].axes
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1.0, 2.0, 6.0])
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), [2.0, 2.0])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a (3)", "none (0)", "b (1)"]


@pytest.mark.parametrize("few", [True, False])
def test_conductivities_span_decades(drawn, tmp_path: Path, few: bool) -> None:
    numbers = np.array([0.1, 10.0, -1.0])
    plot_distribution({"a": numbers if few else np.tile(numbers, 40)}, "kappa_rta_w_per_m_k", tmp_path / "d.png", "c")
    (axes,) = drawn[0].axes
    assert axes.get_xscale() == "log"
    if few:
        np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0.1, 10.0])
    else:
        assert axes.patches[0].get_data().values.sum() == 80


def test_a_narrow_logarithmic_axis_has_plain_labels(drawn, tmp_path: Path) -> None:
    plot_distribution({"a": np.array([9.0, 11.0])}, "kappa_rta_w_per_m_k", tmp_path / "d.png", "c")
    (axes,) = drawn[0].axes
    low, high = axes.get_xlim()
    shown = [text.get_text() for text in axes.get_xticklabels() if low <= text.get_position()[0] <= high]
    assert shown == ["5", "10", "20"]


def test_cost_goes_through_the_medians(drawn, tmp_path: Path) -> None:
    atoms, seconds = {"a": np.array([2.0, 2.0, 2.0, 8.0])}, {"a": np.array([1.0, 5.0, 2.0, 0.0])}
    plot_cost(atoms, seconds, tmp_path / "cost.png", "c")
    (axes,) = drawn[0].axes
    assert not axes.lines  # few points are not joined
    assert len(axes.collections[0].get_offsets()) == 3  # a time of zero has no logarithm
    sizes = np.repeat([2.0, 8.0], 21)
    plot_cost({"a": sizes}, {"a": np.append(np.arange(21.0) + 1, np.arange(21.0) + 41)}, tmp_path / "cost.png", "c")
    np.testing.assert_array_equal(drawn[1].axes[0].lines[0].get_ydata(), [11.0, 51.0])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_ylabel() == "Time per member (s)"


def test_a_campaign_without_data_is_refused(tmp_path: Path) -> None:
    none = np.empty(0)
    with pytest.raises(InputError, match="no member of c is done"):
        plot_progress(none, none, tmp_path / "p.png", "c")
    with pytest.raises(InputError, match="no finished member of c has energy_per_atom_ev"):
        plot_distribution({"a": none}, "energy_per_atom_ev", tmp_path / "d.png", "c")
    with pytest.raises(InputError, match="no member of c was computed"):
        plot_cost({"a": np.ones(1)}, {"a": np.zeros(1)}, tmp_path / "c.png", "c")
    assert list(tmp_path.iterdir()) == []

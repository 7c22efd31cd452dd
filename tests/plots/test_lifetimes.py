"""Lifetimes and mean free paths as drawn, against numbers that can be added by hand."""

from pathlib import Path

import numpy as np
import pytest

from esen_flows.errors import InputError
from esen_flows.plots.lifetimes import cumulative_by_mean_free_path, plot_lifetimes, plot_mean_free_paths
from esen_flows.schemas.documents import ResultDocument


@pytest.fixture
def document(conductivity_document) -> ResultDocument:
    """Four modes: one at rest, and mean free paths of 0.4, 0.02 and 0.1 micrometres that carry 6, 1 and 3 W/m/K."""
    made = conductivity_document()
    made.output.update(
        frequencies_thz=np.array([[0.0, 4.0], [2.0, 8.0]]),
        lifetimes_ps=np.array([[np.nan, 20.0], [100.0, 50.0]]),
        group_velocities_m_per_s=np.array([[[0.0, 0, 0], [0, 1000, 0]], [[4000, 0, 0], [0, 0, -2000.0]]]),
        mode_kappa_w_per_m_k={"rta": np.array([[0.0, 1.0], [6.0, 3.0]])},
    )
    return made


def test_cumulative_over_mean_free_paths(document: ResultDocument) -> None:
    lengths, kappa = cumulative_by_mean_free_path(document.output)
    np.testing.assert_allclose(lengths, [0.02, 0.1, 0.4])
    np.testing.assert_allclose(kappa, [1.0, 4.0, 10.0])


def test_mean_free_paths_are_drawn(document: ResultDocument, drawn, tmp_path: Path) -> None:
    path = plot_mean_free_paths(document, tmp_path / "mean_free_paths.png", others=[document])
    assert path.with_suffix(".svg").exists()
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_legend().get_texts()[0].get_text().endswith(": 10")
    half = axes.lines[1]
    assert (half.get_xdata()[0], half.get_ydata()[1]) == pytest.approx((0.4, 5.0))


def test_modes_at_rest_do_not_set_the_axis(document: ResultDocument, drawn, tmp_path: Path) -> None:
    # A symmetric mode at the zone boundary has a group velocity that is zero but for rounding.
    document.output["group_velocities_m_per_s"][0, 0] = 1e-45  # type: ignore[index]
    document.output["lifetimes_ps"][0, 0] = 10.0  # type: ignore[index]
    plot_mean_free_paths(document, tmp_path / "mean_free_paths.png")
    axes = drawn[0].axes[0]
    assert axes.get_xlim() == pytest.approx((0.02 / 1.5, 0.4 * 1.5))
    curve = axes.lines[0]
    assert (curve.get_xdata()[-1], curve.get_ydata()[-1]) == pytest.approx((0.6, 10.0))  # to the end of the axis


def test_an_overlay_names_what_differs_and_its_title_what_is_shared(
    document: ResultDocument, drawn, tmp_path: Path
) -> None:
    finer = document.model_copy(update={"protocol": {"mesh": [19, 19, 19], "displacement": {"order": 3}}})
    finer.output = {**document.output, "mesh": (19, 19, 19)}  # type: ignore[dict-item]
    coarser = document.model_copy(update={"protocol": {"mesh": [11, 11, 11], "displacement": {"order": 3}}})
    plot_mean_free_paths(coarser, tmp_path / "m.png", others=[finer])
    axes = drawn[0].axes[0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["mesh 11×11×11: 10", "mesh 19×19×19: 10"]
    assert axes.get_title(loc="left") == "NaCl  ·  chain_model  ·  RTA, 300 K"


def test_lifetimes_are_drawn_with_the_period(document: ResultDocument, drawn, tmp_path: Path) -> None:
    plot_lifetimes(document, tmp_path / "lifetimes.png")
    axes = drawn[0].axes[0]
    modes, period = axes.lines
    np.testing.assert_allclose(modes.get_xdata(), [4.0, 2.0, 8.0])
    np.testing.assert_allclose(modes.get_ydata(), [20.0, 100.0, 50.0])
    np.testing.assert_allclose(period.get_ydata() * period.get_xdata(), 1.0)
    assert axes.get_ylabel() == "Lifetime (ps)"


def test_documents_without_lifetimes_are_refused(conductivity_document, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kept no lifetimes; compute it with another mesh, which needs no force call"):
        plot_lifetimes(conductivity_document(), tmp_path / "lifetimes.png")


def test_a_mesh_without_group_velocities(document: ResultDocument, drawn, tmp_path: Path) -> None:
    document.output.update(  # type: ignore[union-attr]
        group_velocities_m_per_s=np.zeros((2, 2, 3)), mode_kappa_w_per_m_k={"rta": np.zeros((2, 2))}
    )
    plot_mean_free_paths(document, tmp_path / "mean_free_paths.png")
    assert drawn[0].axes[0].get_legend().get_texts()[0].get_text().endswith(": 0")

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from esen_flows.errors import InputError
from esen_flows.plots.convergence import Series, plot_convergence

MESH = Series("mesh", ("7", "9", "11"), (90.0, None, 100.0), 2)
DTYPE = Series("dtype", ("float32", "float64"), (99.0, 100.0), 1)


def test_points_are_drawn_with_the_base_and_one_per_cent(drawn, tmp_path: Path) -> None:
    path = plot_convergence([MESH, DTYPE], "kappa (W/m/K)", "a model", "c0ffee", tmp_path / "converge.png")
    assert path.exists()
    assert path.with_suffix(".svg").exists()
    mesh, dtype = drawn[0].axes
    np.testing.assert_array_equal(mesh.lines[0].get_ydata(), [90.0, np.nan, 100.0])
    assert mesh.lines[1].get_xdata() == [2]
    assert mesh.patches[0].get_extents().transformed(mesh.transData.inverted()).height == pytest.approx(2.0)
    assert mesh.get_ylabel() == "kappa (W/m/K)"
    assert (mesh.get_xlabel(), dtype.get_xlabel()) == ("Mesh", "Precision")
    assert (mesh.lines[0].get_linestyle(), dtype.lines[0].get_linestyle()) == ("-", "None")  # no line between words


def test_a_study_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no point of the study has a result"):
        plot_convergence(
            [Series("mesh", ("7", "9"), (None, None), 0)], "kappa", "a model", "c0ffee", tmp_path / "x.png"
        )


@pytest.mark.parametrize("panels", [1, 2])
def test_title_and_legend_fit_the_figure(drawn, tmp_path: Path, panels: int) -> None:
    subject = "Si$_{12}$O$_{24}$  ·  a_force_field_with_a_long_name"
    plot_convergence([MESH, DTYPE][:panels], "kappa (W/m/K)", subject, "c0ffee", tmp_path / "converge.png")
    (figure,) = drawn
    figure.canvas.draw()  # at the resolution of the figure, not of the file
    assert len(figure.texts) == 2
    for text in figure.texts:
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height


def test_many_values_have_labels_that_do_not_touch(drawn, tmp_path: Path) -> None:
    meshes = tuple(str(n) for n in range(5, 60))
    many = Series("mesh", meshes, tuple(90 - 100 / float(n) for n in meshes), 0)
    plot_convergence([many], "kappa (W/m/K)", "a model", "c0ffee", tmp_path / "converge.png")
    boxes = [label.get_window_extent() for label in drawn[0].axes[0].get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))

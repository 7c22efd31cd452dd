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
    assert (mesh.lines[0].get_linestyle(), dtype.lines[0].get_linestyle()) == ("-", "None")  # no line between words


def test_a_study_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no point of the study has a result"):
        plot_convergence(
            [Series("mesh", ("7", "9"), (None, None), 0)], "kappa", "a model", "c0ffee", tmp_path / "x.png"
        )

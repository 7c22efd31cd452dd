"""The energies that are drawn are those of the document."""

from pathlib import Path

import numpy as np
import pytest

from esen_flows.errors import InputError
from esen_flows.plots.relaxation import plot_relaxation


@pytest.mark.parametrize("converged", [True, False])
def test_energy_path_as_given(relax_document, drawn, tmp_path: Path, converged: bool) -> None:
    path = plot_relaxation(relax_document(converged=converged), tmp_path / "relax.png")
    assert path.stat().st_size > 5_000
    axes = drawn[0].axes[0]
    assert axes.get_ylabel() == "Energy above the last step (meV/atom)"
    # 0.1 eV above the last step for two atoms is 50 meV/atom.
    curve = next(line for line in axes.lines if len(line.get_xdata()) == 13)
    np.testing.assert_allclose(curve.get_ydata()[:3], [50.0, 25.0, 12.5], rtol=1e-9)
    np.testing.assert_array_equal(curve.get_xdata(), np.arange(13))
    assert ("not converged" in axes.get_title(loc="left")) != converged


def test_another_kind_is_refused(phonon_document, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shows a 'relax' document"):
        plot_relaxation(phonon_document(), tmp_path / "relax.png")

"""Learning curves show the rows that they are given, stages one after the other."""

from pathlib import Path

import numpy as np
import pytest

from esen_flows.errors import InputError
from esen_flows.plots.training import StageCurves, plot_learning_curves


def stage(scale: float) -> StageCurves:
    steps = [{"step": n, "seconds": 6.0 * n, "loss": scale / n} for n in range(1, 11)]
    history = [
        {
            "step": n,
            "seconds": 6.0 * n,
            "energy_mae_mev_per_atom": scale / n,
            "force_mae_mev_per_angstrom": 10 * scale / n,
        }
        for n in (5, 10)
    ]
    return StageCurves(steps, history)


def test_errors_are_drawn_against_minutes_stage_after_stage(drawn, tmp_path: Path) -> None:
    path = plot_learning_curves({"two": [stage(1.0), stage(0.1)], "one": [stage(0.5)]}, tmp_path / "curves.png")
    assert path.stat().st_size > 5_000
    loss, energy, force = drawn[0].axes
    first, second = (line for line in energy.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-" and
                     line.get_color() == energy.lines[0].get_color())  # fmt: skip
    np.testing.assert_allclose(first.get_xdata(), [0.5, 1.0])
    np.testing.assert_allclose(second.get_xdata(), [1.5, 2.0])
    np.testing.assert_allclose(second.get_ydata(), [0.02, 0.01])
    assert force.get_ylabel() == "Held-out force MAE (meV/Å)"
    assert loss.get_yscale() == "log"


def test_the_clock_may_be_cpu_time(drawn, tmp_path: Path) -> None:
    rows = [{"step": 1, "seconds": 60.0, "cpu_seconds": 120.0, "loss": 1.0, "energy_mae_mev_per_atom": 1.0,
             "force_mae_mev_per_angstrom": 1.0}]  # fmt: skip
    plot_learning_curves({"a": [StageCurves(rows, rows)]}, tmp_path / "c.png", clock="cpu_seconds")
    assert drawn[0].axes[1].get_xlabel() == "CPU minutes of training"
    np.testing.assert_allclose(drawn[0].axes[1].lines[0].get_xdata(), [2.0])


def test_without_a_validation_there_is_nothing_to_plot(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no stage has been validated"):
        plot_learning_curves({"a": [StageCurves([], [])]}, tmp_path / "c.png")

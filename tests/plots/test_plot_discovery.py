"""Figures of predicted stability: every curve is drawn, and many points become a density."""

from pathlib import Path

import numpy as np
import pytest

from esen_flows.errors import InputError
from esen_flows.plots.discovery import plot_parity, plot_precision_recall, plot_roc, plot_rolling_errors


def test_parity_of_few_and_many(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    true = dice.normal(0, 1, 3000)
    true[0] = np.nan
    pairs = {"few": (true[:5], true[:5] + 0.1), "many": (true, true + 0.1), "none": (true[:1], true[:1])}
    svg = plot_parity(pairs, "Hull distance (eV/atom)", tmp_path / "p.png", "c").with_suffix(".svg").read_text()
    assert ">4 points</text>" in svg
    assert ">2,999 points, " in svg
    assert ">none</text>" not in svg
    kappa = {"a": (np.array([1.0, 10.0, -1.0]), np.array([2.0, 8.0, 3.0]))}
    svg = plot_parity(kappa, "κ", tmp_path / "k.png", "c", logarithmic=True).with_suffix(".svg").read_text()
    assert ">2 points</text>" in svg


def test_curves_have_their_names(tmp_path: Path) -> None:
    x = np.array([0.0, 0.5, 1.0])
    names = [f"m{i}" for i in range(8)]  # more than there are colours
    curves = dict.fromkeys(names, (x, x, x))
    files = [
        plot_roc(dict.fromkeys(names, (x, x, 0.5)), tmp_path / "roc.png", "c"),
        plot_rolling_errors(curves, tmp_path / "rolling.png", "c"),
        plot_precision_recall(dict.fromkeys(names, (x + 1, x, x)), tmp_path / "pr.png", "c"),
    ]
    for file in files:
        svg = file.with_suffix(".svg").read_text()
        assert all(name in svg for name in names)
    with pytest.raises(InputError, match="no force field of c has such a curve"):
        plot_roc({}, tmp_path / "no.png", "c")

"""Models in the plane of two metrics."""

from pathlib import Path

import pytest

from esen_flows.errors import InputError
from esen_flows.plots.leaderboard import ModelPoint, plot_models


def test_names_do_not_cover_each_other(tmp_path: Path) -> None:
    crowd = [ModelPoint(f"model-{i}", 0.1 + 1e-4 * i, 0.9, i % 2 == 0) for i in range(50)]
    far = [ModelPoint("far", 1.0, 0.5, None), ModelPoint("ours", 0.1, 0.9, True, own=True)]
    path = plot_models([*crowd, *far], "κ SRME", "F1", tmp_path / "board.png")
    texts = path.with_suffix(".svg").read_text()
    assert path.stat().st_size > 5_000
    assert ">far</text>" in texts
    assert ">ours</text>" in texts
    assert texts.count(">model-") <= 2


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model has both"):
        plot_models([], "κ SRME", "F1", tmp_path / "board.png")

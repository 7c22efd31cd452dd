"""Fixtures of the command line."""

from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from ase.io import write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a copper crystal in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    write(tmp_path / "Cu.cif", bulk("Cu", "fcc", a=3.6, cubic=True))
    return tmp_path


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn and not rendered, which takes half a second each; tests/plots and test_plot.py render them."""

    def write(figure: Any, path: Path, **options: Any) -> None:
        path.write_bytes(b"a figure")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", write)

"""Where setup.sh takes torch from; the interpreter in .venv is a script that writes down what it was asked."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTORCH = "https://download.pytorch.org/whl/cpu"
INTERPRETER = """#!/bin/sh
echo "$@" >>calls
case "$1 $2" in
"- http"*) exit "$UNREACHABLE" ;;
"-c import importlib"*) echo 2.13.0 ;;
"-m pip") [ "$3" != config ] || exit 1 ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="setup.sh needs bash")


def set_up(folder: Path, *, unreachable: int, **environment: str) -> tuple[str, list[str]]:
    """Output of setup.sh, and the calls of the interpreter."""
    for name in ("setup.sh", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    python = folder / ".venv/bin/python"
    if not python.exists():
        python.parent.mkdir(parents=True)
        python.write_text(INTERPRETER)
        python.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ESEN_FLOWS_")}
    done = subprocess.run(
        [folder / "setup.sh"],
        env={**inherited, "UNREACHABLE": str(unreachable), **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    calls = (folder / "calls").read_text().splitlines()
    return done.stdout, [call for call in calls if "torch==" in call or call.startswith("- ")]


def test_an_index_that_cannot_be_reached_is_replaced_by_pips_own_and_said_so(tmp_path: Path) -> None:
    told, calls = set_up(tmp_path, unreachable=1)
    assert calls == [f"- {PYTORCH} ", "-m pip install -q torch==2.13.0"]
    assert f"{PYTORCH} cannot be reached; taking torch from pip's own index" in told


def test_an_index_that_can_be_reached_is_used(tmp_path: Path) -> None:
    told, calls = set_up(tmp_path, unreachable=0)
    assert calls == [f"- {PYTORCH} ", f"-m pip install -q --index-url {PYTORCH} torch==2.13.0"]
    assert "cannot be reached" not in told


@pytest.mark.parametrize(("index", "option"), [("", ""), ("https://mirror.example/torch", "--index-url {} ")])
def test_a_named_index_is_neither_looked_at_nor_replaced(tmp_path: Path, index: str, option: str) -> None:
    _, calls = set_up(tmp_path, unreachable=1, ESEN_FLOWS_TORCH_INDEX=index)
    assert calls == [f"-m pip install -q {option.format(index)}torch==2.13.0"]

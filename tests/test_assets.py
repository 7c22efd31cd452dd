"""Which copy of the data folders is used."""

import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

import esen_flows.assets

ROOT = Path(__file__).resolve().parents[1]


def assets_at(root: Path) -> ModuleType:
    """Copy of esen_flows.assets that is installed under `root`."""
    path = root / "esen_flows" / "assets.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(esen_flows.assets.__file__, path)
    spec = spec_from_file_location("assets_copy", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("folder", ["models", "workflows", "launchers"])
def test_checkout_has_every_folder(folder: str) -> None:
    assert esen_flows.assets.asset_dir(folder) == ROOT / folder


def test_checkout_wins_over_the_packaged_copy(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "esen_flows"\n')
    (tmp_path / "models").mkdir()
    (tmp_path / "esen_flows" / "_data" / "models").mkdir(parents=True)
    assert assets_at(tmp_path).asset_dir("models") == tmp_path / "models"


@pytest.mark.parametrize("project", ['[project]\nname = "other"\n', "[tool.poetry]\nname = 'other'\n", None])
def test_models_folder_of_another_project_is_not_used(tmp_path: Path, project: str | None) -> None:
    # This is the state after `pip install --target .` in another project that has a models/ of its own.
    if project is not None:
        (tmp_path / "pyproject.toml").write_text(project)
    (tmp_path / "models").mkdir()
    packaged = tmp_path / "esen_flows" / "_data" / "models"
    packaged.mkdir(parents=True)
    assert assets_at(tmp_path).asset_dir("models") == packaged


def test_missing_folder_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no 'models' folder .*_data/models"):
        assets_at(tmp_path).asset_dir("models")

"""What wheel, sdist and editable install contain; built with the installed hatchling, so that no network is needed."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
import yaml
from build import ProjectBuilder

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ("models", "workflows", "launchers")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DIST_INFO = f"esen_flows-{VERSION}.dist-info"


def asset_files() -> dict[str, Path]:
    """The data files of the checkout, by their path below it."""
    return {p.relative_to(ROOT).as_posix(): p for name in ASSETS for p in (ROOT / name).rglob("*") if p.is_file()}


def top_level(names: list[str]) -> set[str]:
    return {name.partition("/")[0] for name in names}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(ProjectBuilder(ROOT).build("sdist", tmp_path_factory.mktemp("sdist")))


@pytest.fixture(scope="module")
def unpacked_sdist(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    # Python 3.11.2, which is Debian 12's, has no filters yet.
    safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, **safely)
    return folder / f"esen_flows-{VERSION}"


@pytest.fixture(scope="module")
def wheel(unpacked_sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, so that what the sdist lacks is missed here."""
    return Path(ProjectBuilder(unpacked_sdist).build("wheel", tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def wheel_names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_has_one_top_level_name(wheel_names: list[str]) -> None:
    assert top_level(wheel_names) == {"esen_flows", DIST_INFO}


def test_wheel_has_every_module_and_nothing_stale(wheel_names: list[str]) -> None:
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "esen_flows").rglob("*.py")}
    assert {name for name in wheel_names if name.endswith(".py")} == modules
    assert "esen_flows/py.typed" in wheel_names
    assert not [name for name in wheel_names if "__pycache__" in name or name.endswith(".pyc")]


def test_wheel_carries_the_data_files_unchanged(wheel: Path) -> None:
    files = asset_files()
    assert {"launchers/README.md", "workflows/silicon_kappa/Si.cif", "models/esen_silicon/card.yaml"} <= set(files)
    with zipfile.ZipFile(wheel) as archive:
        packed = {n.removeprefix("esen_flows/_data/") for n in archive.namelist() if n.startswith("esen_flows/_data/")}
        assert packed == set(files)
        for name, path in files.items():
            digest = hashlib.sha256(archive.read(f"esen_flows/_data/{name}")).hexdigest()
            assert digest == hashlib.sha256(path.read_bytes()).hexdigest(), name


def test_data_folders_hold_no_code() -> None:
    assert not [name for name in asset_files() if name.endswith(".py")]


def test_wheel_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = Parser().parsestr(archive.read(f"{DIST_INFO}/METADATA").decode())
        entry_points = archive.read(f"{DIST_INFO}/entry_points.txt").decode()
        assert f"{DIST_INFO}/licenses/LICENSE" in archive.namelist()
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "esen-flows = esen_flows.cli.entry:main" in entry_points
    requirements = metadata.get_all("Requires-Dist")
    # Bounded from below only: a bare GPU machine has the torch that its driver needs.
    assert "torch>=2.8" in requirements
    assert "atomate2<0.2,>=0.1.5" in requirements
    assert {"embedded", "label", "test", "dev"} <= set(metadata.get_all("Provides-Extra"))


def test_installed_wheel_finds_its_data_files(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = "import esen_flows, esen_flows.assets as a; print(esen_flows.__file__); print(a.asset_dir('models'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    assert done.stdout.splitlines() == [
        str(site / "esen_flows" / "__init__.py"),
        str(site / "esen_flows" / "_data" / "models"),
    ]


def test_sdist_has_all_that_building_and_testing_needs(sdist: Path, unpacked_sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        assert top_level(archive.getnames()) == {f"esen_flows-{VERSION}"}
    for name in (
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "LICENSE",
        "constraints.txt",
        "setup.sh",
        *asset_files(),
    ):
        assert (unpacked_sdist / name).is_file(), name
    assert (unpacked_sdist / "tests" / "test_packaging.py").is_file()
    assert os.access(unpacked_sdist / "setup.sh", os.X_OK)


def test_editable_install_points_at_the_checkout(tmp_path: Path) -> None:
    built = Path(ProjectBuilder(ROOT).build("editable", tmp_path))
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
        (pth,) = [name for name in names if name.endswith(".pth")]
        assert archive.read(pth).decode().strip() == str(ROOT)
    assert top_level(names) == {"esen_flows", DIST_INFO, pth}
    # The copy of the data files is all that an editable install takes along; assets.py prefers the checkout's.
    assert all(name.startswith("esen_flows/_data/") for name in names if name.startswith("esen_flows/"))


def test_version_is_said_equally_everywhere() -> None:
    import esen_flows

    assert esen_flows.__version__ == VERSION
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == VERSION
    assert f"## [{VERSION}]" in (ROOT / "CHANGELOG.md").read_text()


def test_setup_script_is_valid_bash() -> None:
    bash = shutil.which("bash")
    assert bash is not None, "setup.sh and .ci/run need bash"
    for script in ("setup.sh", ".ci/run"):
        if (ROOT / script).is_file():
            subprocess.run([bash, "-n", str(ROOT / script)], check=True, timeout=600)
            assert os.access(ROOT / script, os.X_OK), script

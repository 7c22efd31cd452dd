"""Environments of calculator cards, with pip replaced by a recorder: nothing is downloaded."""

import json
import sys
from pathlib import Path

import pytest

from esen_flows.errors import ModelError
from esen_flows.forcefield import environments
from esen_flows.forcefield.environments import environment_folder, environment_python, install, is_installed
from esen_flows.schemas.card import read_card
from esen_flows.schemas.model_card import ModelCard
from esen_flows.settings import get_settings


@pytest.fixture(autouse=True)
def _own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("ESEN_FLOWS_DATA_DIR", str(tmp_path / "data"))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture(name="pip")
def _pip(monkeypatch):
    """Commands that would have run, in a machine without a GPU; `resolved` are the packages of a dry run."""
    commands: list[list[str]] = []

    class Pip:
        resolved = ("ase",)
        installed: dict[str, str] = {}  # noqa: RUF012
        fails_at = ""

    def run(command, failure):
        commands.append([str(part) for part in command])
        if Pip.fails_at and Pip.fails_at in command:
            raise ModelError(f"{failure}: no network")
        if "venv" in command:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.symlink_to(sys.executable)
        if "--dry-run" in command:
            return json.dumps({"install": [{"metadata": {"name": name}} for name in Pip.resolved]})
        return json.dumps(Pip.installed) if command[-2] == "-c" else ""

    monkeypatch.setattr(environments, "_run", run)
    monkeypatch.setattr(environments, "_runs", lambda python, code: True)
    monkeypatch.setattr(environments, "_has_gpu", lambda: False)
    Pip.commands = commands
    return Pip


def card(**recipe) -> ModelCard:
    base = read_card("nequix_mp").model_dump(exclude_none=True, exclude={"source", "calculator"})
    recipe = {"version": "1.0", "build": "package:Calculator", **recipe}
    return ModelCard.model_validate(base | {"package": "package", "calculator": recipe})


def installs(pip) -> list[str]:
    """Arguments of the calls of pip that install something."""
    wet = [command for command in pip.commands if "--dry-run" not in command]
    found = [" ".join(part for part in command if not part.startswith("--")) for command in wet]
    return [text.partition(" install ")[2] for text in found if " install " in text]


def test_torch_comes_first_from_cpu_wheels_and_no_resolver_replaces_it(pip, monkeypatch):
    monkeypatch.setenv("ESEN_FLOWS_TORCH_INDEX", "http://localhost/cpu")
    get_settings.cache_clear()
    pip.installed = {"torch": "2.9.0+cpu", "package": "1.0"}
    one = card(torch="torch>=2.8", requirements=["ase"])
    python = install(one, say=lambda text: None)
    assert any("--index-url http://localhost/cpu torch>=2.8" in " ".join(command) for command in pip.commands)
    assert installs(pip) == ["2 http://localhost/cpu torch>=2.8", "2 ase package==1.0 torch==2.9.0+cpu"]
    assert is_installed(one)
    assert environment_python(one) == python
    before = len(pip.commands)
    assert install(one, say=lambda text: None) == python
    assert len(pip.commands) == before  # nothing is done twice


def test_cuda_packages_are_refused_without_a_gpu_before_they_are_downloaded(pip):
    pip.resolved = ("ase", "nvidia-cublas-cu12")
    with pytest.raises(ModelError, match="nvidia-cublas-cu12 on a machine without a GPU"):
        install(card(), say=lambda text: None)
    assert installs(pip) == []


def test_torch_from_the_index_of_pip_brings_cuda_only_where_that_was_asked_for(pip, monkeypatch):
    monkeypatch.delenv("ESEN_FLOWS_TORCH_INDEX", raising=False)
    monkeypatch.setattr(environments, "_CPU_TORCH", "http://127.0.0.1:9")  # where nobody listens
    get_settings.cache_clear()
    pip.resolved, pip.installed = ("torch", "nvidia-cublas-cu12"), {"torch": "2.9.0", "package": "1.0"}
    one = card(torch="torch>=2.8", dependencies="listed")
    with pytest.raises(ModelError, match="nvidia-cublas-cu12 on a machine without a GPU"):
        install(one, say=lambda text: None)
    assert installs(pip) == []
    monkeypatch.setenv("ESEN_FLOWS_TORCH_INDEX", "")
    install(one, say=lambda text: None)
    assert installs(pip) == ["2 torch>=2.8", "2 package==1.0"]


def test_an_environment_whose_interpreter_is_gone_is_made_again(pip):
    pip.installed = {"package": "1.0"}
    one = card()
    python = install(one, say=lambda text: None)
    python.unlink()
    assert not is_installed(one)
    with pytest.raises(ModelError, match="is gone; run esen-flows models install"):
        environment_python(one)
    assert install(one, say=lambda text: None) == python
    assert is_installed(one)


def test_an_interrupted_installation_goes_on(pip):
    pip.installed = {"package": "1.0"}
    one = card(dependencies="listed", requirements=["ase"])
    pip.fails_at = "--no-deps"
    with pytest.raises(ModelError, match=r"pip cannot install package==1.0 .* --python.*goes on where.*no network"):
        install(one, say=lambda text: None)
    assert not is_installed(one)
    pip.fails_at, pip.commands[:] = "", []
    install(one, say=lambda text: None)
    assert not any("venv" in command for command in pip.commands)
    assert installs(pip)[-1] == "2 package==1.0"


def test_an_environment_with_another_version_is_refused(pip):
    pip.installed = {"package": "2.0"}
    with pytest.raises(ModelError, match=r"has package 2\.0, the card of 'nequix_mp' says 1\.0"):
        install(card(), python=Path(sys.executable), say=lambda text: None)


def test_cards_with_one_recipe_share_an_environment():
    first, second = read_card("nequix_mp"), read_card("nequix_mp_pft")
    assert environment_folder(first) == environment_folder(second)
    assert environment_folder(first) != environment_folder(card())


def test_a_checkpoint_from_the_mirror_is_verified(pip, tmp_path, monkeypatch):
    (tmp_path / "nequix-mp-1.nqx").write_bytes(b"damaged")
    monkeypatch.setenv("ESEN_FLOWS_MODEL_MIRROR", str(tmp_path))
    get_settings.cache_clear()
    pip.installed = {"nequix": "0.4.5"}
    with pytest.raises(ModelError, match=r"nequix-mp-1.nqx is damaged"):
        install(read_card("nequix_mp"), python=Path(sys.executable), say=lambda text: None)

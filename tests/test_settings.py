"""Settings come from ESEN_FLOWS_* variables and keep secrets."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from esen_flows.errors import InputError
from esen_flows.settings import Settings, get_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("ESEN_FLOWS_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_defaults_are_under_the_home_directory(tmp_path: Path) -> None:
    settings = Settings()
    assert settings.data_dir == tmp_path / ".local/share/esen_flows"
    assert settings.cache_dir == tmp_path / ".cache/esen_flows"
    assert settings.mongo_uri is None
    assert settings.mongod_idle_seconds == 600.0


def test_xdg_directories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    settings = Settings()
    assert settings.data_dir == tmp_path / "data" / "esen_flows"
    assert settings.cache_dir == tmp_path / ".cache" / "esen_flows"


def test_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESEN_FLOWS_DATABASE", "campaigns")
    monkeypatch.setenv("ESEN_FLOWS_THREADS", "3")
    monkeypatch.setenv("ESEN_FLOWS_MONGOD", "/opt/mongod")
    settings = Settings()
    assert (settings.database, settings.threads, settings.mongod) == ("campaigns", 3, Path("/opt/mongod"))


def test_the_spool_is_in_the_data_folder_unless_it_is_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Settings().spool_folder == tmp_path / ".local/share/esen_flows/spool"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESEN_FLOWS_SPOOL_DIR", "here")
    assert Settings().spool_folder == tmp_path / "here"
    assert (Settings().spool, Settings().read_only, Settings().spool_after_seconds) == (False, False, 600.0)


def test_set_but_empty_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESEN_FLOWS_MONGO_URI", "")
    monkeypatch.setenv("ESEN_FLOWS_THREADS", "")
    settings = Settings()
    assert settings.mongo_uri is None
    assert settings.threads is None


def test_paths_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # FireWorks changes the working directory, and a relative path would move with it.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESEN_FLOWS_DATA_DIR", "here")
    monkeypatch.setenv("ESEN_FLOWS_CACHE_DIR", "~/cache")
    assert Settings().data_dir == tmp_path / "here"
    assert Settings().cache_dir == tmp_path / "cache"


def test_password_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESEN_FLOWS_MONGO_URI", "mongodb://user:hunter2@db.example.org")
    settings = Settings()
    assert settings.mongo_uri is not None
    assert settings.mongo_uri.get_secret_value() == "mongodb://user:hunter2@db.example.org"
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().database = "other"


def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESEN_FLOWS_THREADS", "many")
    get_settings.cache_clear()
    with pytest.raises(InputError, match="ESEN_FLOWS_THREADS: Input should be a valid integer"):
        get_settings()


def test_get_settings_reads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    get_settings.cache_clear()
    first = get_settings()
    monkeypatch.setenv("ESEN_FLOWS_DATABASE", "later")
    assert get_settings() is first
    get_settings.cache_clear()
    assert get_settings().database == "later"
    get_settings.cache_clear()

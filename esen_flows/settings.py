"""Settings from the environment (ESEN_FLOWS_*); the only place that reads them."""

import os
from functools import cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def _user_dir(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / fallback) / "esen_flows"


class Settings(BaseSettings):
    """Where things are. With no `mongo_uri` a private mongod is started for this user."""

    model_config = SettingsConfigDict(env_prefix="ESEN_FLOWS_", frozen=True)

    mongo_uri: SecretStr | None = Field(default=None, description="mongodb:// URI; may hold credentials, never printed")
    database: str = "esen_flows"
    data_dir: Path = Field(default_factory=lambda: _user_dir("XDG_DATA_HOME", ".local/share"))
    cache_dir: Path = Field(default_factory=lambda: _user_dir("XDG_CACHE_HOME", ".cache"))
    mongod: Path | None = Field(default=None, description="mongod binary; otherwise PATH, then the `embedded` extra")
    mongod_idle_seconds: float = 600.0
    server_timeout_seconds: float = 15.0
    threads: int | None = Field(default=None, description="torch and OpenMP threads; None: the library default")


@cache
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()

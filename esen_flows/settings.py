"""Settings from the environment (ESEN_FLOWS_*); the only place that reads them."""

import os
from functools import cache
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from esen_flows.errors import InputError

_PREFIX = "ESEN_FLOWS_"


def _user_dir(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / fallback) / "esen_flows"


class Settings(BaseSettings):
    """Where things are. With no `mongo_uri` a private mongod is started for this user."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, frozen=True)

    mongo_uri: SecretStr | None = Field(default=None, description="mongodb:// URI; may hold credentials, never printed")
    database: str = "esen_flows"
    data_dir: Path = Field(default_factory=lambda: _user_dir("XDG_DATA_HOME", ".local/share"))
    cache_dir: Path = Field(default_factory=lambda: _user_dir("XDG_CACHE_HOME", ".cache"))
    mongod: Path | None = Field(default=None, description="mongod binary; otherwise PATH, then the `embedded` extra")
    mongod_idle_seconds: float = 600.0
    server_timeout_seconds: float = 15.0
    model_mirror: str | None = Field(default=None, description="folder or URL to fetch published checkpoints from")
    hub_token: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices(f"{_PREFIX}HUB_TOKEN", "HF_TOKEN"),
        description="token for gated checkpoints; never printed",
    )
    threads: int | None = Field(default=None, description="torch and OpenMP threads; None: the library default")

    @field_validator("data_dir", "cache_dir", "mongod", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        """Fixed at the start: FireWorks changes the working directory."""
        return None if value is None else value.expanduser().absolute()


@cache
def get_settings() -> Settings:
    """The settings of this process, read once.

    Raises
    ------
    InputError : a variable that cannot be read; the message names it, without the value of a secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = [f"{_PREFIX}{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors()]
        raise InputError(f"cannot read the settings from the environment: {'; '.join(faults)}") from error

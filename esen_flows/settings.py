"""Settings from the environment (ESEN_FLOWS_*); the only place that reads them."""

import os
import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from esen_flows.errors import InputError

_PREFIX = "ESEN_FLOWS_"


def _user_dir(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / fallback) / "esen_flows"


class Settings(BaseSettings):
    """Where things are. With no `mongo_uri` a private mongod is started for this user."""

    # What could not be read may be a password, so no message shows it.
    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, frozen=True, hide_input_in_errors=True)

    mongo_uri: SecretStr | None = Field(default=None, description="mongodb:// URI; may hold credentials, never printed")
    mongo_uri_file: Path | None = Field(default=None, description="file that holds it, readable by its owner alone")
    read_only: bool = Field(default=False, description="queries work, nothing is written or computed")
    spool: bool = Field(default=False, description="write results into the spool, without any server")
    spool_dir: Path | None = Field(default=None, description="None: `spool` in data_dir")
    spool_after_seconds: float = Field(default=600.0, ge=0.0, description="a run waits so long for a lost server")
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

    @property
    def spool_folder(self) -> Path:
        """Where results go while there is no server."""
        return self.spool_dir or self.data_dir / "spool"

    @model_validator(mode="before")
    @classmethod
    def _uri_from_file(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The file is read here, so that nobody else needs to know where the URI came from."""
        file = values.get("mongo_uri_file")
        if not file:
            return values
        if values.get("mongo_uri"):
            raise ValueError(f"{_PREFIX}MONGO_URI and {_PREFIX}MONGO_URI_FILE are both set; unset one of them")
        return {**values, "mongo_uri": _private_text(Path(file).expanduser())}

    @field_validator("data_dir", "cache_dir", "mongod", "mongo_uri_file", "spool_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        """Fixed at the start: FireWorks changes the working directory."""
        return None if value is None else value.expanduser().absolute()


def _private_text(file: Path) -> str:
    """The one line of a file that only its owner can read."""
    name = f"{_PREFIX}MONGO_URI_FILE ({file})"
    try:
        with file.open() as opened:
            found = os.fstat(opened.fileno())  # of what is read, not of what the name means a moment later
            if found.st_mode & 0o077:
                raise ValueError(
                    f"{name} can be read or changed by others (mode {stat.S_IMODE(found.st_mode):04o}); "
                    f"run: chmod 600 {file}"
                )
            if found.st_uid not in (os.getuid(), 0):
                raise ValueError(f"{name} belongs to user {found.st_uid}; give a file of your own")
            text = opened.read().strip()
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from error
    if not text or "\n" in text:
        raise ValueError(f"{name} must hold one line, the mongodb:// URI (it is not shown, it may hold a password)")
    return text


@cache
def get_settings() -> Settings:
    """The settings of this process, read once.

    Raises
    ------
    InputError
        a variable that cannot be read; the message names it, without the value of a secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = [_fault(fault) for fault in error.errors(include_input=False)]
        raise InputError(f"cannot read the settings from the environment: {'; '.join(faults)}") from error


def _fault(fault: Mapping[str, Any]) -> str:
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{_PREFIX}{str(fault['loc'][0]).upper()}: {message}" if fault["loc"] else message

"""Settings from environment variables (ESEN_FLOWS_*), which are read only here."""

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
_LONGEST_SECONDS = 3.2e8  # ten years
_MOST_THREADS = 1024


def _user_dir(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / fallback) / "esen_flows"


class Settings(BaseSettings):
    """Settings of this process, from the environment variables ESEN_FLOWS_<NAME IN CAPITALS>.

    Attributes
    ----------
    mongo_uri
        URI of a MongoDB server (mongodb://...), which may hold a password and is never printed; None: a private mongod
        is started for this user.
    mongo_uri_file
        File with this URI, readable by its owner alone; instead of `mongo_uri`.
    read_only
        Whether queries work and nothing is written or computed.
    spool
        Whether results are written into the spool, without any server.
    spool_dir
        Folder of spools; None: `spool` in `data_dir`.
    spool_after_seconds
        How long a run waits for a lost server before it writes into the spool.
    database
        Name of the database.
    data_dir
        Folder of the private server and the spools.
    cache_dir
        Folder of downloaded files.
    reference_dir
        Folder of reference sets, such as one with files that a user has already; None: `published` in `cache_dir`.
    mongod
        Binary of the private server; None: the mongod on PATH, else the one of the `embedded` extra.
    mongod_idle_seconds
        Time without a client after which the private server stops.
    server_timeout_seconds
        How long an operation waits for a server that does not answer.
    model_mirror
        Folder or URL from which published checkpoints are fetched; None: their own addresses.
    hub_token
        Token for gated checkpoints, also read from HF_TOKEN, and never printed.
    torch_index
        Package index from which torch is installed into environments of other force fields, on machines without a GPU;
        None: PyTorch's CPU wheels. The variable set but empty: pip's own index, which may bring CUDA.
    threads
        Number of threads of torch and OpenMP; None: the default of the libraries.
    """

    # A value that cannot be read may be a password, so messages do not show it.
    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, frozen=True, hide_input_in_errors=True)

    mongo_uri: SecretStr | None = None
    mongo_uri_file: Path | None = None
    read_only: bool = False
    spool: bool = False
    spool_dir: Path | None = None
    spool_after_seconds: float = Field(default=600.0, ge=0.0, le=_LONGEST_SECONDS)
    database: str = "esen_flows"
    data_dir: Path = Field(default_factory=lambda: _user_dir("XDG_DATA_HOME", ".local/share"))
    cache_dir: Path = Field(default_factory=lambda: _user_dir("XDG_CACHE_HOME", ".cache"))
    reference_dir: Path | None = None
    mongod: Path | None = None
    mongod_idle_seconds: float = Field(default=600.0, gt=0.0, le=_LONGEST_SECONDS)
    server_timeout_seconds: float = Field(default=15.0, gt=0.0, le=_LONGEST_SECONDS)
    model_mirror: str | None = None
    hub_token: SecretStr | None = Field(default=None, validation_alias=AliasChoices(f"{_PREFIX}HUB_TOKEN", "HF_TOKEN"))
    torch_index: str | None = None
    threads: int | None = Field(default=None, ge=1, le=_MOST_THREADS)

    @property
    def spool_folder(self) -> Path:
        """Folder of spools, to which results go while there is no server."""
        return self.spool_dir or self.data_dir / "spool"

    @property
    def reference_folder(self) -> Path:
        """Folder of reference sets."""
        return self.reference_dir or self.cache_dir / "published"

    @model_validator(mode="before")
    @classmethod
    def _uri_from_file(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Read the file of the URI, so that everything else needs to know `mongo_uri` alone."""
        file = values.get("mongo_uri_file")
        if not file:
            return values
        if values.get("mongo_uri"):
            raise ValueError(f"{_PREFIX}MONGO_URI and {_PREFIX}MONGO_URI_FILE are both set; unset one of them")
        return {**values, "mongo_uri": _private_text(Path(file).expanduser())}

    @field_validator("data_dir", "cache_dir", "reference_dir", "mongod", "mongo_uri_file", "spool_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        """Paths are made absolute at the start, because FireWorks changes the working directory."""
        return None if value is None else value.expanduser().absolute()


def _private_text(file: Path) -> str:
    """The single line of a file that only its owner can read."""
    name = f"{_PREFIX}MONGO_URI_FILE ({file})"
    try:
        with file.open() as opened:
            found = os.fstat(opened.fileno())  # of the open file: the name may mean another file a moment later
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

    Returns
    -------
    Settings
        The settings.

    Raises
    ------
    InputError
        A variable cannot be read. The message names the variable, without its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = [_fault(fault) for fault in error.errors(include_input=False)]
        raise InputError(f"cannot read the settings from the environment: {'; '.join(faults)}") from error
    except UnicodeError:
        raise InputError(
            "cannot read the settings from the environment: a variable holds bytes that are no text"
        ) from None


def _fault(fault: Mapping[str, Any]) -> str:
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{_PREFIX}{str(fault['loc'][0]).upper()}: {message}" if fault["loc"] else message

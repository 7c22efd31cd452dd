"""Where a result came from: versions, machine, cost. Never a secret: no environment, no URI, no user name."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from esen_flows.schemas.documents import Provenance
from esen_flows.version import __version__

LIBRARIES = ("torch", "numpy", "ase", "vesin", "spglib", "phonopy", "phono3py", "symfc", "jobflow", "pymongo", "sevenn")


@cache
def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that numbers depend on; those that are not installed are left out."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@cache
def git_revision() -> str | None:
    """Revision of the checkout that this package runs from, "-dirty" after local changes; None outside of one."""
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
        where force calls ran ("cpu", "cuda:0").
    threads
        threads of a force call.
    seconds
        wall time of the step.
    force_evaluations
        structures evaluated for it.
    firework_id
        of the FireWorks launch, if any.
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

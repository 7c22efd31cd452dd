"""Versions of phonopy and phono3py for the keys of lattice results, read without an import of the packages."""

from functools import cache
from importlib.metadata import version
from typing import Literal

# phonopy and phono3py 4 hold two implementations whose last digits differ. This package always asks for this one.
LATTICE_BACKEND = "Rust"
# Implementation of phonon linewidths: ours, or phono3py's own.
TransportBackend = Literal["native", "Rust"]
TRANSPORT_BACKEND: TransportBackend = "native"


@cache
def _minor_version(package: str) -> str:
    return ".".join(version(package).split(".")[:2])


def lattice_versions(transport: str = TRANSPORT_BACKEND) -> dict[str, str]:
    """The lattice fields of NumericSettings.

    Integration weights and defaults differ between minor versions, and so do conductivities.

    Parameters
    ----------
    transport
        Implementation of phonon linewidths.

    Returns
    -------
    dict[str, str]
        Minor versions of phonopy and phono3py, such as "4.8", and the implementation.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        One of them is not installed.
    """
    versions = {package: _minor_version(package) for package in ("phonopy", "phono3py")}
    return versions | {"lattice_backend": transport}

"""Which phonopy and phono3py a derived lattice result comes from, read from package metadata without importing them."""

from functools import cache
from importlib.metadata import version

# phonopy and phono3py 4 hold two implementations, with last digits of their own: the one that we always ask for.
LATTICE_BACKEND = "Rust"


def minor_version(package: str) -> str:
    """Major and minor version of an installed package, such as "4.8".

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        it is not installed.
    """
    return ".".join(version(package).split(".")[:2])


@cache
def _versions() -> tuple[str, str]:
    return minor_version("phonopy"), minor_version("phono3py")


def lattice_versions() -> dict[str, str]:
    """The lattice fields of NumericSettings: phonopy and phono3py minor versions, and the implementation.

    Integration weights and defaults differ between minor versions, and a conductivity with them.
    """
    phonopy, phono3py = _versions()
    return {"phonopy": phonopy, "phono3py": phono3py, "lattice_backend": LATTICE_BACKEND}

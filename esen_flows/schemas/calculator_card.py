"""Part of a model card that says how the ASE calculator of another package is built, in an environment of its own."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from esen_flows.errors import ModelError
from esen_flows.files import sha256_of_file
from esen_flows.schemas.frozen import Closed
from esen_flows.schemas.keys import sha256_of, third_party_key


class CalculatorRecipe(Closed):
    """How to make the environment, and how to build the calculator in it.

    Attributes
    ----------
    version
        Version of the package; part of the model key.
    build
        Import path of the calculator's class or of a function that gives one, as module:name.
    build_outside_package
        Whether `build` may be of another distribution or module than `package`; otherwise it is refused.
    python
        Versions of Python that the package is known to run on.
    torch
        Requirement of torch, which is installed first: from the CPU wheels on a machine without a GPU.
    requirements
        What is installed before the package itself.
    dependencies
        "resolved": pip resolves what the package asks for. "listed": only `requirements` are installed, for packages
        that ask for more than their calculator needs, such as CUDA.
    checkpoint_argument
        Argument that takes the path of the checkpoint.
    checkpoint_file, checkpoint_sha256
        A checkpoint beside the card; a published one is named by the card's `source`.
    device_argument
        Argument that takes "cpu" or "cuda"; None: the package uses the GPU that it sees, if any.
    dtype_argument
        Argument that takes "float32" or "float64"; None: the card's `dtype` is the only one.
    paths
        The card's folder (".") or folders in it to import from, for calculators that no package has.
    cutoff_angstrom, smooth
        As in `forcefield.contract.Declaration`.
    time_limit_seconds
        Time for each structure, after which the process counts as hung.
    """

    version: str = Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+!-]*$")
    build: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    build_outside_package: bool = False
    python: tuple[Literal["3.10", "3.11", "3.12", "3.13", "3.14"], ...] = Field(("3.11", "3.12", "3.13"), min_length=1)
    torch: str | None = Field(default=None, pattern=r"^torch\b")
    requirements: tuple[str, ...] = ()
    dependencies: Literal["resolved", "listed"] = "resolved"
    checkpoint_argument: str | None = None
    checkpoint_file: str | None = None
    checkpoint_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    device_argument: str | None = None
    dtype_argument: str | None = None
    paths: tuple[str, ...] = ()
    cutoff_angstrom: PositiveFloat | None = None
    smooth: bool = True
    time_limit_seconds: PositiveFloat = 900.0

    @model_validator(mode="after")
    def _consistent(self) -> "CalculatorRecipe":
        if (self.checkpoint_file is None) != (self.checkpoint_sha256 is None):
            raise ValueError("`checkpoint_file` and `checkpoint_sha256` go together")
        for requirement in (*self.requirements, self.torch or ""):
            if requirement.startswith("-"):
                raise ValueError(f"{requirement!r} is an option of pip, not a requirement")
        for path in self.paths:
            if Path(path).is_absolute() or ".." in Path(path).parts:
                raise ValueError(f"{path!r} of `paths` leaves the folder of the card; put the code beside the card")
        return self

    def environment_name(self, package: str) -> str:
        """Name of the folder of the environment, which cards with the same recipe for it share.

        Parameters
        ----------
        package
            Name of the package.

        Returns
        -------
        str
            Package, version, and 8 hexadecimal digits of the recipe.
        """
        recipe = self.model_dump(include={"python", "torch", "requirements", "dependencies"}, mode="json")
        return f"{package}-{self.version}-{sha256_of(recipe)[:8]}"

    def model_key(
        self,
        package: str,
        arguments: dict[str, Any],
        checkpoint_sha256: str | None,
        *,
        builder: str | None,
        folder: Path,
    ) -> str:
        """Model key, which needs no environment.

        Parameters
        ----------
        package
            Name of the package.
        arguments
            Arguments of the calculator, without device, precision and path of the checkpoint.
        checkpoint_sha256
            sha256 of the checkpoint; None: the package brings its own.
        builder
            Builder of this package that has the same numbers: the key is then the one that it gives; None: none has.
        folder
            Folder of the card, to which `paths` are relative.

        Returns
        -------
        str
            Hexadecimal sha256.

        Raises
        ------
        ModelError
            A folder of `paths` is missing, or has no code.
        """
        values = dict(arguments)
        if checkpoint_sha256 is not None:
            values["checkpoint_sha256"] = checkpoint_sha256
        if builder is None:
            values["build"] = self.build
        if builder is None and self.paths:
            values["code_sha256"] = sha256_of([_code(folder / path) for path in self.paths])
        return third_party_key(package, self.version, values)


def _code(folder: Path) -> dict[str, str]:
    """The sha256 of Python files and compiled modules of a folder, by relative path; hidden folders do not count."""
    found = {
        path.relative_to(folder).as_posix(): sha256_of_file(path)
        for pattern in ("*.py", "*.so", "*.pyd")
        for path in folder.rglob(pattern)
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    if not found:
        raise ModelError(f"{folder}, which a calculator card names in `paths`, has no Python files; correct the card")
    return found

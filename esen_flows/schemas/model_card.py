"""Schema of model cards (models/<name>/card.yaml): what a card says of a force field."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal

from ase.data import atomic_numbers
from pydantic import Field, field_validator, model_validator

from esen_flows.schemas.calculator_card import CalculatorRecipe
from esen_flows.schemas.declarations import Dtype, Equivariance, Parity
from esen_flows.schemas.frozen import Closed


class Checkpoint(Closed):
    """File of the weights, beside the card."""

    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    model_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    parameters: int | None = None


class PublishedSource(Closed):
    """Address of a published checkpoint in its publishers' format.

    `sha256` is None where the publishers name none. The download is then verified by the digest that the hub sends.
    """

    url: str = Field(pattern=r"^https?://")
    page: str  # for people: licence, request for access
    gated: bool = False  # access is given on request, and needs a token
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    options: dict[str, Any] = Field(default_factory=dict)  # backbone options that the file does not hold

    @property
    def filename(self) -> str:
        """Name of the file, which is the last part of the address."""
        return self.url.rstrip("/").rsplit("/", 1)[-1]


class Reference(Closed):
    """Value of a measured property by another method."""

    source: str
    value: float


class Settings(Closed):
    """What a result has to have been computed with to be compared with a measured one; None: it does not matter."""

    space_group_number: int | None = None
    atoms_fc2: int | None = None
    atoms_fc3: int | None = None
    displacement_angstrom: float | None = None
    parity: Parity | None = None
    mesh: str | None = None  # "11x11x11"
    isotope_scattering: bool | None = None
    temperature_kelvin: float | None = None


class Measured(Closed):
    """One measured result; `property` is a summary field of result documents, so that commands can compare them."""

    property: str
    value: float
    unit: str
    formula: str | None = None  # None: a property of the model, such as a held-out error
    conditions: str = ""
    settings: Settings | None = None  # None: results are not compared with it
    reference: tuple[Reference, ...] = ()


class DomainTest(Closed):
    """How many structures of a test set the calibration of a domain calls outside."""

    structures: str  # what they are
    expected: Literal["inside", "outside"]
    outside: int = Field(ge=0)
    of: int = Field(ge=1)


class DomainCalibration(Closed):
    """File that tells atoms like those of the training data from others, beside the card, and how well it does so."""

    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    data: str  # what `esen-flows models calibrate` read
    limit: float = Field(gt=0)  # largest extrapolation of what is inside
    tests: tuple[DomainTest, ...] = ()


class RecipeData(Closed):
    """Data of a training stage, and how often an epoch passes over them."""

    name: str
    repeats: int = Field(default=1, ge=1)


class RecipeStage(Closed):
    """One stage of a recipe: a training file beside the card, and its data."""

    file: str
    data: tuple[RecipeData, ...] = ()


class ModelCard(Closed):
    """Everything that is known of one force field."""

    name: str
    family: Literal["esen", "edge_transformer", "third_party", "calculator"]
    description: str
    conservative: bool
    equivariance: Equivariance
    elements: tuple[str, ...] | None  # None: any
    # Exact sets of elements of the training structures, such as As-Ga; None: not known, as for universal force fields.
    chemical_systems: tuple[str, ...] | None = None
    licence: dict[str, str]
    intended_use: str
    limitations: str = ""
    checkpoint: Checkpoint | None = None
    calibration: DomainCalibration | None = None  # of its domain; None: sets of elements alone decide
    source: PublishedSource | None = None  # `esen-flows models pull` fetches and converts it
    architecture: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    recipes: dict[str, tuple[RecipeStage, ...]] = Field(default_factory=dict)  # `esen-flows train NAME`
    measured: tuple[Measured, ...] = ()
    # Force fields of other packages only: the package, what builds it (a function of forcefield.third_party in this
    # process, or a recipe for a process in an environment of its own), and the arguments. A card with a recipe and a
    # `builder` has the numbers of that builder, and its key.
    package: str | None = None
    builder: str | None = None
    calculator: CalculatorRecipe | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    dtype: Dtype | None = None  # its only precision; None: both

    @field_validator("elements")
    @classmethod
    def _known_elements(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = [symbol for symbol in value or () if symbol not in atomic_numbers]
        if unknown:
            raise ValueError(f"not chemical elements: {unknown}")
        return value

    @field_validator("chemical_systems")
    @classmethod
    def _canonical_systems(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for system in value or ():
            symbols = system.split("-")
            if unknown := [symbol for symbol in symbols if symbol not in atomic_numbers]:
                raise ValueError(f"not chemical elements in {system!r}: {unknown}")
            if (canonical := "-".join(sorted(set(symbols)))) != system:
                raise ValueError(f"write {system!r} with its elements sorted: {canonical}")
        return value

    @model_validator(mode="after")
    def _source_of_numbers(self) -> "ModelCard":
        if self.family == "third_party" and (self.package is None or self.builder is None):
            raise ValueError("a third_party card needs `package` and `builder`")
        if (self.family == "calculator") != (self.calculator is not None):
            raise ValueError("a card has `calculator` if its family is calculator, and only then")
        if self.calculator is not None:
            self._check_calculator(self.calculator)
        if self.is_network and not (self.checkpoint or self.source or self.recipes):
            raise ValueError(f"a card of family {self.family!r} needs `checkpoint`, `source` or `recipes`")
        if self.calibration is not None and self.checkpoint is None:
            raise ValueError("a card with `calibration` needs `checkpoint`, the one that was calibrated")
        return self

    def _check_calculator(self, recipe: CalculatorRecipe) -> None:
        if self.package is None:
            raise ValueError("a calculator card needs `package`")
        if (self.dtype is None) == (recipe.dtype_argument is None):
            raise ValueError("a calculator card has either `dtype`, its only one, or `calculator.dtype_argument`")
        if self.source is not None and (self.source.sha256 is None or recipe.checkpoint_file is not None):
            raise ValueError("the checkpoint of a calculator needs one `source` with sha256, or one `checkpoint_file`")
        if (recipe.checkpoint_argument is None) != (self.source is None and recipe.checkpoint_file is None):
            raise ValueError("`checkpoint_argument` goes together with `source` or `checkpoint_file`")

    @property
    def is_network(self) -> bool:
        """Whether the force field is a network of this package."""
        return self.family not in ("third_party", "calculator")

    @property
    def in_own_environment(self) -> tuple[CalculatorRecipe, str]:
        """Recipe and package of a force field that computes in an environment of its own."""
        assert self.calculator is not None  # cards without one never get here
        assert self.package is not None
        return self.calculator, self.package

    @property
    def is_installed(self) -> bool:
        """Whether the package of a third-party force field is installed; True for force fields without one."""
        return self.package is None or find_spec(self.package) is not None

    @property
    def install_command(self) -> str:
        """Command that installs the package of a third-party force field."""
        return f"pip install {self.package}"

    def references(self, formula: str, property_name: str, computed: Mapping[str, Any]) -> tuple[Measured, ...]:
        """Measured results of this card that a computed number can be compared with.

        Parameters
        ----------
        formula
            Chemical formula.
        property_name
            Summary field of a result document.
        computed
            What the number was computed with, by field of `Settings`.

        Returns
        -------
        tuple[Measured, ...]
            Entries of the card with references and with the settings of the computed number; empty where it has none.
        """
        return tuple(
            entry
            for entry in self.measured
            if (entry.formula, entry.property) == (formula, property_name)
            and entry.reference
            and entry.settings is not None
            and entry.settings.model_dump(exclude_none=True).items() <= computed.items()
        )

"""Model cards (models/<name>/card.yaml): which force fields exist, and what is known of them. No torch here.

A card is a label for people; results are tied to the model key, which is read from the checkpoint's JSON header or,
for a third-party force field, hashed from its package, version and arguments.
"""

import hashlib
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml
from ase.data import atomic_numbers
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from esen_flows.assets import asset_dir
from esen_flows.errors import ModelError, NotConservativeError, NotDifferentiableError
from esen_flows.schemas.checkpoint_header import read_header
from esen_flows.schemas.keys import third_party_key
from esen_flows.settings import get_settings

Equivariance = Literal["O3", "SO3", "approximate"]


class Closed(BaseModel):
    """A part of a card: unknown fields are refused, so that a misspelt one is not silently lost."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Checkpoint(Closed):
    """The file with the numbers, beside the card."""

    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    model_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    parameters: int | None = None


class PublishedSource(Closed):
    """Where a published checkpoint comes from, in its publishers' format.

    `sha256` is None where the publishers name none that we could check: the hub's own digest is used then.
    """

    url: str = Field(pattern=r"^https?://")
    page: str  # for people: licence, request for access
    gated: bool = False  # access has to be asked for, and a token is needed
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    options: dict[str, Any] = Field(default_factory=dict)  # what the file does not say

    @property
    def filename(self) -> str:
        """The last part of the address."""
        return self.url.rstrip("/").rsplit("/", 1)[-1]


class Reference(Closed):
    """Somebody else's value of a measured property."""

    source: str
    value: float


class Measured(Closed):
    """One measured result. `property` is a summary field of the result documents, so that commands can compare."""

    property: str
    value: float
    unit: str
    formula: str | None = None  # None: a property of the model, such as a held-out error
    conditions: str = ""
    reference: tuple[Reference, ...] = ()


class RecipeData(Closed):
    """Data that a stage trains on, and how often an epoch sees them."""

    name: str
    repeats: int = Field(default=1, ge=1)


class RecipeStage(Closed):
    """One stage of a recipe: a training file beside the card, and its data."""

    file: str
    data: tuple[RecipeData, ...] = ()


class ModelCard(Closed):
    """All that is known of one force field."""

    name: str
    family: Literal["esen", "third_party"]
    description: str
    conservative: bool
    equivariance: Equivariance
    elements: tuple[str, ...] | None  # None: all that it accepts
    licence: dict[str, str]
    intended_use: str
    limitations: str = ""
    checkpoint: Checkpoint | None = None
    source: PublishedSource | None = None  # `esen-flows models pull` fetches and converts it
    architecture: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    recipes: dict[str, tuple[RecipeStage, ...]] = Field(default_factory=dict)  # `esen-flows train NAME`
    measured: tuple[Measured, ...] = ()
    # Third-party force fields only: the package, the function of forcefield.third_party that builds it, its arguments.
    package: str | None = None
    builder: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    dtype: Literal["float32", "float64"] | None = None  # the only precision that it has; None: as asked

    @field_validator("elements")
    @classmethod
    def _known_elements(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = [symbol for symbol in value or () if symbol not in atomic_numbers]
        if unknown:
            raise ValueError(f"not chemical elements: {unknown}")
        return value

    @model_validator(mode="after")
    def _source_of_numbers(self) -> "ModelCard":
        if self.family == "third_party" and (self.package is None or self.builder is None):
            raise ValueError("a third_party card needs `package` and `builder`")
        if self.family != "third_party" and not (self.checkpoint or self.source or self.recipes):
            raise ValueError(f"a card of family {self.family!r} needs `checkpoint`, `source` or `recipes`")
        return self

    def references(self, formula: str, property_name: str) -> tuple[Measured, ...]:
        """Measured entries of this card for one formula and one summary field."""
        return tuple(m for m in self.measured if m.formula == formula and m.property == property_name)


@dataclass(frozen=True)
class ModelReference:
    """A force field as commands and flows name it, found without importing torch.

    Attributes
    ----------
    label
        name for people.
    key
        model key.
    location
        what `load_force_field` takes: the card's name, or the absolute path of a checkpoint.
    elements
        atomic numbers that it was trained on; None: all that it accepts.
    card
        its card, or None for a bare checkpoint file.
    conservative, equivariance
        as declared.
    dtype
        the only precision that it computes in; None: as asked.
    """

    label: str
    key: str
    location: str
    elements: frozenset[int] | None
    card: ModelCard | None
    conservative: bool
    equivariance: Equivariance
    dtype: Literal["float32", "float64"] | None = None

    def require_conservative(self, purpose: str) -> None:
        """Refuse what needs an energy, before anything is loaded.

        Raises
        ------
        NotConservativeError
            the forces are not declared to be the gradient of the energy.
        """
        if not self.conservative:
            raise NotConservativeError(
                f"{purpose} needs forces that are the gradient of an energy, but {self.label!r} does not declare "
                "conservative forces; use a conservative (fine-tuned) force field"
            )

    def require_differentiable(self, purpose: str) -> None:
        """Refuse what needs exact second derivatives, before anything is loaded: only networks of ours have them.

        Raises
        ------
        NotDifferentiableError
            a force field of another package, or one without an energy.
        """
        ours = self.card is None or self.card.family == "esen"
        if not (ours and self.conservative):
            raise NotDifferentiableError(
                f"{purpose} needs exact second derivatives of the energy, which {self.label!r} does not have; use "
                "force_constants=finite_displacement"
            )


def list_cards() -> list[str]:
    """Names of all model cards, sorted."""
    return sorted(path.parent.name for path in asset_dir("models").glob("*/card.yaml"))


def card_path(name: str) -> Path:
    """Path of a card.

    Raises
    ------
    ModelError
        no such card; the message lists the known ones.
    """
    names = list_cards()
    if name not in names:
        near = get_close_matches(name[:80], names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ModelError(
            f"no model {name!r}; {hint}known models: {', '.join(names) or '(none)'}; "
            "a checkpoint file is named by its path, ending in .safetensors"
        )
    return asset_dir("models") / name / "card.yaml"


def read_card(name: str) -> ModelCard:
    """The card of a model.

    Raises
    ------
    ModelError
        unknown name, or a card that breaks the schema (naming file and field).
    """
    path = card_path(name)
    try:
        card = ModelCard.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ModelError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or '(card)'}: {e['msg']}" for e in error.errors())
        raise ModelError(f"{path}: {faults}") from error
    if card.name != name:
        raise ModelError(f"{path}: name: {card.name!r} differs from its folder {name!r}; rename one of them")
    return card


def checkpoint_path(card: ModelCard) -> Path:
    """Path of a card's checkpoint, with its sha256 verified.

    Raises
    ------
    ModelError
        no checkpoint, a missing file, or one whose bytes are not those that the card names.
    """
    if card.checkpoint is None:
        return _pulled_path(card)
    path = card_path(card.name).parent / card.checkpoint.file
    if not path.is_file():
        raise ModelError(f"checkpoint {path} of model {card.name!r} is missing; restore it from the repository")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != card.checkpoint.sha256:
        raise ModelError(
            f"checkpoint {path} is corrupted: sha256 {found[:16]}..., its card names "
            f"{card.checkpoint.sha256[:16]}...; restore the file from the repository"
        )
    return path


def pulled_folder(card: ModelCard) -> Path:
    """Where `models pull` keeps the files of a card."""
    return get_settings().data_dir / "models" / card.name


def _pulled_path(card: ModelCard) -> Path:
    """The converted checkpoint that `models pull` made.

    Raises
    ------
    ModelError
        not fetched yet; the message says how.
    """
    if card.source is None and not card.recipes:
        raise ModelError(f"model {card.name!r} of family {card.family!r} has no checkpoint file")
    if card.source is None:
        raise ModelError(
            f"nobody has published a checkpoint of {card.name!r}: train it (esen-flows train {card.name}) and give the "
            "path of the result"
        )
    path = pulled_folder(card) / f"{card.name}.safetensors"
    if not path.is_file():
        raise ModelError(
            f"the checkpoint of {card.name!r} is not on this machine: run esen-flows models pull {card.name}, which "
            f"fetches {card.source.url} (terms at {card.source.page})"
        )
    return path


def resolve_model(card_or_path: str | Path) -> ModelReference:
    """Find a force field by the name of its card, or by the path of a checkpoint (.safetensors), without torch.

    Raises
    ------
    ModelError
        unknown name (the known ones are listed), missing or corrupted file, package that is not installed.
    """
    text = str(card_or_path)
    if text.endswith(".safetensors") or "/" in text:
        return _resolve_file(Path(text))
    card = read_card(text)
    if card.family == "third_party":
        return _resolve_third_party(card)
    path = checkpoint_path(card)
    header = read_header(path)
    if card.checkpoint is not None and header["model_key"] != card.checkpoint.model_key:
        raise ModelError(
            f"{path} has model key {header['model_key'][:16]}..., its card names {card.checkpoint.model_key[:16]}...; "
            "correct the card"
        )
    found = _reference(card, header["model_key"])
    return replace(found, elements=frozenset(header["elements"])) if found.elements is None else found


def _resolve_file(path: Path) -> ModelReference:
    if not path.is_file():
        raise ModelError(f"no checkpoint file {path}; give the name of a card or the path of a .safetensors file")
    header = read_header(path)
    declaration = header["declaration"]
    elements = header["elements"]
    return ModelReference(
        label=path.stem,
        key=header["model_key"],
        location=str(path.resolve()),
        elements=None if elements is None else frozenset(_number(e) for e in elements),
        card=None,
        conservative=declaration["conservative"],
        equivariance=declaration["equivariance"],
    )


def _resolve_third_party(card: ModelCard) -> ModelReference:
    assert card.package is not None  # the card's own validator
    assert card.builder is not None
    try:
        installed = version(card.package)
    except PackageNotFoundError as error:
        raise ModelError(
            f"model {card.name!r} needs the package {card.package!r}, which is not installed; "
            f"install it: pip install {card.package}"
        ) from error
    return _reference(card, third_party_key(card.package, installed, card.arguments))


def _reference(card: ModelCard, key: str) -> ModelReference:
    return ModelReference(
        label=card.name,
        key=key,
        location=card.name,
        elements=None if card.elements is None else frozenset(atomic_numbers[e] for e in card.elements),
        card=card,
        conservative=card.conservative,
        equivariance=card.equivariance,
        dtype=card.dtype,
    )


def _number(element: int | str) -> int:
    return atomic_numbers[element] if isinstance(element, str) else int(element)

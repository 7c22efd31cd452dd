"""Force fields found by the name of a card or the path of a checkpoint, without importing torch.

A card is a label for people. Results refer to the model key, which is read from the JSON header of the checkpoint or,
for a third-party force field, hashed from its package, version and arguments.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers
from pydantic import ValidationError

from esen_flows.assets import asset_dir
from esen_flows.errors import ModelError
from esen_flows.files import sha256_of_file
from esen_flows.schemas import declarations
from esen_flows.schemas.declarations import Dtype, Equivariance
from esen_flows.schemas.keys import third_party_key
from esen_flows.schemas.model_card import ModelCard
from esen_flows.schemas.verified_checkpoints import verified_header
from esen_flows.settings import get_settings
from esen_flows.yaml_files import read_yaml


@dataclass(frozen=True)
class ModelReference:
    """Reference to a force field for commands and flows, found without importing torch.

    Attributes
    ----------
    label
        Name for people.
    key
        Model key.
    location
        Argument for `load_force_field`: the name of the card, or the absolute path of a checkpoint.
    elements
        Atomic numbers of the training data; None: any.
    card
        Card of the model; None for a checkpoint file without one.
    conservative
        Whether forces are declared to be the gradient of the energy.
    equivariance
        Declared equivariance.
    dtype
        Only precision that the force field computes in; None: both.
    differentiable
        Whether exact second derivatives of the energy are declared; only networks of this package have them.
    chemical_systems
        Exact sets of elements of the training structures, such as "As-Ga"; None: not known.
    direct
        Whether heads of the network predict forces, alone or besides the gradient of the energy.
    """

    label: str
    key: str
    location: str
    elements: frozenset[int] | None
    card: ModelCard | None
    conservative: bool
    equivariance: Equivariance
    dtype: Dtype | None = None
    differentiable: bool = False
    chemical_systems: frozenset[str] | None = None
    direct: bool = False

    def require_conservative(self, purpose: str) -> None:
        """Refuse a force field without conservative forces, before it is loaded.

        Parameters
        ----------
        purpose
            Property or step that needs such forces, for the message.

        Raises
        ------
        NotConservativeError
            The force field does not declare conservative forces.
        """
        declarations.require_conservative(self.conservative, self.label, purpose)

    def require_differentiable(self, purpose: str) -> None:
        """Refuse a force field without exact second derivatives, before it is loaded.

        Only networks of this package have them.

        Parameters
        ----------
        purpose
            Property or step that needs them, for the message.

        Raises
        ------
        NotDifferentiableError
            The force field is of another package, or has no energy.
        """
        declarations.require_differentiable(self.differentiable, self.label, purpose)


def list_cards() -> list[str]:
    """Names of all model cards.

    Returns
    -------
    list[str]
        Names in alphabetical order.
    """
    return sorted(path.parent.name for path in asset_dir("models").glob("*/card.yaml"))


def card_path(name: str) -> Path:
    """Path of a card.

    Parameters
    ----------
    name
        Name of the card.

    Returns
    -------
    Path
        Path of its card.yaml.

    Raises
    ------
    ModelError
        There is no such card; the message lists the known ones.
    """
    names = list_cards()
    if name not in names:
        near = get_close_matches(name[:80], names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ModelError(
            f"no model {name!r}; {hint}known models: {', '.join(names) or '(none)'}; "
            "a checkpoint file is named by its path, ending in .safetensors, and a calculator card by its own, in .yaml"
        )
    return asset_dir("models") / name / "card.yaml"


def read_card(name: str) -> ModelCard:
    """Read the card of a model.

    Parameters
    ----------
    name
        Name of the card.

    Returns
    -------
    ModelCard
        Card, checked against the schema.

    Raises
    ------
    ModelError
        The name is unknown, or the card breaks the schema; the message names file and field.
    """
    path = card_path(name)
    card = _card_of_file(path)
    if card.name != name:
        raise ModelError(f"{path}: name: {card.name!r} differs from its folder {name!r}; rename one of them")
    return card


def find_card(name_or_path: str) -> tuple[ModelCard, Path]:
    """A card of this package by its name, or any calculator card by its path.

    Parameters
    ----------
    name_or_path
        Name of a card, or path of a YAML file.

    Returns
    -------
    ModelCard
        Card, checked against the schema.
    Path
        Its file.

    Raises
    ------
    ModelError
        The name is unknown, the file is missing, or the card breaks the schema.
    """
    if not is_card_file(name_or_path):
        return read_card(name_or_path), asset_dir("models") / name_or_path / "card.yaml"
    path = Path(name_or_path).expanduser().absolute()
    if not path.is_file():
        raise ModelError(f"no file {path}; give the name of a model, or the path of a calculator card")
    card = _card_of_file(path)
    if card.calculator is None:
        raise ModelError(f"{path} is a card of family {card.family!r}; by its path only a calculator card can be used")
    return card, path


def is_card_file(name_or_path: str) -> bool:
    """Whether the argument of a model is the path of a card.

    Parameters
    ----------
    name_or_path
        Name of a card, or path of a card or checkpoint.

    Returns
    -------
    bool
        Whether it ends as YAML files do.
    """
    return name_or_path.endswith((".yaml", ".yml"))


def _card_of_file(path: Path) -> ModelCard:
    try:
        return ModelCard.model_validate(read_yaml(path))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or '(card)'}: {e['msg']}" for e in error.errors())
        raise ModelError(f"{path}: {faults}") from error


def checkpoint_path(card: ModelCard) -> Path:
    """Path of a card's checkpoint, with its sha256 verified.

    Parameters
    ----------
    card
        Card of one of this package's own networks.

    Returns
    -------
    Path
        Path of the checkpoint beside the card, or of the one that `models pull` made.

    Raises
    ------
    ModelError
        The card has no checkpoint, the file is missing or not downloaded yet, or its bytes are not those of the card.
    """
    if card.checkpoint is None:
        return _pulled_path(card)
    path = card_path(card.name).parent / card.checkpoint.file
    if not path.is_file():
        raise ModelError(f"checkpoint {path} of model {card.name!r} is missing; restore it from the repository")
    found = sha256_of_file(path)
    if found != card.checkpoint.sha256:
        raise ModelError(
            f"checkpoint {path} is corrupted: sha256 {found[:16]}..., its card names "
            f"{card.checkpoint.sha256[:16]}...; restore the file from the repository"
        )
    return path


def calibration_path(card: ModelCard) -> Path | None:
    """Path of the calibration of a card's domain, with its sha256 verified.

    Parameters
    ----------
    card
        Card of one of this package's own networks.

    Returns
    -------
    Path | None
        Path of the file beside the card; None if the card names none.

    Raises
    ------
    ModelError
        The file is missing, or its bytes are not those of the card.
    """
    if card.calibration is None:
        return None
    path = card_path(card.name).parent / card.calibration.file
    if not path.is_file() or sha256_of_file(path) != card.calibration.sha256:
        raise ModelError(
            f"{path} is missing or not the file that the card of {card.name!r} names; restore it from the repository, "
            "or make it again (esen-flows models calibrate) and correct `calibration` on the card"
        )
    return path


def pulled_folder(card: ModelCard) -> Path:
    """Folder of the files that `models pull` downloads and converts.

    Parameters
    ----------
    card
        Card with a source.

    Returns
    -------
    Path
        Folder below the user's data directory; it need not exist.
    """
    return get_settings().data_dir / "models" / card.name


def _pulled_path(card: ModelCard) -> Path:
    if not card.is_network:
        raise ModelError(
            f"{card.name!r} is a force field of another package, without a checkpoint of ours; give a network of this "
            "package, such as esen_nano, or the path of a checkpoint"
        )
    if card.source is None:
        raise ModelError(
            f"no checkpoint of {card.name!r} is published: train it (esen-flows train {card.name}) and give the "
            "path of the result"
        )
    path = pulled_folder(card) / f"{card.name}.safetensors"
    if not path.is_file():
        raise ModelError(
            f"the checkpoint of {card.name!r} is not on this machine: run esen-flows models pull {card.name}, which "
            f"downloads {card.source.url} (terms at {card.source.page})"
        )
    return path


def resolve_model(card_or_path: str | Path) -> ModelReference:
    """Find a force field by the name of its card, or by the path of a checkpoint, without importing torch.

    Parameters
    ----------
    card_or_path
        Name of a card, or path of a .safetensors file.

    Returns
    -------
    ModelReference
        Key, declared properties and location of the force field.

    Raises
    ------
    ModelError
        The name is unknown (the message lists the known ones), the file is missing or corrupted, or the package of a
        third-party force field is not installed.

    Examples
    --------
    >>> from esen_flows.schemas.card import resolve_model
    >>> model = resolve_model("emt")
    >>> model.conservative, sorted(model.elements)
    (True, [13, 28, 29, 46, 47, 78, 79])
    """
    text = str(card_or_path)
    if not is_card_file(text) and (text.endswith(".safetensors") or "/" in text):
        return _resolve_file(Path(text))
    card, file = find_card(text)
    if not card.is_network:
        key, elements, differentiable, direct = _third_party_key(card, file.parent), None, False, not card.conservative
    else:
        header = _checkpoint_header(card)
        key, elements = header["model_key"], frozenset(header["elements"])
        differentiable, direct = _differentiable(header), _direct(header)
    if card.elements is not None:
        elements = frozenset(atomic_numbers[symbol] for symbol in card.elements)
    return ModelReference(
        label=card.name,
        key=key,
        location=str(file) if is_card_file(text) else card.name,
        elements=elements,
        card=card,
        conservative=card.conservative,
        equivariance=card.equivariance,
        dtype=card.dtype,
        differentiable=differentiable,
        chemical_systems=None if card.chemical_systems is None else frozenset(card.chemical_systems),
        direct=direct,
    )


def _resolve_file(path: Path) -> ModelReference:
    header = verified_header(path)
    return ModelReference(
        label=path.stem,
        key=header["model_key"],
        location=str(path.resolve()),
        elements=frozenset(header["elements"]),
        card=None,
        conservative=header["declaration"]["conservative"],
        equivariance=header["declaration"]["equivariance"],
        differentiable=_differentiable(header),
        direct=_direct(header),
    )


def _differentiable(header: dict[str, Any]) -> bool:
    """The declaration of a checkpoint; those that make none are of networks that differ in nothing else."""
    declaration = header["declaration"]
    return bool(declaration.get("differentiable", declaration["conservative"]))


def _direct(header: dict[str, Any]) -> bool:
    """Whether a checkpoint has direct heads, alone or besides the gradient of its energy."""
    return bool(header.get("architecture", {}).get("direct_forces", not header["declaration"]["conservative"]))


def _checkpoint_header(card: ModelCard) -> dict[str, Any]:
    """The header of the checkpoint of a card, with its model key verified."""
    path = checkpoint_path(card)
    header = verified_header(path)
    if card.checkpoint is not None and header["model_key"] != card.checkpoint.model_key:
        raise ModelError(
            f"{path} has model key {header['model_key'][:16]}..., its card names "
            f"{card.checkpoint.model_key[:16]}...; correct the card"
        )
    return header


def _third_party_key(card: ModelCard, folder: Path) -> str:
    package = card.package or ""  # a card of this family names one, which its validator checks
    if card.calculator is not None:  # the card alone says it: the environment is needed to compute, not to look up
        sha256 = card.calculator.checkpoint_sha256 if card.source is None else card.source.sha256
        return card.calculator.model_key(package, card.arguments, sha256, builder=card.builder, folder=folder)
    try:
        return third_party_key(package, version(package), card.arguments)
    except PackageNotFoundError as error:
        raise ModelError(
            f"model {card.name!r} needs the package {package!r}, which is not installed; install it: "
            f"{card.install_command}"
        ) from error

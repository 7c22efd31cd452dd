"""Model cards: the schema of a card, and force fields found without torch."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from esen_flows.errors import ModelError, NotConservativeError, NotDifferentiableError
from esen_flows.schemas import card as module
from esen_flows.schemas.card import list_cards, read_card, resolve_model
from esen_flows.schemas.keys import third_party_key
from esen_flows.schemas.verified_checkpoints import remember

CARD = {
    "family": "esen",
    "description": "for tests",
    "conservative": True,
    "equivariance": "SO3",
    "elements": ["Si"],
    "licence": {"weights": "MIT"},
    "intended_use": "tests",
}


@pytest.fixture
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(module, "asset_dir", lambda name: folder)
    return folder


@pytest.fixture
def silicon(models_dir: Path, header_only_checkpoint: Path) -> dict[str, Any]:
    """Dictionary of a valid card, which is written to disk."""
    (models_dir / "silicon").mkdir()
    content = header_only_checkpoint.read_bytes()
    (models_dir / "silicon" / "silicon.safetensors").write_bytes(content)
    remember(models_dir / "silicon" / "silicon.safetensors", "5e" * 32)
    card = CARD | {
        "name": "silicon",
        "checkpoint": {
            "file": "silicon.safetensors",
            "sha256": hashlib.sha256(content).hexdigest(),
            "model_key": "5e" * 32,
        },
        "measured": [
            {
                "property": "kappa_rta_w_per_m_k",
                "formula": "Si",
                "value": 86.2,
                "unit": "W/m/K",
                "settings": {"atoms_fc2": 216, "mesh": "11x11x11"},
                "reference": [{"source": "labeller", "value": 88.8}],
            }
        ],
    }
    write(models_dir, card)
    return card


def write(models_dir: Path, card: dict[str, Any], folder: str = "silicon") -> None:
    (models_dir / folder).mkdir(exist_ok=True)
    (models_dir / folder / "card.yaml").write_text(yaml.safe_dump(card))


def test_a_card_resolves_to_the_key_of_its_checkpoint(silicon: dict[str, Any]) -> None:
    found = resolve_model("silicon")
    assert (found.label, found.key, found.location) == ("silicon", "5e" * 32, "silicon")
    assert found.elements == {14}
    assert found.equivariance == "SO3"
    found.require_conservative("phonon")
    found.require_differentiable("autodiff")


def test_a_bare_checkpoint_resolves_by_its_path(header_only_checkpoint: Path) -> None:
    found = resolve_model(header_only_checkpoint)
    assert (found.label, found.key, found.card) == ("silicon", "5e" * 32, None)
    assert found.location == str(header_only_checkpoint)
    assert found.elements == {14}


def test_references_are_those_of_the_same_settings(silicon: dict[str, Any]) -> None:
    card, computed = read_card("silicon"), {"atoms_fc2": 216, "mesh": "11x11x11", "parity": "average"}
    (entry,) = card.references("Si", "kappa_rta_w_per_m_k", computed)
    assert entry.reference[0].value == 88.8
    assert card.references("Ge", "kappa_rta_w_per_m_k", computed) == ()
    assert card.references("Si", "kappa_rta_w_per_m_k", {**computed, "mesh": "7x7x7"}) == ()
    assert card.references("Si", "kappa_rta_w_per_m_k", {"mesh": "11x11x11"}) == ()  # the supercell is not known


def test_an_unknown_name_lists_the_known_ones(silicon: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"no model 'silicone'; did you mean silicon\? known models: silicon"):
        resolve_model("silicone")
    with pytest.raises(ModelError, match=r"no model 'uranium'; known models: silicon"):
        resolve_model("uranium")


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no checkpoint file"):
        resolve_model(tmp_path / "gone.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"equivariance": "E(3)"}, "card.yaml: equivariance: "),
        ({"colour": "blue"}, "colour: Extra inputs"),
        ({"elements": ["Si", "Xx"]}, r"elements: .*\['Xx'\]"),
        ({"checkpoint": None}, "needs `checkpoint`"),
        ({"family": "third_party"}, "needs `package` and `builder`"),
        ({"measured": [{"property": "a", "unit": "eV"}]}, r"measured\.0\.value: Field required"),
        ({"name": "germanium"}, "differs from its folder 'silicon'"),
    ],
)
def test_a_broken_card_names_file_and_field(
    silicon: dict[str, Any], models_dir: Path, change: dict[str, Any], words: str
) -> None:
    write(models_dir, {**silicon, **change})
    with pytest.raises(ModelError, match=words) as caught:
        read_card("silicon")
    assert str(models_dir / "silicon" / "card.yaml") in str(caught.value)


def test_a_changed_checkpoint_is_refused(silicon: dict[str, Any], models_dir: Path) -> None:
    with (models_dir / "silicon" / "silicon.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b" ")
    with pytest.raises(ModelError, match="is corrupted: sha256"):
        resolve_model("silicon")


def test_a_card_that_names_another_key_is_refused(silicon: dict[str, Any], models_dir: Path) -> None:
    silicon["checkpoint"]["model_key"] = "0" * 64
    write(models_dir, silicon)
    with pytest.raises(ModelError, match=r"its card names 0000"):
        resolve_model("silicon")


def third_party(package: str) -> dict[str, Any]:
    return CARD | {
        "name": "other",
        "family": "third_party",
        "conservative": False,
        "equivariance": "approximate",
        "elements": None,
        "dtype": "float32",
        "package": package,
        "builder": "other",
        "arguments": {"model": "large"},
    }


def test_a_third_party_key_is_package_version_and_arguments(models_dir: Path) -> None:
    from importlib.metadata import version

    write(models_dir, third_party("numpy"), "other")
    found = resolve_model("other")
    assert found.key == third_party_key("numpy", version("numpy"), {"model": "large"})
    assert found.dtype == "float32"
    assert found.elements is None
    with pytest.raises(NotConservativeError, match=r"phonon needs .*'other'"):
        found.require_conservative("phonon")
    with pytest.raises(NotDifferentiableError, match=r"autodiff needs exact second derivatives.*'other'"):
        found.require_differentiable("autodiff")


def test_a_third_party_package_that_is_not_installed_says_how_to_get_it(models_dir: Path) -> None:
    write(models_dir, third_party("no-such-package-here"), "other")
    with pytest.raises(ModelError, match="pip install no-such-package-here"):
        resolve_model("other")


@pytest.mark.parametrize("name", list_cards())
def test_the_cards_of_this_repository(name: str) -> None:
    card = read_card(name)
    assert card.licence
    assert json.dumps(card.model_dump(mode="json"))
    if card.checkpoint is not None:
        assert resolve_model(name).key == card.checkpoint.model_key

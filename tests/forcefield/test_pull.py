"""`pull`: from a mirror, from a file put there by hand, refused, offline; an existing file is not fetched again."""

import hashlib

import pytest
import torch
from published_files import first_generation, small_network

from esen_flows.errors import ModelError
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.pull import pull
from esen_flows.schemas import card as cards
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.model_card import ModelCard
from esen_flows.settings import get_settings

CARD = {
    "name": "published",
    "family": "esen",
    "description": "as published",
    "conservative": True,
    "equivariance": "SO3",
    "elements": None,
    "licence": {"checkpoint": "theirs"},
    "intended_use": "tests",
    "source": {"url": "http://127.0.0.1:9/esen.pt", "page": "https://example.org/esen", "gated": True},
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ESEN_FLOWS_DATA_DIR", str(tmp_path / "home"))
    for name in ("ESEN_FLOWS_MODEL_MIRROR", "ESEN_FLOWS_HUB_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    get_settings.cache_clear()
    yield tmp_path / "home"
    get_settings.cache_clear()


@pytest.fixture
def mirror(tmp_path, monkeypatch, home):
    folder = tmp_path / "mirror"
    folder.mkdir()
    torch.save(first_generation(small_network()), folder / "esen.pt")
    monkeypatch.setenv("ESEN_FLOWS_MODEL_MIRROR", str(folder))
    get_settings.cache_clear()
    return folder


def test_a_model_is_pulled_from_a_mirror_once(mirror, home, monkeypatch):
    path = pull(ModelCard.model_validate(CARD))
    assert path == home / "models/published/published.safetensors"
    (mirror / "esen.pt").unlink()
    assert pull(ModelCard.model_validate(CARD)) == path
    monkeypatch.setattr(cards, "read_card", lambda name: ModelCard.model_validate(CARD))
    found = resolve_model("published")
    assert found.elements == frozenset({8, 14})  # from the file, because the card has none
    assert load_force_field("published").key == found.key


def test_a_mirror_without_the_file(mirror, home):
    (mirror / "esen.pt").unlink()
    with pytest.raises(ModelError, match=rf"the mirror has no {mirror}/esen\.pt"):
        pull(ModelCard.model_validate(CARD))


def test_without_network_the_message_says_where_to_get_the_file_and_where_to_put_it(home, tmp_path):
    card = ModelCard.model_validate(CARD)
    with pytest.raises(ModelError) as caught:
        pull(card)
    place = home / "models/published/esen.pt"
    for words in ("http://127.0.0.1:9/esen.pt cannot be fetched", f"get esen.pt from {card.source.page}", str(place)):
        assert words in str(caught.value)
    torch.save(first_generation(small_network()), place)  # as the message says
    assert pull(card).is_file()


def test_a_file_put_there_by_hand_is_verified(home, mirror):
    good = hashlib.sha256((mirror / "esen.pt").read_bytes()).hexdigest()
    wrong = CARD | {"source": CARD["source"] | {"sha256": "1" * 64}}
    with pytest.raises(ModelError, match=rf"sha256 {good[:16]}\.\.\., its card names 1111111111111111"):
        pull(ModelCard.model_validate(wrong))
    assert not (home / "models/published/published.safetensors").exists()
    assert pull(ModelCard.model_validate(CARD | {"source": CARD["source"] | {"sha256": good}})).is_file()


def test_a_model_that_was_not_pulled_says_how_to_pull_it(home, monkeypatch):
    monkeypatch.setattr(cards, "read_card", lambda name: ModelCard.model_validate(CARD))
    with pytest.raises(ModelError, match="run esen-flows models pull published"):
        resolve_model("published")


def test_the_token_is_never_printed(home, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    get_settings.cache_clear()
    assert get_settings().hub_token.get_secret_value() == "hf_verysecret"
    assert "verysecret" not in repr(get_settings())
    with pytest.raises(ModelError) as caught:
        pull(ModelCard.model_validate(CARD))
    assert "verysecret" not in str(caught.value)


def test_nothing_to_pull(home):
    card = ModelCard.model_validate(
        {k: v for k, v in CARD.items() if k != "source"}
        | {"checkpoint": {"file": "f.safetensors", "sha256": "0" * 64, "model_key": "0" * 64}}
    )
    with pytest.raises(ModelError, match="nothing to pull"):
        pull(card)

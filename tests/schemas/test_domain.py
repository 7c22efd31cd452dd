from pathlib import Path

import pytest
from pydantic import ValidationError

from esen_flows.data.recipes import read_recipe
from esen_flows.schemas.card import asset_dir, read_card, resolve_model
from esen_flows.schemas.domain import chemical_system, domain_by, domain_of
from esen_flows.schemas.model_card import ModelCard


@pytest.mark.parametrize(
    ("chemsys", "trained_on", "verdict"),
    [
        ("Ca-O", {"Ca-O", "S-Zn"}, "inside"),
        ("Ca-S", {"Ca-O", "S-Zn"}, "outside"),
        ("Ca", {"Ca-O", "S-Zn"}, "outside"),  # exact sets: the element is another material than its oxide
        ("Ca-S", set(), "outside"),
        ("Ca-S", None, "unknown"),
    ],
)
def test_a_structure_is_inside_if_training_had_exactly_its_elements(chemsys, trained_on, verdict) -> None:
    assert domain_of(chemsys, trained_on) == verdict


def test_verdicts_by_the_location_of_a_force_field(tmp_path: Path) -> None:
    assert domain_by("esen_nano", chemical_system(["S", "Ca", "S"])) == "outside"
    assert domain_by("esen_nano", "Ca-O") == "inside"
    assert domain_by("esen_silicon", "Si") == "inside"
    assert (
        domain_by("emt", "Cu")
        == domain_by(str(tmp_path / "own.safetensors"), "Cu")
        == domain_by(None, "Cu")
        == "unknown"
    )
    assert resolve_model("emt").chemical_systems is None


def test_the_card_of_esen_nano_lists_what_its_recipe_makes() -> None:
    """data.yaml alone determines its structures; silicon comes from that of esen_silicon."""
    crystals = read_recipe(asset_dir("models") / "esen_nano" / "data.yaml").crystals
    made = {chemical_system(crystal.species) for crystal in crystals}
    assert set(read_card("esen_nano").chemical_systems) == made | {"Si"}


@pytest.mark.parametrize(
    ("system", "words"), [("O-Ca", "with its elements sorted: Ca-O"), ("Ca-Xx", "not chemical elements in 'Ca-Xx'")]
)
def test_a_card_writes_systems_in_one_way(system: str, words: str) -> None:
    content = read_card("esen_nano").model_dump()
    with pytest.raises(ValidationError, match=words):
        ModelCard.model_validate(content | {"chemical_systems": [system]})

"""Calculator cards: what they have to say, and the template of the documentation."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from esen_flows.errors import ModelError
from esen_flows.schemas.card import find_card, read_card, resolve_model
from esen_flows.schemas.keys import third_party_key
from esen_flows.schemas.model_card import ModelCard

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "calculators.md"


def template() -> dict[str, Any]:
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    return yaml.safe_load(text)


def test_the_template_of_the_documentation_is_a_card():
    card = ModelCard.model_validate(template())
    assert card.calculator is not None
    assert not card.is_network


@pytest.mark.parametrize(
    ("changes", "recipe", "message"),
    [
        ({"package": None}, {}, "needs `package`"),
        ({"dtype": None}, {"dtype_argument": None}, "either `dtype`"),
        ({}, {"build": "no path"}, "build"),
        ({}, {"requirements": ["--index-url=http://x"]}, "an option of pip"),
        ({}, {"checkpoint_file": "x.pt"}, "go together"),
        ({}, {"paths": ["../elsewhere"]}, "leaves the folder of the card"),
        ({}, {"checkpoint_argument": None}, "goes together"),
        ({"family": "third_party", "builder": "emt"}, {}, "and only then"),
    ],
)
def test_a_card_that_cannot_work_is_refused(changes, recipe, message):
    card = template() | changes
    card["calculator"] = card["calculator"] | recipe
    with pytest.raises(ValidationError, match=message):
        ModelCard.model_validate(card)


def test_the_checkpoint_is_part_of_the_key_and_its_place_is_not():
    expected = {
        "build": "nequix.calculator:NequixCalculator",
        "backend": "jax",
        "use_kernel": False,
        "checkpoint_sha256": "1647af8e627e1afa11e2bfadeab0797326513a521afd7dd01606a96f56783eee",
    }
    assert resolve_model("nequix_mp").key == third_party_key("nequix", "0.4.5", expected)


def key(card: dict[str, Any], folder: Path) -> str:
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return resolve_model(folder / "card.yaml").key


def test_another_function_or_other_code_has_another_key(tmp_path):
    card = template()
    other = card | {"calculator": card["calculator"] | {"build": "my_package.other:MyCalculator"}}
    assert key(card, tmp_path) != key(other, tmp_path)
    own = card | {"calculator": card["calculator"] | {"paths": ["."]}}
    with pytest.raises(ModelError, match="has no Python files"):
        key(own, tmp_path)
    (tmp_path / "my_package.py").write_text("SCALE = 1.0")
    first = key(own, tmp_path)
    assert first == key(own | {"intended_use": "For another purpose."}, tmp_path)
    (tmp_path / "my_package.py").write_text("SCALE = 2.0")
    assert len({first, key(own, tmp_path), key(card, tmp_path)}) == 3


@pytest.mark.parametrize("name", ["sevennet_0", "chgnet"])
def test_a_card_that_names_a_builder_has_the_key_of_the_builder(name):
    path = BENCHMARKS / "calculators" / f"{name}.yaml"
    card, _ = find_card(str(path))
    expected = third_party_key(card.package, card.calculator.version, read_card(name).arguments)
    assert resolve_model(path).key == expected
    measured = json.loads((BENCHMARKS / "results" / "calculator_equality.json").read_text())
    assert expected == measured[f"{name} float64"]["model_key"]

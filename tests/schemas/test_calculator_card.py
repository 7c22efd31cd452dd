"""Calculator cards: what they have to say, and the template of the documentation."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.keys import third_party_key
from esen_flows.schemas.model_card import ModelCard

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
        "backend": "jax",
        "use_kernel": False,
        "checkpoint_sha256": "1647af8e627e1afa11e2bfadeab0797326513a521afd7dd01606a96f56783eee",
    }
    assert resolve_model("nequix_mp").key == third_party_key("nequix", "0.4.5", expected)

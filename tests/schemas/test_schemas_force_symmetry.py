"""The text form and the bounds of a force field's symmetry."""

import pytest
from pydantic import ValidationError

from esen_flows.schemas.force_symmetry import ForceSymmetry


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("project", 1),
        ("inversion", 2),
        ("tetrahedral", 12),
        ("octahedral+inversion", 48),
        ("project:0.001+icosahedral+lab", 60),
        ("lebedev:14x9", 126),
        ("random:32:7", 32),
    ],
)
def test_text_and_fields_are_one_value(text: str, count: int) -> None:
    symmetry = ForceSymmetry.model_validate(text)
    assert (str(symmetry), symmetry.count) == (text, count)
    assert ForceSymmetry.model_validate_json(symmetry.model_dump_json()).hash() == symmetry.hash()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("icosahedron", "'icosahedron' is not understood.*one of tetrahedral"),
        ("lock", "--set symmetry=lock"),
        ("project+project", "repeated"),
        ("octahedral+random:3:1", "repeated"),
        ("lebedev:15x3", "no rule with positive weights on 15 directions; choose 6, 14"),
        ("lebedev:194x200", "too many"),
        ("random:0:1", "greater than 0"),
        ("lab", "nothing is averaged or projected"),
        ("", "give parts joined by"),
    ],
)
def test_wrong_text_says_what_to_write(text: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ForceSymmetry.model_validate(text)


def test_numbers_belong_to_their_average() -> None:
    with pytest.raises(ValidationError, match="average=random needs rotations and seed, got rotations"):
        ForceSymmetry(average="random", rotations=3)
    with pytest.raises(ValidationError, match="needs none of directions"):
        ForceSymmetry(average="octahedral", seed=1)

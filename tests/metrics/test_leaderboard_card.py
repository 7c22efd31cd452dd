"""Cards against the leaderboard's schema: all published ones pass, and faults are named."""

from pathlib import Path

import pytest

from esen_flows.errors import InputError
from esen_flows.metrics.leaderboard_card import (
    SCHEMA_FILE,
    card_schema,
    check_card,
    conductivity_section,
    discovery_section,
    plain_dates,
)
from esen_flows.yaml_files import read_yaml


@pytest.mark.shared
def test_published_cards_and_schema(shared_dir: Path) -> None:
    folder = shared_dir / "data/matbench_discovery"
    assert SCHEMA_FILE.read_text().endswith((folder / "model-schema.yml").read_text())
    refused = []
    for path in (folder / "models").glob("*.yml"):
        try:
            check_card(plain_dates(read_yaml(path)), path.name)
        except InputError as error:
            refused.append(str(error))
    # The leaderboard's own rule for the first author, which its schema does not enforce for lists.
    assert all("missing: authors.0.email" in message for message in refused)
    assert len(refused) < 20


@pytest.mark.shared
def test_sections_of_a_published_card(shared_dir: Path) -> None:
    """The sections of eSEN's card are made again from its numbers, key for key."""
    card = read_yaml(shared_dir / "data/matbench_discovery/models/esen-30m-mp.yml")["metrics"]
    subsets = {"full_test_set": "full", "unique_prototypes": "unique", "most_stable_10k": "top"}
    flat = {
        f"{short}_{key}": value for name, short in subsets.items() for key, value in card["discovery"][name].items()
    }
    pred_file = card["discovery"]["pred_file"]
    assert discovery_section(flat, None, {"pred_file": pred_file}) == card["discovery"]
    kappa = card["phonons"]["kappa_103"]
    assert conductivity_section(kappa, None, {"pred_file": kappa["pred_file"]}) == {"kappa_103": kappa}


def test_a_wrong_key_is_named() -> None:
    wanted = card_schema()["required"]
    with pytest.raises(InputError) as caught:
        check_card({"metrics": {"phonons": {"kappa_103": {"kappa_SRME": 0.1}}}}, "card.yml")
    message = str(caught.value)
    assert all(name in message for name in wanted)
    assert "metrics.phonons.kappa_103.κ_SRME" in message
    assert "'kappa_SRME' was unexpected" in message

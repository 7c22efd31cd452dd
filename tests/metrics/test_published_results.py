"""The table of published results, against the cards from which it was made."""

from pathlib import Path

import pytest
import yaml

from esen_flows.errors import InputError
from esen_flows.metrics.published import published_rows, ranked

ROWS = {row.key: row for row in published_rows()}


def test_models_and_their_kinds() -> None:
    assert len(ROWS) == 62
    assert ROWS["esen-30m-mp"].compliant
    assert ROWS["esen-30m-mp"].conservative is True
    assert not ROWS["esen-30m-oam"].compliant
    assert ROWS["eqv2-s-dens-mp"].conservative is False
    assert ROWS["chgnet-0.3.0"].conservative is True
    assert ROWS["voronoi-rf"].conservative is None
    assert ROWS["sevennet-0"].superseded


@pytest.mark.parametrize(
    ("model", "cps", "cds", "cmds"),
    [
        ("esen-30m-mp", 0.7974, 0.4167, 0.5926),
        ("esen-30m-oam", 0.8879, 0.6485, 0.6248),
        ("sevennet-l3i5", 0.7136, 0.5329, 0.6505),
        ("orb-v2", 0.5284, 0.6781, 0.7502),
    ],
)
def test_combined_scores(model: str, cps: float, cds: float, cmds: float) -> None:
    found = ROWS[model].values
    assert (found["CPS"], found["CDS"], found["CMDS"]) == pytest.approx((cps, cds, cmds), abs=5e-5)


def test_order() -> None:
    best = ranked(ROWS.values(), "κ_SRME")
    values = [row.values.get("κ_SRME") for row in best]
    known = [value for value in values if value is not None]
    assert known == sorted(known)
    assert values[len(known) :] == [None] * (62 - len(known))
    assert ranked(ROWS.values(), "unique_F1")[0].key == "equiformer-v3-oam"
    with pytest.raises(InputError, match="no model has the metric 'F2'; known are CDS"):
        ranked(ROWS.values(), "F2")


@pytest.mark.shared
def test_the_cards(shared_dir: Path) -> None:
    cards = [yaml.safe_load(f.read_text()) for f in (shared_dir / "data/matbench_discovery/models").glob("*.yml")]
    with_metrics = {card["model_key"]: card for card in cards if card.get("metrics")}
    assert set(with_metrics) == set(ROWS)
    for key, card in with_metrics.items():
        discovery = card["metrics"]["discovery"]["unique_prototypes"]
        for name in ("F1", "DAF", "MAE", "TP"):
            assert ROWS[key].values[f"unique_{name}"] == discovery[name]

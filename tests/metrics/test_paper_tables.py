"""Tables of the eSEN paper, with a campaign in place."""

import pytest

from esen_flows.errors import InputError
from esen_flows.metrics.paper_tables import paper_table
from esen_flows.metrics.published import LeaderboardRow


def test_compliant_models_and_a_campaign_that_deviates() -> None:
    values = {"unique_F1": 0.6132, "unique_MAE": 0.063, "κ_SRME": 1.72}
    ours = LeaderboardRow("chgnet", "chgnet", False, True, False, values, "wbm_discovery")
    found = paper_table(2, [ours])
    keys = [row.key for row in found.rows]
    assert keys[0] == "esen-30m-mp"
    assert {"sevennet-l3i5", "mace-mp-0", "m3gnet"} < set(keys)
    assert keys[keys.index("chgnet") + 1] == "chgnet-0.3.0"  # 0.613, as the card has it
    theirs, differing = found.deviations["wbm_discovery", "chgnet"]
    assert (theirs.key, differing) == ("chgnet-0.3.0", {"κ_SRME"})


def test_models_trained_on_more() -> None:
    keys = [row.key for row in paper_table(3, []).rows]
    assert keys[0] == "esen-30m-oam"
    assert "esen-30m-mp" not in keys
    assert "pet-oam-xl-1.0.0" not in keys  # newer than the paper


def test_phonons_and_what_is_not_known() -> None:
    assert paper_table(4, []).rows[0].values["mdr_max_frequency_mae_k"] == 21
    with pytest.raises(InputError, match="table 5 of the paper"):
        paper_table(5, [])

"""Campaigns and their members."""

from typing import Any

import pytest
from result_documents import member_rows

from esen_flows.errors import InputError
from esen_flows.store import campaigns
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


def spec(name: str, sha: str = "1") -> dict[str, Any]:
    return {"_id": name, "spec": {"name": name}, "spec_text": "", "spec_sha256": sha, "models": []}


def test_a_name_belongs_to_one_spec(store: Store) -> None:
    assert campaigns.create_campaign(store, spec("one"))
    assert not campaigns.create_campaign(store, spec("one"))
    with pytest.raises(InputError, match=r"'one' with another spec .* delete one"):
        campaigns.create_campaign(store, spec("one", "2"))
    with pytest.raises(InputError, match=r"no campaign 'two'; there are: one\."):
        campaigns.campaign_of(store, "two")
    campaigns.delete_campaign(store, "one")
    assert campaigns.campaign_names(store) == []


def test_each_member_is_stored_once_and_the_largest_cost_comes_first(store: Store) -> None:
    assert campaigns.insert_members(store, "c", member_rows(3)) == 3
    assert campaigns.insert_members(store, "c", member_rows(4)) == 1
    assert campaigns.insert_members(store, "other", member_rows(2)) == 2
    assert [row["key"] for row in campaigns.members(store, "c")] == ["k3", "k2", "k1", "k0"]
    assert [row["key"] for row in campaigns.members_of(store, "c", ["k1", "none", "k0"])] == ["k1", "k0"]


def test_any_number_of_members_can_be_sorted(store: Store) -> None:
    server = store.database["campaign_members"].database
    server.command("profile", 2)
    assert list(campaigns.members(store, "c")) == []
    server.command("profile", 0)
    query = server["system.profile"].find_one({"command.sort.cost": -1})
    assert query is not None
    assert query["command"]["allowDiskUse"] is True

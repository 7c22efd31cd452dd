"""Verification: an undamaged store has no problem, and each kind of damage is reported."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from emt_campaigns import empty_database
from whole_store import contents, fill

from esen_flows.store.upkeep.verify import verify

if TYPE_CHECKING:
    from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


def test_an_undamaged_store_has_no_problem(store: "Store") -> None:
    fill(store)
    before = contents(store)
    report = verify(store)
    assert report.problems == []
    assert report.checked == {"results": 7, "structures": 2, "arrays": 3}
    assert contents(store) == before


def change(collection: str, **changes: Any) -> Callable[[Any], Any]:
    return lambda database: database[collection].update_one({}, {"$set": changes})


DAMAGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a lost array": (lambda database: database["blobs"].delete_one({}), "its array .* is missing"),
    "a lost piece": (lambda database: database["blob_chunks"].delete_one({}), "0 of 1048576 bytes"),
    "a truncated piece": (change("blob_chunks", data=b"short"), "5 of 1048576 bytes"),
    "a changed piece": (change("blob_chunks", data=bytes(2**20)), "does not match its checksum"),
    "a changed header": (change("blobs", shape=[2, 65536]), "does not match its checksum"),
    "an impossible header": (change("blobs", shape=[7]), "does not have the bytes of its shape"),
    "a lost structure": (
        lambda database: database["structures"].delete_many({}),
        "its (structure|parent) .* is not stored",
    ),
    "a lost parent": (lambda database: database["results"].delete_one({"kind": "forces"}), "its parent .* not stored"),
    "a changed structure": (change("structures", charge=1.0), "is not the structure of its key"),
    "a structure without atoms": (change("structures", structure={}), "structure .* cannot be read"),
    "another protocol": (change("results", protocol_hash="0" * 64), "does not have the key that follows"),
    "a missing field": (
        lambda database: database["results"].update_one({}, {"$unset": {"model_label": 1}}),
        "is not as this version of esen_flows writes it .model_label: Field required",
    ),
    "another shape": (
        lambda database: database["results"].update_one({"kind": "phonon"}, {"$set": {"output.fc2.shape": [2, 65536]}}),
        "has another type or shape than the result says",
    ),
    "a structure that is no text": (change("results", structure_key={"a": 1}), "cannot be read"),
    "a newer document": (change("results", schema_version=99), "schema version 99, newer than 1; upgrade esen_flows"),
    "no list of arrays": (change("results", blobs=7), "cannot be read"),
    "a wrong list of arrays": (change("results", blobs=["0" * 64]), "refers to other large arrays than it lists"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_reported(whole: "Store", name: str) -> None:
    damage, message = DAMAGES[name]
    before = {collection: list(whole.database[collection].find()) for collection in whole.database.collection_names()}
    damage(whole.database)
    try:
        problems = verify(whole).problems
    finally:
        for collection, rows in before.items():
            whole.database[collection].delete_many({})
            if rows:
                whole.database[collection].insert_many(rows)
    assert re.search(message, "\n".join(problems))


@pytest.fixture(scope="module")
def whole(embedded_settings: Any) -> Any:
    """A filled store; a test that damages it has to repair it."""
    with empty_database(embedded_settings) as store:
        fill(store)
        yield store

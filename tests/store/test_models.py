"""The force field of a model key is stored with its first result, and exported with it."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from result_documents import commit, document, key_of
from whole_store import put_relaxation

from esen_flows.schemas.card import resolve_model
from esen_flows.store.bulk import insert_results
from esen_flows.store.exchange.transfer import export_archive, import_archive
from esen_flows.store.models import model_problems, note_models, stored_model
from esen_flows.store.upkeep.verify import verify

if TYPE_CHECKING:
    from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
SILICON = resolve_model("esen_silicon")


def test_the_card_of_a_force_field_is_stored_with_a_result(store: "Store") -> None:
    commit(store, document(key_of("one"), model_key=SILICON.key))
    found = stored_model(store.database, SILICON.key)
    assert found is not None
    assert SILICON.card is not None
    assert found["labels"] == ["esen_silicon"]
    assert found["card"] == SILICON.card.model_dump(mode="json")
    assert found["card"]["licence"]
    assert stored_model(store.database, key_of("another")) is None


def test_a_card_of_another_force_field_with_the_same_label_is_not_stored(store: "Store") -> None:
    """The label is esen_silicon and the key that of another force field, which has a second label as well."""
    insert_results(store, [document(key_of(name), model_label=name) for name in ("esen_silicon", "mine")])
    found = stored_model(store.database, key_of("model"))
    assert found == {"key": key_of("model"), "labels": ["esen_silicon", "mine"], "card": None}
    assert store.database["models"].count_documents({}) == 1


def test_a_stored_card_is_not_replaced(store: "Store") -> None:
    store.note_models([(SILICON.key, "esen_silicon")])
    store.database["models"].update_one({}, {"$set": {"card": {"description": "as it was"}}})
    note_models(store.database, [(SILICON.key, "esen_silicon")])
    found = stored_model(store.database, SILICON.key)
    assert found is not None
    assert found["card"] == {"description": "as it was"}


def test_force_fields_are_exported_with_their_results(store: "Store", tmp_path: Path) -> None:
    put_relaxation(store, "relax")
    store.note_models([(SILICON.key, "esen_silicon")])  # no result was made with it
    store.database["models"].update_one({"_id": key_of("model")}, {"$set": {"card": {"description": "as it was"}}})
    before = store.database["models"].find_one({"_id": key_of("model")})
    export_archive(store, tmp_path / "all.tar")
    store.database.drop()
    import_archive(store, tmp_path / "all.tar")
    assert list(store.database["models"].find()) == [before]
    assert verify(store).problems == []
    store.database["models"].update_one({}, {"$set": {"labels": "damaged"}})
    (problem,) = verify(store).problems
    assert problem == f"model {key_of('model')} is not as this package writes it"


@pytest.mark.parametrize(
    "change",
    [{"labels": "x"}, {"labels": [1]}, {"card": 3}, {"$where": "1"}, {"_id": 5}],
    ids=lambda change: str(change),
)
def test_damage_is_reported(store: "Store", change: dict[str, object]) -> None:
    store.note_models([(SILICON.key, "esen_silicon")])
    (row,) = store.database["models"].find()
    assert model_problems(row) == []
    assert "is not as this package writes it" in model_problems({**row, **change})[0]

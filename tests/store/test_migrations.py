"""Older documents are readable and rewritten on request, without undoing what other processes write."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ase.build import bulk
from bson import json_util
from result_documents import KEY, commit, document, key_of, result_of

from esen_flows.errors import StoreError
from esen_flows.schemas.documents import SCHEMA_VERSION
from esen_flows.store import migrations
from esen_flows.store.migrations import MigrationReport, migrate, upgraded
from esen_flows.store.queries.query import query, query_structures
from esen_flows.store.upkeep.verify import verify

if TYPE_CHECKING:
    from esen_flows.store.database import Row
    from esen_flows.store.results import Store

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def second_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema 2, to which results of version 1 get another label and structures one more tag."""

    def of_results(row: "Row") -> "Row":
        return {**row, "model_label": row["model_label"].upper()}

    def of_structures(row: "Row") -> "Row":
        return {**row, "tags": [*row["tags"], "old"]}

    monkeypatch.setattr(migrations, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(migrations, "MIGRATIONS", {"results": {1: of_results}, "structures": {1: of_structures}})


def test_every_older_version_has_a_migration() -> None:
    for steps in migrations.MIGRATIONS.values():
        assert sorted(steps) == list(range(migrations.FIRST_VERSION, SCHEMA_VERSION))


def test_there_is_a_document_of_every_version() -> None:
    names = {path.name for path in DATA.glob("document_version_*.json")}
    assert names == {f"document_version_{n}.json" for n in range(1, SCHEMA_VERSION + 1)}


@pytest.mark.mongod
@pytest.mark.parametrize("path", sorted(DATA.glob("document_version_*.json")), ids=lambda path: path.stem)
def test_documents_of_all_versions_are_read(store: "Store", path: Path) -> None:
    rows = json_util.loads(path.read_text(), json_options=json_util.CANONICAL_JSON_OPTIONS)
    store.database["results"].insert_one(rows["result"])
    store.database["structures"].insert_one(rows["structure"])
    found = result_of(store, rows["result"]["key"])
    assert found.schema_version == SCHEMA_VERSION
    # a and E of copper by ASE's EMT, relaxed to 1 meV/A.
    assert found.summary["a_angstrom"] == pytest.approx(3.5898, abs=5e-4)
    assert found.output is not None
    assert found.output["forces_ev_per_angstrom"].shape == (4, 3)
    atoms = store.get_structure(found.structure_key)
    assert atoms is not None
    assert atoms.get_chemical_formula() == "Cu4"


def test_a_current_row_is_not_changed_and_a_newer_one_is_refused() -> None:
    row = {"key": "k", "schema_version": SCHEMA_VERSION}
    assert upgraded("results", row) is row
    with pytest.raises(StoreError, match=rf"result k has schema version 99, newer than {SCHEMA_VERSION}; upgrade"):
        upgraded("results", {"key": "k", "schema_version": 99})
    with pytest.raises(StoreError, match="structure s has schema version 99"):
        upgraded("structures", {"_id": "s", "schema_version": 99})


def test_a_row_is_upgraded_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {1: lambda row: row | {"b": row["a"] + 1}, 2: lambda row: row | {"c": row["b"] + 1}}
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(migrations, "MIGRATIONS", {"results": steps})
    row = {"a": 1}  # without a version: of the first one
    assert upgraded("results", row) == {"a": 1, "b": 2, "c": 3, "schema_version": 3}
    assert row == {"a": 1}
    del steps[2]
    with pytest.raises(StoreError, match="no way from schema version 2 of results to 3"):
        upgraded("results", row)


@pytest.mark.mongod
def test_current_documents_are_not_rewritten(store: "Store") -> None:
    commit(store, document(KEY))
    assert migrate(store.database, apply=True) == [
        MigrationReport("results", 1, {}, {}, 0),
        MigrationReport("structures", 0, {}, {}, 0),
        MigrationReport("models", 1, {}, {}, 0),
        MigrationReport("datasets", 0, {}, {}, 0),
    ]


@pytest.mark.mongod
@pytest.mark.usefixtures("second_version")
def test_a_dry_run_only_counts_and_a_migration_happens_once(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "_BATCH", 2)
    keys = [commit(store, document(key_of(name))).key for name in "abcde"]
    store.put_structure(bulk("Si"), tags=["new"])
    results = store.database["results"]
    results.update_one({"key": keys[0]}, {"$unset": {"schema_version": 1}})
    results.update_one({"key": keys[1]}, {"$set": {"schema_version": 7}})
    before = list(results.find().sort("_id"))

    dry = migrate(store.database, apply=False)
    assert dry[0] == MigrationReport("results", 0, {1: 4}, {7: 1}, 0)
    assert list(results.find().sort("_id")) == before

    assert [report.migrated for report in migrate(store.database, apply=True)] == [4, 1]
    after = list(results.find().sort("_id"))
    expected = [
        row if row["key"] == keys[1] else {**row, "schema_version": 2, "model_label": "ESEN_SILICON"} for row in before
    ]
    assert after == expected
    structure = store.database["structures"].find_one({})
    assert structure is not None
    assert structure["tags"] == ["new", "old"]
    assert [report.migrated for report in migrate(store.database, apply=True)] == [0, 0]


@pytest.mark.mongod
@pytest.mark.usefixtures("second_version")
def test_every_reader_sees_the_current_form(store: "Store") -> None:
    key = commit(store, document(KEY)).key
    store.put_structure(bulk("Si"), tags=["new"])
    for collection in ("results", "structures"):
        store.database[collection].update_one({}, {"$set": {"schema_version": 1}})
    found = result_of(store, key)
    assert [found.model_label, *(each.model_label for each in query(store, "relax"))] == ["ESEN_SILICON"] * 2
    (structure,) = query_structures(store)
    assert structure.fields["tags"] == ["new", "old"]
    assert verify(store).checked == {"results": 1, "structures": 1}
    assert migrate(store.database, apply=False)[0].older == {1: 1}


@pytest.mark.mongod
@pytest.mark.usefixtures("second_version")
def test_a_change_between_reading_and_rewriting_is_kept(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    key = commit(store, document(KEY)).key
    real = migrations.upgraded

    def meanwhile(collection: str, row: "Row") -> "Row":
        store.database["results"].update_one({"key": key}, {"$set": {"current": False}})
        return real(collection, row)

    monkeypatch.setattr(migrations, "upgraded", meanwhile)
    assert migrate(store.database, apply=True)[0].migrated == 0
    monkeypatch.setattr(migrations, "upgraded", real)
    assert migrate(store.database, apply=True)[0].migrated == 1
    row = store.database["results"].find_one({"key": key})
    assert row is not None
    assert (row["current"], row["schema_version"]) == (False, 2)

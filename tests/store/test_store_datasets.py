"""Datasets in the database."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ase import Atoms
from whole_store import fill

from esen_flows.data.dataset import from_structures
from esen_flows.data.folders import write_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.errors import InputError, StoreError
from esen_flows.store.connection import open_store
from esen_flows.store.datasets import dataset_document, fetch_dataset, list_datasets, store_dataset
from esen_flows.store.exchange.transfer import export_archive, import_archive
from esen_flows.store.upkeep.maintenance import collect_garbage
from esen_flows.store.upkeep.verify import verify

if TYPE_CHECKING:
    from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


def structures(count: int = 6, atoms: int = 3, seed: int = 0) -> list[LabelledStructure]:
    """Crystals and molecules with random labels; some lack a stress or a material, one is charged."""
    random = np.random.default_rng(seed)
    made = []
    for index in range(count):
        periodic = index % 2 == 0
        cell = 5 * (1 + atoms / 100) * np.eye(3) + random.random((3, 3)) if periodic else None
        one = Atoms(random.choice([8, 14], atoms), random.random((atoms, 3)), cell=cell, pbc=periodic)
        if index == 1:
            one.info |= {"charge": -1, "spin": 2}
        stress = random.random((3, 3)) if periodic and index != 4 else np.full((3, 3), np.nan)
        group, material = ("$crystals", f"mp-{index // 4}") if periodic else ("", "")
        made.append(LabelledStructure(one, random.random(), random.random((atoms, 3)), stress, group, material))
    return made


LARGE = structures(4, atoms=12_000)  # over 256 kB, so that its columns are blobs


def test_the_same_records_come_back(store: "Store", tmp_path: Path) -> None:
    dataset = from_structures(structures(), {"labeller": "dice", "licence": "none"})
    key = store_dataset(store, dataset, "small")
    assert key == dataset.key
    document = dataset_document(store, key)
    assert (document.names, document.count, document.atoms, document.folder) == (["small"], 6, 18, None)
    assert document.elements == ["O", "Si"]
    assert {row["group"]: (row["count"], row["materials"]) for row in document.groups} == {
        "$crystals": (3, 2),
        "": (3, 3),
    }
    assert document.provenance == {"labeller": "dice", "licence": "none"}
    assert document.statistics["stress_records"] == 2
    fetched = fetch_dataset(store, key, tmp_path / key)
    assert fetched.key == key
    assert fetched.provenance == dataset.provenance
    for before, after in zip(dataset, fetched, strict=True):
        np.testing.assert_array_equal(before.forces, after.forces)
        np.testing.assert_array_equal(before.atoms.positions, after.atoms.positions)
        assert before.atoms.info == after.atoms.info
        assert (before.group, before.material) == (after.group, after.material)


def test_a_dataset_is_written_once_and_its_folder_is_not_used_for_another(store: "Store", tmp_path: Path) -> None:
    key, other = (store_dataset(store, from_structures(structures(seed=seed)), "dice") for seed in (1, 2))
    folder = tmp_path / "folder"
    fetch_dataset(store, key, folder)
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    fetch_dataset(store, key, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    with pytest.raises(StoreError, match=f"holds dataset {key[:12]} instead of {other[:12]}"):
        fetch_dataset(store, other, folder)
    with pytest.raises(InputError, match=r"no dataset 'ffffffffffffffff' in the store .there are: dice"):
        fetch_dataset(store, "f" * 64, folder)


def test_a_dataset_stored_twice_has_two_names(store: "Store") -> None:
    dataset = from_structures(LARGE)
    keys = {store_dataset(store, dataset, name) for name in ("dice", "cubes", "dice")}
    assert len(keys) == 1
    (document,) = list_datasets(store)
    assert sorted(document.names) == ["cubes", "dice"]
    assert store.database["claims"].count_documents({}) == 0


def test_a_large_dataset_stays_in_its_folder(store: "Store", tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "large", structures())
    with pytest.raises(InputError, match="too large for the database; write it into a folder"):
        store_dataset(store, dataset, "large", in_database_bytes=100)
    write_dataset(tmp_path / "other", structures(seed=5))
    with pytest.raises(InputError, match="give the folder of this one"):
        store_dataset(store, dataset, "large", folder=tmp_path / "other", in_database_bytes=100)
    key = store_dataset(store, dataset, "large", folder=tmp_path / "large", in_database_bytes=100)
    assert dataset_document(store, key).folder == str(tmp_path / "large")
    assert fetch_dataset(store, key, tmp_path / "unused").key == key
    assert not (tmp_path / "unused").exists()
    assert verify(store).problems == []
    shutil.rmtree(tmp_path / "large")
    with pytest.raises(StoreError, match=r"its folder .*large is not on this machine"):
        fetch_dataset(store, key, tmp_path / "unused")
    shutil.copytree(tmp_path / "other", tmp_path / "large")
    with pytest.raises(StoreError, match="no longer holds dataset 'large'"):
        fetch_dataset(store, key, tmp_path / "unused")


def test_garbage_collection_keeps_arrays_of_datasets(store: "Store", tmp_path: Path) -> None:
    key = store_dataset(store, from_structures(LARGE), "large")
    assert store.database["blobs"].count_documents({}) >= 2
    assert collect_garbage(store, apply=True).blobs == 0
    assert fetch_dataset(store, key, tmp_path / key).key == key
    store.database["datasets"].delete_many({})
    assert collect_garbage(store, apply=True).blobs >= 2
    assert store.database["blob_chunks"].count_documents({}) == 0


def test_an_interrupted_writer_leaves_nothing(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("esen_flows.store.datasets._upsert", fail)
    with pytest.raises(KeyboardInterrupt):
        store_dataset(store, from_structures(LARGE), "large")
    for name in ("datasets", "blobs", "blob_chunks", "claims"):
        assert store.database[name].count_documents({}) == 0, name


def test_damage_is_found(store: "Store", tmp_path: Path) -> None:
    key = store_dataset(store, from_structures(LARGE), "large")
    assert verify(store).checked["datasets"] == 1
    assert verify(store).problems == []
    store.database["datasets"].update_one({}, {"$set": {"columns.energies_ev.data": bytes(8 * len(LARGE))}})
    with pytest.raises(StoreError, match="does not have the key of its records"):
        fetch_dataset(store, key, tmp_path / "changed")
    assert not (tmp_path / "changed").exists()
    blob = store.database["blobs"].find_one()
    store.database["blobs"].delete_one({"_id": blob["_id"]})
    assert f"dataset {key}: its array {blob['_id']} is missing" in verify(store).problems
    store.database["datasets"].update_one({}, {"$set": {"count": "many", "schema_version": 1}})
    assert any("cannot be read" in problem for problem in verify(store).problems)
    with pytest.raises(StoreError, match=r"is not as this version of esen_flows writes it .count"):
        dataset_document(store, key)


def test_a_dataset_is_exported_and_imported(store: "Store", embedded_settings: Any, tmp_path: Path) -> None:
    fill(store)
    key = store_dataset(store, from_structures(LARGE), "large")
    assert export_archive(store, tmp_path / "all.tar").datasets == 1
    other = open_store(embedded_settings.model_copy(update={"database": store.database.database_name + "_other"}))
    try:
        done = import_archive(other, tmp_path / "all.tar")
        assert (done.results, done.datasets) == (7, 1)
        assert fetch_dataset(other, key, tmp_path / "fetched").key == key
        assert verify(other).problems == []
        assert import_archive(other, tmp_path / "all.tar").datasets == 0
    finally:
        other.database.drop()
        other.close()

"""An import restores exactly what was exported, beside other writers and after interruptions."""

import os
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ase.build import bulk
from result_documents import commit, document, failed, large_array
from whole_store import contents, fields_of, fill, put_relaxation, wipe

from esen_flows.errors import InputError, StoreError
from esen_flows.settings import Settings
from esen_flows.store.blobs import BlobStore
from esen_flows.store.exchange import archive as archive_module
from esen_flows.store.exchange import transfer as module
from esen_flows.store.exchange.transfer import Transferred, export_archive, import_archive
from esen_flows.store.upkeep.maintenance import Garbage, collect_garbage
from esen_flows.store.upkeep.verify import Verification, verify

if TYPE_CHECKING:
    from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
WHOLE = Verification(Counter({"results": 7, "structures": 2, "arrays": 3}))


def test_round_trip_is_identical_and_importing_twice_changes_nothing(store: "Store", tmp_path: Path) -> None:
    fill(store)
    before, file = contents(store), tmp_path / "all.tar"
    assert export_archive(store, file) == Transferred(results=7, structures=2, arrays=3)
    assert contents(store) == before
    wipe(store)
    assert import_archive(store, file) == Transferred(results=7, structures=2, arrays=3)
    assert contents(store) == before
    assert verify(store).problems == []
    assert import_archive(store, file) == Transferred(0, 0, 0)
    assert contents(store) == before
    assert store.database["claims"].count_documents({}) == 0
    export_archive(store, tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == file.read_bytes()


def test_parts_are_joined(store: "Store", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_PART_BYTES", 3000)
    monkeypatch.setattr(module, "_BATCH", 2)
    fill(store)
    before = contents(store)
    export_archive(store, tmp_path / "all.tar")
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert "results/000003.jsonl" in tar.getnames()
    wipe(store)
    import_archive(store, tmp_path / "all.tar")
    assert contents(store) == before


def test_an_export_of_some_results_includes_all_that_they_start_from(store: "Store", tmp_path: Path) -> None:
    keys = fill(store)
    file = tmp_path / "phonon.tar"
    assert export_archive(store, file, [keys["phonon"]]) == Transferred(results=3, structures=1, arrays=2)
    wipe(store)
    import_archive(store, file)
    assert verify(store) == Verification(Counter({"results": 3, "structures": 1, "arrays": 2}))
    found = store.get(keys["phonon"])
    np.testing.assert_array_equal(found.output["fc2"], large_array(1))
    assert found.output["words"].tolist() == ["Γ", "X"]


def test_an_existing_file_is_not_replaced(store: "Store", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "all.tar"
    file.write_text("precious")
    with pytest.raises(InputError, match=r"all\.tar exists; give the archive another name"):
        export_archive(store, file)
    other = tmp_path / "other.tar"
    monkeypatch.setattr(module, "_all", lambda *arguments: iter([other.write_text("came meanwhile")][:0]))
    with pytest.raises(InputError, match=r"other\.tar exists"):
        export_archive(store, other)
    assert (file.read_text(), other.read_text()) == ("precious", "came meanwhile")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.tar", "other.tar"]


def test_an_export_that_fails_leaves_no_file(store: "Store", tmp_path: Path) -> None:
    fill(store)
    store.database["blob_chunks"].delete_many({})
    with pytest.raises(StoreError, match="0 of 1048576 bytes; the store is damaged"):
        export_archive(store, tmp_path / "all.tar")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_leaves_no_file(store: "Store", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store)
    real = Path.open

    def full(path: Path, mode: str = "r", *more: Any) -> Any:
        if not path.name.endswith(".partial"):
            return real(path, mode, *more)
        real(path, "xb").close()
        return real(Path("/dev/full"), "wb")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        export_archive(store, tmp_path / "all.tar")
    assert list(tmp_path.iterdir()) == []


def test_stored_results_are_kept(store: "Store", tmp_path: Path) -> None:
    keys = fill(store)
    export_archive(store, tmp_path / "all.tar")
    wipe(store)
    put_relaxation(store, "retried", 5.5, output={"mine": np.arange(2)})
    structure = store.database["structures"].find_one({})
    store.database["structures"].update_one({}, {"$set": {"tags": ["mine"]}})
    assert import_archive(store, tmp_path / "all.tar") == Transferred(results=6, structures=1, arrays=3)
    found = store.get(keys["retried"])
    assert "mine" in found.output
    merged = store.database["structures"].find_one({"_id": structure["_id"]})
    assert merged["tags"] == ["mine", "test"]


def test_finished_results_replace_pending_failures_and_never_the_reverse(store: "Store", tmp_path: Path) -> None:
    structure = store.put_structure(bulk("Si", a=5.4))
    one, two = (fields_of("relax", structure, structure, name) for name in ("one", "two"))
    commit(store, document(**one, output={"fc2": large_array(1)}))
    commit(store, failed(final=False, **two))
    export_archive(store, tmp_path / "all.tar")
    wipe(store)
    commit(store, failed(final=False, **one))
    commit(store, document(**two, output={"fc2": large_array(2)}))
    assert import_archive(store, tmp_path / "all.tar") == Transferred(results=1, structures=1, arrays=1)
    states = [(row["key"] == one["key"], row["attempt"], row["state"], row["current"]) for row in results(store)]
    assert sorted(states) == [
        (False, 0, "finished", True),
        (True, 0, "failed", False),
        (True, 1, "finished", True),
    ]
    assert import_archive(store, tmp_path / "all.tar") == Transferred(0, 0, 0)
    assert verify(store).problems == []


def results(store: "Store") -> list[dict[str, Any]]:
    return list(store.database["results"].find())


def test_an_interrupted_import_is_completed_by_repeating_it(
    store: "Store", archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH", 2)
    put, calls = BlobStore.put, []

    def interrupted(self: BlobStore, *arguments: Any) -> None:
        put(self, *arguments)
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(BlobStore, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_archive(store, archive)
    assert store.database["results"].count_documents({}) == 2
    assert store.database["claims"].count_documents({}) == 0
    assert store.database["blobs"].count_documents({}) == 2  # those that its documents name, and no other
    monkeypatch.setattr(BlobStore, "put", put)
    assert import_archive(store, archive).results == 5
    assert verify(store) == WHOLE


KILLED = """
import os, sys
from pathlib import Path
from esen_flows.settings import Settings
from esen_flows.store.blobs import BlobStore
from esen_flows.store.connection import open_store
from esen_flows.store.exchange.transfer import import_archive

put, calls = BlobStore.put, []

def killed(self, *arguments):
    put(self, *arguments)
    calls.append(arguments)
    if len(calls) == 2:
        os.kill(os.getpid(), 9)

BlobStore.put = killed
folder, database, file = sys.argv[1:]
import_archive(open_store(Settings(mongo_uri=None, data_dir=Path(folder), database=database)), Path(file))
"""


def test_sweeping_clears_away_everything_that_a_killed_import_leaves(
    store: "Store", archive: Path, embedded_settings: Settings
) -> None:
    name = store.database.database_name
    done = subprocess.run([sys.executable, "-c", KILLED, embedded_settings.data_dir, name, archive], check=False)
    assert done.returncode == -signal.SIGKILL
    assert store.database["blobs"].count_documents({}) == 2
    assert store.sweep() == 1
    assert store.database["results"].count_documents({}) == 0
    assert store.database["blob_chunks"].count_documents({}) == 0
    assert import_archive(store, archive).results == 7
    assert verify(store).problems == []


def test_simultaneous_imports_have_the_effect_of_one(store: "Store", archive: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: import_archive(store, archive), range(4)))
    assert all(each.results <= 7 for each in done)
    assert verify(store) == WHOLE
    assert collect_garbage(store, apply=False) == Garbage(attempts=1, blobs=0, blob_bytes=0, chunks=0)


def test_arrays_that_a_sweep_removed_during_an_import_are_written_again(
    store: "Store", archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = module._insert

    def swept_before(database: Any, rows: Any) -> int:
        claims = list(database["claims"].find())
        database["claims"].delete_many({})
        BlobStore(database).remove_orphans([sha for claim in claims for sha in claim["blobs"]])
        return insert(database, rows)

    monkeypatch.setattr(module, "_insert", swept_before)
    import_archive(store, archive)
    assert verify(store) == WHOLE

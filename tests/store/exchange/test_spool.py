"""The spool: acknowledged results are on the disk, incomplete ones are not kept, merging twice changes nothing."""

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import result_documents
from ase.build import bulk
from result_documents import claimed, commit, large_array, output_of
from whole_store import fields_of

from esen_flows.errors import InputError, StoreError
from esen_flows.schemas.documents import Failure, ResultDocument
from esen_flows.schemas.keys import array_key, atoms_key
from esen_flows.settings import Settings
from esen_flows.store.blobs import BlobReference
from esen_flows.store.connection import open_store
from esen_flows.store.exchange.ingest import ingest
from esen_flows.store.exchange.spool import read_records, spool_files
from esen_flows.store.exchange.spool_store import SpoolStore
from esen_flows.store.results import Store

NAMES = ("one", "two", "three", "back", "final", "pending", "new")
SILICON = result_documents.key_of("silicon")


def key_of(name: str) -> str:
    """Key of an invented relaxation, which follows from its fields."""
    return str(fields_of("relax", SILICON, SILICON, name)["key"])


KEY = key_of("one")


def document(key: str, **changes: Any) -> ResultDocument:
    """The relaxation of this key."""
    (name,) = [name for name in NAMES if key_of(name) == key]
    return result_documents.document(**fields_of("relax", SILICON, SILICON, name), **changes)


def failed(key: str, *, final: bool) -> ResultDocument:
    """The same, failed."""
    failure = Failure(error="NotConvergedError" if final else "MemoryError", message="no", final=final)
    return document(key, state="failed", failure=failure, output=None)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SpoolStore]:
    """An empty one in `tmp_path`."""
    opened = SpoolStore(tmp_path)
    yield opened
    opened.close()


def fill(store: Store) -> None:
    """Two results that share an array, a final failure, one to try again, a structure."""
    store.put_structure(bulk("GaAs", "zincblende", 5.65), material_ids=["mp-2534"])
    for name in ("one", "two"):
        output = {"fc2": large_array(0), "small": np.arange(3), "nan": float("nan")}
        commit(store, document(key_of(name), output=output))
    for name, final in (("final", True), ("pending", False)):
        commit(store, failed(key_of(name), final=final))


def records(folder: Path) -> int:
    return sum(1 for file in spool_files(folder) for _ in read_records(file))


def test_a_spool_has_the_methods_of_a_store(spool: SpoolStore, tmp_path: Path) -> None:
    assert spool.get(KEY) is None
    fill(spool)
    for again in (spool, SpoolStore(tmp_path)):  # a later process knows it too
        found = again.get_or_claim(KEY)
        assert isinstance(found, ResultDocument)
        np.testing.assert_array_equal(found.output["fc2"], large_array(0))
        np.testing.assert_array_equal(found.output["small"], np.arange(3))
        assert np.isnan(found.output["nan"])
        light = output_of(again, KEY, load_arrays=False)
        assert light["fc2"] == BlobReference(array_key(large_array(0)), "<f8", (131_072,))
        chunk = again.claim_many([KEY, key_of("pending"), key_of("final"), key_of("new")])
        assert [claim.key for claim in chunk.claims] == [key_of("pending"), key_of("new")]
        assert (chunk.settled, chunk.leftovers) == ((KEY, key_of("final")), ())
        structure = again.get_structure(atoms_key(bulk("GaAs", "zincblende", 5.65)))
        assert atoms_key(structure) == atoms_key(bulk("GaAs", "zincblende", 5.65))
        again.release(chunk.claims[0])
        assert again.sweep() == 0


def test_requests_that_need_a_database_and_bad_values_are_refused(spool: SpoolStore) -> None:
    with pytest.raises(StoreError, match=r"ESEN_FLOWS_SPOOL is set.*esen-flows db ingest"):
        _ = spool.database
    with pytest.raises(StoreError, match=r"relax\.output\.a is a set"):
        commit(spool, document(KEY, output={"a": {1}}))
    with pytest.raises(InputError, match="unknown fields of a structure"):
        spool.put_structure(bulk("Si"), name="silicon")


@pytest.mark.mongod
def test_merging_is_idempotent(spool: SpoolStore, store: Store, tmp_path: Path) -> None:
    fill(spool)
    commit(spool, document(KEY, summary={"forced": 1}), force=True)
    commit(store, document(key_of("two"), summary={"first": 1}))
    names = ("results", "structures", "claims", "blobs", "blob_chunks")
    for counts in ({"structures": 1, "new": 4, "known": 1}, {"structures": 1, "known": 5}):
        done = ingest(store, tmp_path)
        assert (dict(done.counts), done.truncated, done.damaged) == (counts, (), ())
        found = {name: store.database[name].count_documents({}) for name in names}
        assert found == {"results": 5, "structures": 1, "claims": 0, "blobs": 1, "blob_chunks": 1}
    one, two, pending = (store.get(key_of(name)) for name in ("one", "two", "pending"))
    assert (one.summary, one.attempt) == ({"forced": 1}, 1)
    assert two.summary == {"first": 1}  # the first result is kept
    assert pending.attempt == 0
    row = store.database["structures"].find_one({})
    assert (row["_id"], row["formula"]) == (atoms_key(bulk("GaAs", "zincblende", 5.65)), "GaAs")
    with pytest.raises(StoreError, match="no database to merge into"):
        ingest(spool, tmp_path)


@pytest.mark.mongod
def test_a_truncated_last_line_is_reported_and_not_merged(spool: SpoolStore, store: Store, tmp_path: Path) -> None:
    fill(spool)
    (file,) = spool_files(tmp_path)
    whole = file.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in (1, last // 2, last - 1):
        file.write_bytes(whole[:-cut])
        done = ingest(store, tmp_path)
        assert done.truncated == (f"{file} at byte {len(whole) - last}",)
        assert done.damaged == ()
        assert sum(done.counts.values()) == 4
        assert store.get(key_of("pending")) is None
    assert SpoolStore(tmp_path).get(key_of("pending")) is None


@pytest.mark.mongod
@pytest.mark.parametrize(
    ("damage", "reason"),
    [("truncate", r"blobs/[0-9a-f]{64} has 100 of 1048576 bytes"), ("flip", "checksum"), ("remove", "cannot be read")],
)
def test_a_damaged_array_prevents_only_the_merging_of_its_own_results(
    spool: SpoolStore, store: Store, tmp_path: Path, damage: str, reason: str
) -> None:
    fill(spool)
    commit(spool, document(key_of("three"), output={"fc2": large_array(3)}))
    blob = next(tmp_path.glob(f"*/blobs/{array_key(large_array(0))}"))
    data = blob.read_bytes()
    if damage == "remove":
        blob.unlink()
    else:
        blob.write_bytes(data[:100] if damage == "truncate" else b"\x00" + data[1:-1] + b"\x01")
    done = ingest(store, tmp_path)
    assert len(done.damaged) == 2
    for message in done.damaged:
        assert message.startswith(f"{spool_files(tmp_path)[0]} at byte ")
        assert re.search(reason, message)
    assert store.get(KEY) is None
    assert store.get(key_of("three")) is not None
    assert store.database["blobs"].count_documents({}) == 1
    blob.write_bytes(data)  # repaired, for example by copying it again
    assert ingest(store, tmp_path).counts["new"] == 2
    assert store.get(KEY) is not None


@pytest.mark.mongod
def test_a_changed_record_is_refused(spool: SpoolStore, store: Store, tmp_path: Path) -> None:
    fill(spool)
    (file,) = spool_files(tmp_path)
    file.write_bytes(file.read_bytes().replace(b'"esen_silicon"', b'"esen_gallium"', 1))
    done = ingest(store, tmp_path)
    assert len(done.damaged) == 1
    assert "does not match its checksum" in done.damaged[0]
    assert store.get(KEY) is None
    assert store.get(key_of("two")) is not None


def test_a_full_disk_is_one_message_and_leaves_no_partial_record(spool: SpoolStore, tmp_path: Path) -> None:
    """A limit on the size of files has the effect of a full disk: a partial write, then an error."""
    commit(spool, document(KEY))
    (file,) = spool_files(tmp_path)
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 500, limits[1]))
    try:
        for output in ({"text": "x" * 5000}, {"fc2": large_array(0)}):
            with pytest.raises(StoreError, match=rf"cannot write result {key_of('two')} .*ESEN_FLOWS_SPOOL_DIR"):
                commit(spool, document(key_of("two"), output=output))
            assert file.read_bytes() == before
            assert list(tmp_path.glob("*/blobs/*")) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    commit(spool, document(key_of("two"), output={"fc2": large_array(0)}))
    assert records(tmp_path) == 2


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    spool = SpoolStore(tmp_path / "file" / "spool")
    with pytest.raises(StoreError, match=r"Not a directory.*ESEN_FLOWS_SPOOL_DIR"):
        commit(spool, document(KEY))


WRITER = """
import sys
import warnings
from pathlib import Path
from esen_flows.store.exchange.spool_store import SpoolStore
from result_documents import document, key_of, large_array
from whole_store import fields_of
spool = SpoolStore(Path(sys.argv[1]))
for n in range(10**6):
    fields = fields_of("relax", key_of("silicon"), key_of("silicon"), f"{sys.argv[2]} {n}")
    key = fields["key"]
    spool.commit(spool.get_or_claim(key), document(**fields, output={"fc2": large_array(n, 0.3)}))
    print(key, flush=True)
"""


@pytest.mark.mongod
def test_what_was_acknowledged_before_a_kill_is_merged(store: Store, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    acknowledged = []
    for turn in range(3):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(turn)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        lines = [writer.stdout.readline() for _ in range(3 + turn)]
        writer.kill()
        lines += writer.communicate()[0].splitlines(keepends=True)
        acknowledged += [line.strip() for line in lines if line.endswith("\n")]
    assert ingest(store, tmp_path).damaged == ()
    for key in acknowledged:
        found = store.get(key)  # checks every checksum
        assert found is not None


@pytest.mark.mongod
def test_a_run_that_loses_its_server_waits_and_then_spools(
    embedded_settings: Settings, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection of an open store is replaced by one to a port where no server listens."""
    folder = embedded_settings.data_dir / "lost"
    changes = {"database": store.database.database_name, "spool_dir": folder, "spool_after_seconds": 1.0}
    settings = embedded_settings.model_copy(update=changes)
    running = open_store(settings)
    keys = [key_of(name) for name in ("one", "two", "three")]
    claims = [claimed(running, key) for key in keys]
    database = running.database
    server, database._client = (
        database._client,
        type(database._client)("mongodb://127.0.0.1:9/", serverSelectionTimeoutMS=50),
    )
    lease, database.lease, database.timeout_seconds = database.lease, None, 0.2
    kept = running.commit(claims[0], document(keys[0], output={"fc2": large_array(0)}))
    assert kept.output is not None
    running.commit(claims[1], document(keys[1]))
    running.release(claims[2])  # no more than a claim that will expire
    assert records(folder) == 2
    said = [record.getMessage() for record in caplog.records if record.name == "esen_flows.store.spool_fallback"]
    assert said[0] == "the database server is away; waiting 1 s for it to come back"
    assert [f"result {key} is kept in {folder}/" in text for key, text in zip(keys, said[1:], strict=False)] == [
        True
    ] * 2
    database._client, database.lease, database.timeout_seconds = server, lease, 15.0
    assert ingest(running, folder).counts == {"new": 2}
    found = output_of(running, keys[0])
    np.testing.assert_array_equal(found["fc2"], large_array(0))
    assert commit(running, document(key_of("back"))).attempt == 0
    assert records(folder) == 2
    running.close()

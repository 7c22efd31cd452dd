"""Users of a server, read-only opening, and a password that is shown nowhere."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from bson import json_util
from foreign_flow import run_foreign_flow
from pymongo.errors import PyMongoError
from replica_set import DATABASE, PASSWORD, ReplicaSet
from result_documents import KEY, claimed, document, key_of, large_array

from esen_flows.errors import InputError, StoreError
from esen_flows.settings import Settings, get_settings
from esen_flows.store.claims import Claim
from esen_flows.store.connection import open_store
from esen_flows.store.jobflow_files import write_jobflow_files
from esen_flows.store.queries.query import query
from esen_flows.store.results import Store
from esen_flows.store.server.mongod import find_mongod
from esen_flows.store.upkeep.maintenance import collect_garbage, size
from esen_flows.store.upkeep.verify import verify


class ServerWithUsers(ReplicaSet):
    """A replica set with settings of its users."""

    def settings(self, uri: str, **changes: object) -> Settings:
        """Settings as they would come from the environment."""
        base = {"mongo_uri": uri, "data_dir": self.folder / "user", "database": DATABASE, "server_timeout_seconds": 10}
        return Settings(**base | changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, embedded_settings: Settings) -> Iterator[ServerWithUsers]:
    """A replica set with users."""
    started = ServerWithUsers(tmp_path_factory.mktemp("g"), find_mongod(embedded_settings.mongod).binary)
    yield started
    started.kill()


def fill(store: Store) -> None:
    claim = store.get_or_claim(KEY)
    if isinstance(claim, Claim):
        store.commit(claim, document(KEY, output={"fc2": large_array(0)}))


@pytest.mark.mongod
def test_a_replica_set_with_users_stores_results(server: ServerWithUsers) -> None:
    store = open_store(server.settings(server.writer))
    fill(store)
    assert store.get(KEY) is not None
    assert store.database["results"].write_concern.document == {"j": True, "w": "majority"}
    chunk = store.claim_many([KEY, key_of("two")])
    assert len(chunk.claims) == 1
    store.release_many(chunk.claims)
    store.close()


@pytest.mark.mongod
def test_a_user_who_may_only_read(server: ServerWithUsers) -> None:
    writing = open_store(server.settings(server.writer))
    fill(writing)
    writing.close()
    with pytest.raises(StoreError, match=r"may not do this in 'guarded'.*readWrite.*set ESEN_FLOWS_READ_ONLY=1"):
        open_store(server.settings(server.reader))
    reading = open_store(server.settings(server.reader, read_only=True))
    assert reading.get(KEY) is not None
    assert not isinstance(reading.get_or_claim(KEY), Claim)
    assert len(query(reading, "relax", where="converged or nsites > 0")) >= 1
    assert {one.name for one in size(reading.database)} >= {"results", "blobs"}
    assert verify(reading).checked["results"] >= 1
    assert collect_garbage(reading, apply=False).blobs == 0
    reading.close()


@pytest.mark.mongod
def test_wrong_credentials(server: ServerWithUsers) -> None:
    wrong = server.writer.replace(quote(PASSWORD, safe=""), "falsch")
    with pytest.raises(StoreError, match="refuses the credentials of ESEN_FLOWS_MONGO_URI") as caught:
        open_store(server.settings(wrong))
    assert "falsch" not in repr(caught.value)


@pytest.mark.mongod
def test_tls_through_the_uri(server: ServerWithUsers) -> None:
    store = open_store(server.settings(f"{server.writer}&tls=true&tlsCAFile={quote(str(server.folder / 'ca.pem'))}"))
    fill(store)
    store.release(claimed(store, key_of("tls")))
    status = store.database.call(lambda: store.database._client.admin.command("connectionStatus"))
    assert status["authInfo"]["authenticatedUsers"] == [{"user": "writer", "db": "admin"}]
    store.close()
    unsigned = server.settings(f"{server.writer}&tls=true", server_timeout_seconds=1)
    with pytest.raises(StoreError, match="CERTIFICATE_VERIFY_FAILED"):
        open_store(unsigned)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("tls=true&tlsCAFile=/nowhere.pem", r"TLS file .* cannot be used: /nowhere\.pem \(No such file"),
        ("tls=maybe", "not a valid MongoDB URI"),  # pymongo would connect without TLS
        ("tsl=true", "not a valid MongoDB URI"),
    ],
)
def test_wrong_tls_options_are_refused_before_a_password_is_sent(options: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        open_store(Settings(mongo_uri=f"mongodb://ann:geheim@127.0.0.1:9/?{options}", data_dir=tmp_path))
    assert "geheim" not in str(caught.value)


@pytest.mark.mongod
def test_read_only_refuses_every_write(store: Store, embedded_settings: Settings) -> None:
    fill(store)
    changes = {"database": store.database.database_name, "read_only": True}
    reading = open_store(embedded_settings.model_copy(update=changes))
    assert reading.get(KEY) is not None
    assert not isinstance(reading.get_or_claim(KEY), Claim)
    assert reading.database["results"].count_documents({}) == 1
    assert list(reading.database["results"].aggregate([{"$match": {}}, {"$project": {"_id": 1}}])) != []
    from ase.build import bulk

    results = reading.database["results"]
    writes = {
        "get_or_claim": lambda: reading.get_or_claim(key_of("two")),
        "claim_many": lambda: reading.claim_many([key_of("two")]),
        "put_structure": lambda: reading.put_structure(bulk("Si")),
        "insert": lambda: results.insert_one({}),
        "delete": lambda: results.delete_many({}),
        "out": lambda: results.aggregate([{"$out": "elsewhere"}]),
        "drop": reading.database.drop,
    }
    for name, write in writes.items():
        with pytest.raises(StoreError, match=r"ESEN_FLOWS_READ_ONLY is set, so nothing is written"):
            pytest.fail(f"{name} wrote {write()}")
    assert store.database["results"].count_documents({}) == 1
    assert store.database["claims"].count_documents({}) == 0
    reading.close()


def test_a_missing_server(tmp_path: Path) -> None:
    settings = Settings(mongo_uri="mongodb://127.0.0.1:9/", data_dir=tmp_path, server_timeout_seconds=0.2)
    with pytest.raises(StoreError, match=r"does not answer .*; or compute without a server: ESEN_FLOWS_SPOOL=1"):
        open_store(settings)


def test_read_only_and_spool_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ESEN_FLOWS_SPOOL and ESEN_FLOWS_READ_ONLY are both set"):
        open_store(Settings(mongo_uri=None, data_dir=tmp_path, read_only=True, spool=True))


@pytest.fixture
def uri_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Private file with a URI, named by the environment."""
    file = tmp_path / "uri"
    file.write_text(f"mongodb://ann:{quote(PASSWORD, safe='')}@127.0.0.1:9/\n")
    file.chmod(0o600)
    monkeypatch.delenv("ESEN_FLOWS_MONGO_URI", raising=False)
    monkeypatch.setenv("ESEN_FLOWS_MONGO_URI_FILE", str(file))
    get_settings.cache_clear()
    yield file
    get_settings.cache_clear()


def test_the_uri_from_a_private_file(uri_file: Path) -> None:
    settings = get_settings()
    assert settings.mongo_uri is not None
    assert settings.mongo_uri.get_secret_value() == uri_file.read_text().strip()
    assert "geheim" not in repr(settings) + settings.model_dump_json()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_file_that_others_can_read_is_refused(uri_file: Path, mode: int) -> None:
    uri_file.chmod(mode)
    with pytest.raises(InputError, match=rf"MONGO_URI_FILE .* \(mode 0{mode:o}\); run: chmod 600 ") as caught:
        get_settings()
    assert_no_password(caught)


def test_a_file_that_cannot_be_used(uri_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in ("", f"mongodb://ann:{PASSWORD}@h\nmongodb://ann:{PASSWORD}@i"):
        uri_file.write_text(content)
        with pytest.raises(InputError, match="must hold one line") as caught:
            get_settings()
        assert_no_password(caught)
    monkeypatch.setenv("ESEN_FLOWS_MONGO_URI", f"mongodb://ann:{PASSWORD}@h")
    with pytest.raises(InputError, match="are both set; unset one") as caught:
        get_settings()
    assert_no_password(caught)
    monkeypatch.delenv("ESEN_FLOWS_MONGO_URI")
    uri_file.unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        get_settings()


def assert_no_password(caught: "pytest.ExceptionInfo[Exception]") -> None:
    """Check that neither the message nor the errors below it, which a traceback prints, show the password."""
    error: BaseException | None = caught.value
    while error is not None:
        assert "geheim" not in str(error) + repr(error)
        error = error.__cause__ or error.__context__


ALL_COMMANDS = """
from esen_flows.cli.app import main
for words in ("doctor", "db status", "query relax", "show 0123456789", "db start"):
    try:
        main(words.split())
    except SystemExit:
        pass
"""


@pytest.mark.mongod
def test_the_password_is_shown_nowhere(
    server: ServerWithUsers, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in documents, logs, the spool, output of `doctor` and `db status`, or arguments of processes."""
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "uri"
    file.write_text(server.writer)
    file.chmod(0o600)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ESEN_FLOWS_")}
    environment |= {"ESEN_FLOWS_MONGO_URI_FILE": str(file), "ESEN_FLOWS_DATABASE": "guarded"}
    environment |= {"ESEN_FLOWS_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-c", ALL_COMMANDS], capture_output=True, text=True, env=environment, timeout=600, check=True
    )
    texts = [done.stdout + done.stderr]
    assert "ESEN_FLOWS_MONGO_URI is set, so there is no private server to start" in texts[0]
    settings = server.settings(server.writer, spool_dir=tmp_path / "spool", spool_after_seconds=0.0)
    store = open_store(settings)
    claim = claimed(store, key_of("secret"))
    heartbeat = store._claims.heartbeat_pid
    texts += [Path(f"/proc/{heartbeat}/{name}").read_text() for name in ("cmdline", "environ")]
    monkeypatch.setattr(store.database, "call", away)
    store.commit(claim, document(key_of("secret")))
    monkeypatch.undo()
    for name in ("results", "claims", "structures", "blobs"):
        rows = list(store.database["results" if name == "blobs" else name].find())
        texts.append(json_util.dumps(rows) + json.dumps([str(row) for row in rows]))
    store.close()
    texts += [path.read_text() for path in (tmp_path / "spool").rglob("*") if path.is_file()]
    texts += [(server.folder / "log").read_text(), caplog.text, repr(settings), repr(store.database)]
    for secret in (PASSWORD, quote(PASSWORD, safe=""), "geheim"):
        assert [text[:200] for text in texts if secret in text] == []
    assert any("secret" in text or key_of("secret") in text for text in texts)


@pytest.mark.mongod
def test_the_password_is_in_no_specification(
    server: ServerWithUsers, tmp_path: Path, header_only_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in what FireWorks stores and writes for other Makers, nor in a workflow of our own Makers."""
    from ase.build import bulk
    from jobflow.managers.fireworks import flow_to_workflow

    from esen_flows.makers.relax import RelaxMaker

    store = open_store(server.settings(server.writer))
    settings = write_jobflow_files(store.database, tmp_path)
    assert run_foreign_flow(tmp_path)["states"] == ["COMPLETED"] * 4
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path not in settings]
    texts = [path.read_text(errors="replace") for path in files]  # compiled Python is among them
    assert any("foreign_job" in text and "_fw_name" in text for text in texts)  # a job in its launch folder
    names = store.database.collection_names()
    assert {"fireworks", "launches", "workflows", "jobs", "data.files"} <= set(names)
    texts += [json_util.dumps(list(store.database[name].find())) for name in names if name != "data.chunks"]
    store.close()
    monkeypatch.setenv("ESEN_FLOWS_MONGO_URI", server.writer)
    get_settings.cache_clear()
    maker = RelaxMaker(force_field_name=str(header_only_checkpoint))
    texts.append(json.dumps(flow_to_workflow(maker.make(bulk("Si"))).to_dict(), default=str))
    assert "relax_job" in texts[-1]
    get_settings.cache_clear()
    for secret in (PASSWORD, quote(PASSWORD, safe=""), "geheim"):
        assert [text[:200] for text in texts if secret in text] == []


def away(operation: object) -> None:
    from esen_flows.errors import ServerUnavailableError

    raise ServerUnavailableError("away") from PyMongoError("away")

"""The connection survives kills of the server, waits for the journal, and does not show the password."""

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pymongo.errors import OperationFailure, ServerSelectionTimeoutError, WriteError

from esen_flows.errors import ServerUnavailableError, StoreError
from esen_flows.settings import Settings
from esen_flows.store.database import INDEXES, Database, connect

if TYPE_CHECKING:
    from esen_flows.store.results import Store

PASSWORD = "geheim%40wort"


@pytest.mark.mongod
def test_every_write_is_in_the_journal(store: "Store") -> None:
    concern = store.database["results"].write_concern.document
    assert concern == {"j": True, "w": "majority"}


def test_a_uri_keeps_its_own_number_of_copies_but_not_its_journal() -> None:
    database = Database("mongodb://nowhere:1/?w=2&journal=false", "x", 0.1)
    assert database["results"].write_concern.document == {"j": True, "w": 2}
    database.close()


@pytest.mark.mongod
def test_indexes_are_created_once(store: "Store") -> None:
    before = {name: store.database[name].index_information() for name in INDEXES}
    store.database.make_indexes()
    assert {name: store.database[name].index_information() for name in INDEXES} == before
    current = before["results"]["one_current"]
    assert current["unique"]
    assert current["partialFilterExpression"] == {"current": True}
    assert before["results"]["key_attempt"]["unique"]


@pytest.mark.mongod
@pytest.mark.parametrize("victim", ["mongod_pid", "keeper_pid"])
def test_operations_survive_a_kill(embedded_settings: Settings, tmp_path: Path, victim: str) -> None:
    from esen_flows.store.server import embedded

    settings = embedded_settings.model_copy(update={"data_dir": tmp_path})
    database = connect(settings)
    database.call(lambda: database["results"].insert_one({"_id": "before"}))
    os.kill(embedded.status(settings)[victim], signal.SIGKILL)
    if victim == "keeper_pid":
        time.sleep(0.5)  # until mongod has ended with it
    database.call(lambda: database["results"].insert_one({"_id": "after"}))
    assert database.call(lambda: database["results"].distinct("_id")) == ["after", "before"]
    database.close()
    embedded.stop(settings)


@pytest.mark.mongod
def test_a_server_with_a_uri_is_not_started(embedded_settings: Settings, store: "Store") -> None:
    """The same server by its URI, without a lease."""
    settings = Settings(mongo_uri=store.database.uri, database="by_uri")
    database = connect(settings)
    assert database.lease is None
    database.call(lambda: database["x"].insert_one({"_id": 1}))
    database.drop()
    database.close()


def test_a_replica_set_that_has_not_read_its_signing_keys_is_asked_again() -> None:
    database = Database("mongodb://127.0.0.1:9/", "x", 30.0)
    refusals = [OperationFailure("No keys found for HMAC that is valid for time", 211)] * 2

    def operation() -> str:
        if refusals:
            raise refusals.pop()
        return "stored"

    assert database.call(operation) == "stored"
    database.timeout_seconds = 0.0
    refusals.append(OperationFailure("No keys found for HMAC that is valid for time", 211))
    with pytest.raises(StoreError, match="refuses: No keys found"):
        database.call(operation)
    database.close()


def test_a_server_that_does_not_answer() -> None:
    database = Database(f"mongodb://ann:{PASSWORD}@127.0.0.1:9/", "x", 0.3)
    with pytest.raises(
        ServerUnavailableError, match=r"does not answer.*127\.0\.0\.1:9.*ESEN_FLOWS_MONGO_URI"
    ) as caught:
        database.call(lambda: database["x"].find_one())
    assert_no_secret(caught)
    database.close()


@pytest.mark.parametrize(
    "uri",
    [f"mongodb://ann:{PASSWORD}@host:port/", f"nonsense://ann:{PASSWORD}@host", "mongodb://ann:geheim@wort@host/"],
)
def test_an_invalid_uri_is_not_shown(uri: str) -> None:
    with pytest.raises(StoreError, match="not a valid MongoDB URI") as caught:
        connect(Settings(mongo_uri=uri))
    assert_no_secret(caught)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (18, "refuses the credentials"),
        (13, r"may not do this in 'x': it needs the role readWrite"),
        (2, "refuses: bad"),
    ],
)
def test_refusals(code: int, message: str) -> None:
    database = Database(f"mongodb://ann:{PASSWORD}@127.0.0.1:9/", "x", 0.3)

    def refused() -> None:
        raise OperationFailure(f"bad {PASSWORD} geheim@wort", code)

    with pytest.raises(StoreError, match=message) as caught:
        database.call(refused)
    assert_no_secret(caught)
    database.close()


def assert_no_secret(caught: "pytest.ExceptionInfo[Exception]") -> None:
    error: BaseException | None = caught.value
    assert error is not None
    shown = str(error) + repr(error)
    assert error.__suppress_context__  # the message of pymongo is not printed below it either
    for secret in (PASSWORD, "geheim"):
        assert secret not in shown


def test_operations_are_repeated_until_the_timeout() -> None:
    database = Database("mongodb://127.0.0.1:9/", "x", 0.5)
    calls: list[float] = []

    def away() -> str:
        calls.append(time.monotonic())
        if len(calls) < 3:
            raise ServerSelectionTimeoutError("away")
        if len(calls) < 4:  # while mongod ends, seen when it was killed under load
            raise WriteError("The storage catalog is being closed.", 91)
        return "back"

    assert database.call(away) == "back"
    assert len(calls) == 4

    def gone() -> None:
        raise ServerSelectionTimeoutError("away")

    began = time.monotonic()
    with pytest.raises(ServerUnavailableError):
        database.call(gone)
    assert time.monotonic() - began > 0.5
    database.close()

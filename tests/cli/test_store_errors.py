"""Errors of the database end a command with one line that says what to do; nothing is half-written."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from ase.io import write

from esen_flows.cli.app import main
from esen_flows.settings import get_settings
from esen_flows.store.host import Host
from esen_flows.store.server.layout import Layout, Owner

Refused = Callable[..., str]
COMMANDS = (("query", "relax"), ("show", "0123abcd"), ("db", "verify"), ("db", "export", "all.tar"))


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Function that sets ESEN_FLOWS_* variables; the working folder is empty."""
    monkeypatch.chdir(tmp_path)

    def change(**variables: str | Path) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"ESEN_FLOWS_{name.upper()}", str(value))
        get_settings.cache_clear()

    monkeypatch.delenv("ESEN_FLOWS_MONGO_URI", raising=False)
    change(data_dir=tmp_path / "data", server_timeout_seconds="0.2")
    yield change
    get_settings.cache_clear()


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Function that runs a command which has to fail with one line on stderr alone, and returns that line."""

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert caught.value.code == 1
        assert captured.out == ""
        assert captured.err.startswith("esen-flows: ")
        assert captured.err.count("\n") == 1
        return captured.err

    return run


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_server_down(command: tuple[str, ...], environment: Any, refused: Refused, tmp_path: Path) -> None:
    environment(mongo_uri="mongodb://ann:geheim@127.0.0.1:9/")
    message = refused(*command)
    assert "does not answer (127.0.0.1:9: [Errno 111] Connection refused); check that" in message
    assert "ESEN_FLOWS_MONGO_URI names it" in message
    assert "geheim" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "a/b", "$where", "a.b", "x" * 64])
def test_an_invalid_database_name(name: str, environment: Any, refused: Refused, tmp_path: Path) -> None:
    environment(database=name)
    assert f"ESEN_FLOWS_DATABASE is {name!r}; a database's name has 1 to 63 letters" in refused("query", "relax")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_another_host_has_the_data(
    command: tuple[str, ...], environment: Any, refused: Refused, tmp_path: Path
) -> None:
    layout = Layout.of(tmp_path / "data")
    layout.root.mkdir(parents=True)
    theirs = replace(Host().process(), host="node17", boot_id="another")
    Owner("ready", theirs, theirs, "mongod", "6.0.5", "/tmp/x", "2026-11-21T10:00:00+00:00").write(layout)
    message = refused(*command)
    assert "in use by a server on node17" in message
    assert "use another ESEN_FLOWS_DATA_DIR" in message
    assert [path.name for path in layout.root.iterdir()] == ["owner.json"]


@pytest.mark.mongod
def test_a_socket_path_that_is_too_long(
    environment: Any, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded_settings: object
) -> None:
    runtime = tmp_path / ("r" * 90)
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    message = refused("query", "relax")
    assert "but a socket address holds 107; point XDG_RUNTIME_DIR to a shorter folder" in message
    assert list(runtime.iterdir()) == []


@pytest.mark.mongod
def test_documents_of_a_newer_version(
    copper: Any, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write("Cu.cif", bulk("Cu", "fcc", a=3.6, cubic=True))
    relax = ("relax", "Cu.cif", "--model", copper.checkpoint, "--output", "out")
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in relax])
    assert not caught.value.code
    key = copper.store.database["results"].find_one({})["key"]
    changes = {
        "has schema version 99, newer than 1; upgrade esen_flows": {"schema_version": 99},
        "is not as this version of esen_flows writes it (kind: ": {"schema_version": 1, "kind": "superconductivity"},
        "is not as this version of esen_flows writes it (mood: ": {"kind": "relax", "mood": "good"},
    }
    for words, change in changes.items():
        copper.store.database["results"].update_one({}, {"$set": change})
        row = copper.store.database["results"].find_one({})
        requests = [("show", key)]
        if change.get("kind") != "superconductivity":  # else no query asks for it
            requests += [("query", "relax"), ("query", "relax", "--format", "csv", "--output", "file.csv")]
        for request in requests:
            message = refused(*request)
            assert words in message
            assert key in message
        assert copper.store.database["results"].find_one({}) == row
        assert not Path("file.csv").exists()

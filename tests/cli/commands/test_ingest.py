"""`esen-flows db ingest`: a relaxation computed without a server ends up in the database, once."""

from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from ase.io import write

from esen_flows.cli.app import main
from esen_flows.settings import get_settings

pytestmark = pytest.mark.mongod


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def test_computed_without_a_server_then_merged(
    copper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write("Cu.cif", bulk("Cu", "fcc", a=3.6, cubic=True))
    relax = ("relax", "Cu.cif", "--model", copper.checkpoint)
    monkeypatch.setenv("ESEN_FLOWS_SPOOL_DIR", "spool")
    monkeypatch.setenv("ESEN_FLOWS_SPOOL", "1")
    get_settings.cache_clear()
    assert run(*relax) == 0
    computed = copper.force_field.force_evaluations
    assert computed > 0
    assert run(*relax) == 0  # known from the spool
    assert run("query", "relax") == 1
    assert "ESEN_FLOWS_SPOOL is set" in capsys.readouterr().err
    assert copper.store.database["results"].count_documents({}) == 0

    monkeypatch.delenv("ESEN_FLOWS_SPOOL")
    get_settings.cache_clear()
    assert run("db", "ingest", "spool") == 0
    assert "1 results added, 0 were stored already; 1 structures" in capsys.readouterr().out
    assert run("db", "ingest", "spool") == 0
    assert "0 results added, 1 were stored already" in capsys.readouterr().out
    assert run(*relax) == 0
    assert copper.force_field.force_evaluations == computed
    assert copper.store.database["results"].count_documents({}) == 1

    (file,) = Path("spool").glob("*/records.jsonl")
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    assert run("db", "ingest", "spool") == 0
    assert f"cut off: {file} at byte " in capsys.readouterr().err
    file.write_bytes(whole.replace(b"Cu", b"Ag", 1))
    assert run("db", "ingest", "spool") == 1
    assert "1 damaged records were not added, all others were" in capsys.readouterr().err
    assert run("db", "ingest", "nowhere") == 1
    assert "no spool in nowhere" in capsys.readouterr().err

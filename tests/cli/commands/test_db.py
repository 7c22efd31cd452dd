"""`esen-flows db`: looking after the database from the command line."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from ase.io import write
from bson import ObjectId
from command_line import run

from esen_flows.settings import get_settings
from esen_flows.store.exchange.archive import Archive

pytestmark = [pytest.mark.mongod, pytest.mark.usefixtures("quick_figures")]


@pytest.fixture
def folder(copper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a relaxation in the store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    write(tmp_path / "Cu.cif", bulk("Cu", "fcc", a=3.6, cubic=True))
    assert run("relax", "Cu.cif", "--model", copper.checkpoint, "--output", "out") == 0
    return tmp_path


def test_export_and_import_restore_a_real_result(
    copper: Any, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esen_flows.store.blobs.INLINE_LIMIT_BYTES", 200_000)  # less than these third-order constants
    options = ["--set", "displacement.fc2_supercell=3,3,3", "--set", "displacement.fc3_supercell=2,2,2"]
    mesh = ["--set", "mesh=5,5,5", "--set", "relax.fmax_ev_per_angstrom=0.01", "--output", "kappa"]
    assert run("kappa", "Cu.cif", "--model", copper.checkpoint, *options, *mesh) == 0
    capsys.readouterr()
    database = copper.store.database
    before, models = list(database["results"].find().sort("_id")), list(database["models"].find())
    assert run("db", "verify") == 0
    assert capsys.readouterr().out == "4 results, 1 structures, 1 arrays: no problems\n"
    assert run("db", "export", "all.tar") == 0
    assert run("db", "export", "some.tar", "--kind", "relax", "--elements", "Cu", "--where", "nsites == 4") == 0
    assert run("db", "export", "none.tar", "--kind", "phonon") == 0
    assert run("db", "export", "kappa.tar", "--kind", "kappa") == 0
    out = capsys.readouterr().out
    assert "4 results, 1 structures, 1 large arrays in all.tar" in out
    assert "2 results, 1 structures, 0 large arrays in some.tar" in out
    assert "0 results, 0 structures, 0 large arrays in none.tar" in out
    assert "3 results, 1 structures, 1 large arrays in kappa.tar" in out  # with its relaxation and its forces
    for collection in ("results", "structures", "models", "blobs", "blob_chunks"):
        database[collection].delete_many({})
    for file, added in (("some.tar", (2, 1, 0)), ("kappa.tar", (2, 0, 1)), ("all.tar", (0, 0, 0))):
        assert run("db", "import", file) == 0
        assert "added {} results, {} structures, {} large arrays".format(*added) in capsys.readouterr().out
    assert list(database["results"].find().sort("_id")) == before
    assert list(database["models"].find()) == models
    assert run("db", "verify") == 0


def test_a_campaign_is_one_archive(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All kinds of its results, and nothing of others."""
    results = copper.store.database["results"]
    relax = results.find_one({})
    results.update_one({}, {"$set": {"tags": ["oxides", "tests"]}})
    phonon = {**relax, "_id": ObjectId(), "kind": "phonon", "key": "ab" * 32, "tags": ["oxides"], "output": None}
    results.insert_many([phonon, {**phonon, "_id": ObjectId(), "key": "cd" * 32, "tags": ["nitrides"]}])
    capsys.readouterr()
    assert run("db", "export", "oxides.tar", "--campaign", "oxides") == 0
    assert "2 results, 1 structures, 0 large arrays in oxides.tar" in capsys.readouterr().out
    assert run("db", "export", "tests.tar", "--campaign", "tests", "--formula", "Cu") == 0
    assert "1 results, 1 structures" in capsys.readouterr().out
    with Archive(folder / "oxides.tar") as archive:
        assert {row["key"] for row in archive.rows("results")} == {relax["key"], "ab" * 32}


def test_bad_archives_and_filters(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("db", "export", "all.tar", "--where", "nsites < 5") == 1
    assert "say which results --where is about: --kind relax" in capsys.readouterr().err
    assert run("db", "export", "all.tar", "--formula", "Cux") == 1
    assert "not a chemical formula: 'Cux'" in capsys.readouterr().err
    assert run("db", "export", "all.tar", "--kind", "nonsense") == 1
    assert "unknown kind of result 'nonsense'" in capsys.readouterr().err
    assert not (folder / "all.tar").exists()
    assert run("db", "export", "all.tar") == 0
    assert run("db", "export", "all.tar") == 1
    assert "all.tar exists; give the archive another name" in capsys.readouterr().err
    assert run("db", "export", "absent/all.tar") == 1
    assert "absent" in capsys.readouterr().err
    assert run("db", "import", "absent.tar") == 1
    assert "there is no file absent.tar" in capsys.readouterr().err
    assert run("db", "import", "Cu.cif") == 1
    assert "Cu.cif is not an archive of `esen-flows db export`" in capsys.readouterr().err


def test_damage_is_an_exit_code(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    copper.store.database["structures"].delete_many({})
    assert run("db", "verify") == 1
    assert "2 problems in 1 results, 0 structures, 0 arrays:" in capsys.readouterr().err


def test_gc_and_migrate_only_count_without_apply(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = copper.store.database["results"]
    row = results.find_one({})
    results.insert_one({**row, "_id": "old", "attempt": 1, "current": False})
    capsys.readouterr()
    assert run("db", "gc") == 0
    out = capsys.readouterr().out
    assert "would remove 1 superseded attempts, 0 arrays (0.00 MB), 0 pieces" in out
    assert "nothing was changed; to remove them: esen-flows db gc --apply" in out
    assert results.count_documents({}) == 2
    assert run("db", "gc", "--apply") == 0
    assert capsys.readouterr().out.startswith("removed 1 superseded attempts")
    assert [found["_id"] for found in results.find()] == [row["_id"]]

    assert run("db", "migrate") == 0
    assert capsys.readouterr().out == "".join(
        f"{name}: {count} of the current version\n"
        for name, count in {"results": 1, "structures": 1, "models": 1, "datasets": 0}.items()
    )
    results.update_one({}, {"$set": {"schema_version": 99}})
    assert run("db", "migrate", "--apply") == 1
    assert "1 documents were written by a newer version of esen_flows and left alone" in capsys.readouterr().err


def test_migration_from_the_command_line(
    copper: Any, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from esen_flows.store import migrations

    monkeypatch.setattr(migrations, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(migrations, "MIGRATIONS", {"results": {1: lambda row: row | {"model_label": "renamed"}}})
    capsys.readouterr()
    assert run("db", "migrate") == 0
    out = capsys.readouterr().out
    assert "results: 0 of the current version, 1 of version 1" in out
    assert "to rewrite them: esen-flows db migrate --apply" in out
    assert copper.store.database["results"].find_one({})["model_label"] == "emt"
    assert run("db", "migrate", "--apply") == 0
    assert "  1 rewritten" in capsys.readouterr().out
    assert copper.store.database["results"].find_one({})["model_label"] == "renamed"


def test_size(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("db", "size") == 0
    out = capsys.readouterr().out
    assert "structures" in out
    assert "MB on disk with indexes" in out


def test_init_writes_private_files(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("db", "init", "settings") == 0
    out = capsys.readouterr().out
    assert f"export JOBFLOW_CONFIG_FILE={folder}/settings/jobflow.yaml" in out
    assert "ESEN_FLOWS_MONGOD_IDLE_SECONDS=86400 esen-flows db start" in out
    names = os.listdir(folder / "settings")
    assert sorted(names) == ["jobflow.yaml", "my_fworker.yaml", "my_launchpad.yaml"]
    for name in names:
        assert stat.S_IMODE((folder / "settings" / name).stat().st_mode) == 0o600
    assert run("db", "init", "settings") == 1
    assert "jobflow.yaml exists; remove it, or give another folder" in capsys.readouterr().err


def test_commands_that_only_read_work_read_only(
    copper: Any, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESEN_FLOWS_READ_ONLY", "1")
    get_settings.cache_clear()
    for command in (("size",), ("gc",), ("verify",), ("migrate",), ("export", "all.tar")):
        assert run("db", *command) == 0
    capsys.readouterr()
    copper.store.database["results"].update_one({}, {"$set": {"current": False}})
    copper.store.database["results"].insert_one(
        {**copper.store.database["results"].find_one({}), "_id": "new", "attempt": 1, "current": True}
    )
    assert run("db", "gc", "--apply") == 1
    assert "ESEN_FLOWS_READ_ONLY is set" in capsys.readouterr().err
    assert copper.store.database["results"].count_documents({}) == 2


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

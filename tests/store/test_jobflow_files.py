"""The files of `db init` work in jobflow and FireWorks, and other users cannot read them."""

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from foreign_flow import run_foreign_flow

from esen_flows.errors import InputError
from esen_flows.store.database import Database
from esen_flows.store.jobflow_files import write_jobflow_files

if TYPE_CHECKING:
    from esen_flows.store.results import Store

PASSWORD = "geheim%40wort"
URI = f"mongodb://ann:{PASSWORD}@db.example.org:27018/?authSource=admin&tls=true"


@pytest.fixture
def remote() -> Database:
    """A server that is not contacted."""
    return Database(URI, "group", 1.0)


def test_the_files_hold_the_settings_and_are_private(remote: Database, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        paths = write_jobflow_files(remote, tmp_path / "new" / "folder")
    finally:
        os.umask(before)
    assert [path.name for path in paths] == ["jobflow.yaml", "my_launchpad.yaml", "my_fworker.yaml"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    jobflow, launchpad, worker = (yaml.safe_load(path.read_text()) for path in paths)
    docs, data = jobflow["JOB_STORE"]["docs_store"], jobflow["JOB_STORE"]["additional_stores"]["data"]
    assert docs["@class"] == "LargeDocumentJobStore"
    assert data["@class"] == "GridFSStore"
    for where in (docs, data):
        assert (where["uri"], where["database"]) == (URI, "group")
        assert where["mongoclient_kwargs"] == {"journal": True, "w": "majority", "serverSelectionTimeoutMS": 1000}
    assert (launchpad["host"], launchpad["name"], launchpad["uri_mode"]) == (URI, "group", True)
    assert worker["category"] == ""
    assert "&id" not in paths[0].read_text()


@pytest.mark.parametrize("name", ["jobflow.yaml", "my_launchpad.yaml", "my_fworker.yaml"])
def test_an_existing_file_is_kept_and_no_file_is_half_written(remote: Database, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=rf"{name} exists; remove it, or give another folder"):
        write_jobflow_files(remote, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_link_is_not_followed(remote: Database, tmp_path: Path) -> None:
    (tmp_path / "jobflow.yaml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="exists"):
        write_jobflow_files(remote, tmp_path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.mongod
def test_jobs_of_other_packages_are_stored_in_the_same_database(store: "Store", tmp_path: Path) -> None:
    write_jobflow_files(store.database, tmp_path)
    assert run_foreign_flow(tmp_path) == {
        "states": ["COMPLETED"] * 4,
        "total": 22,
        "unlisted": 18,
        "torch": False,
    }
    database = store.database
    assert database["jobs"].count_documents({}) == 4
    files = list(database["data.files"].find())
    assert len(files) == 3
    assert all(file["length"] > 16 * 2**20 for file in files)  # more than a document could hold
    (mixed,) = database["jobs"].find({"output.n": 7})
    assert mixed["output"]["blob"]["store"] == "data"  # the small part stays in the document, for queries
    assert database["fireworks"].count_documents({}) == 4
    for name in ("fireworks", "launches", "workflows"):
        assert all("mongodb://" not in repr(row) for row in database[name].find())

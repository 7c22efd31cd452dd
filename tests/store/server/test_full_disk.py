"""A full disk is said as such, leaves no empty files, and the spool goes to another disk."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bson import ObjectId
from cli.command_line import run
from result_documents import key_of

from esen_flows.errors import ServerUnavailableError, StoreError
from esen_flows.files import free_bytes, is_full_disk
from esen_flows.settings import get_settings
from esen_flows.store.exchange.spool import SpoolWriter, read_records, spool_files
from esen_flows.store.host import Host
from esen_flows.store.server import layout as server_layout
from esen_flows.store.server.keeper import Keeper
from esen_flows.store.server.layout import Layout, Owner, full_disk, make_private

MEGABYTE = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def row(name: str) -> dict[str, Any]:
    return {"_id": ObjectId(), "key": key_of(name), "failure": None}


def kept(folder: Path) -> list[str]:
    """Keys of the results in the spools of a folder."""
    found = [record.content for file in spool_files(folder) for record in read_records(file)]
    return [content["row"]["key"] for content in found if content is not None]


def test_a_spool_goes_on_on_another_disk(small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = SpoolWriter(small_disk / "spool", elsewhere=[small_disk / "again", tmp_path / "elsewhere"])
    arrays = [np.arange(MEGABYTE // 8) + number for number in range(3)]
    for number, array in enumerate(arrays):
        writer.keep(row(f"r{number}"), {f"{number:064x}": array}, forced=False)
    writer.close()
    assert kept(small_disk / "spool") == [key_of("r0")]
    assert kept(tmp_path / "elsewhere") == [key_of("r1"), key_of("r2")]
    assert "results go into" in caplog.text
    assert [path for path in small_disk.rglob("*") if path.is_file() and path.stat().st_size == 0] == []


def test_a_spool_whose_disk_is_full_from_the_start_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "fill").write_bytes(b"x" * (2 * MEGABYTE - 8192))
    with pytest.raises(StoreError, match=r"No space left on device.*ESEN_FLOWS_SPOOL_DIR"):
        SpoolWriter(small_disk / "spool").keep(row("a"), {"0" * 64: np.arange(MEGABYTE // 8)}, forced=False)
    writer = SpoolWriter(small_disk / "spool", elsewhere=[tmp_path / "elsewhere"])
    writer.keep(row("a"), {"0" * 64: np.arange(MEGABYTE // 8)}, forced=False)
    assert kept(tmp_path / "elsewhere") == [key_of("a")]
    assert not list((small_disk / "spool").glob(f"{writer.folder.name}*"))


def test_no_server_is_started_on_a_full_disk(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ESEN_FLOWS_MONGO_URI", raising=False)
    monkeypatch.setenv("ESEN_FLOWS_DATA_DIR", str(small_disk / "data"))
    get_settings.cache_clear()
    try:
        assert run("db", "start") == 1
        err = capsys.readouterr().err
        assert "is full: 2 MB are free, the database server needs 400 MB; free space there" in err
        assert err.count("\n") == 1
        assert list(small_disk.iterdir()) == []
        assert run("doctor") == 1
        assert "is full" in " ".join(capsys.readouterr().out.split())
    finally:
        get_settings.cache_clear()


def test_what_a_server_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path / "mongodb")
    assert full_disk(layout) is None
    free: int | None = 150_000_000
    monkeypatch.setattr(server_layout, "free_bytes", lambda path: free)
    assert "150 MB are free, the database server needs 400 MB" in str(full_disk(layout))
    layout.data.mkdir(parents=True)
    layout.initialised.touch()
    assert full_disk(layout) is None
    free = 50_000_000
    assert "50 MB are free, the database server needs 100 MB" in str(full_disk(layout))
    free = None
    assert full_disk(layout) is None


def test_the_keeper_says_why_it_does_not_start_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path / "mongodb")
    make_private(layout.root)
    monkeypatch.setattr("esen_flows.store.server.keeper.full_disk", lambda layout: "the disk is full")
    keeper = Keeper(layout, tmp_path / "run" / "mongod.sock", tmp_path / "mongod", "7.0", 10.0, Host())
    with pytest.raises(ServerUnavailableError, match="the disk is full"):
        keeper.run(announce=lambda: None)
    keeper.fail("the disk is full")
    owner = Owner.read(layout)
    assert owner is not None
    assert (owner.state, owner.message) == ("failed", "the disk is full")


def test_a_record_that_cannot_be_written_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(tmp_path / "mongodb")
    make_private(layout.root)
    keeper = Keeper(layout, tmp_path / "run" / "mongod.sock", tmp_path / "mongod", "7.0", 10.0, Host())
    keeper.stop()
    assert Owner.read(layout) is not None
    write_text: Callable[..., int] = Path.write_text

    def full(path: Path, *arguments: Any, **options: Any) -> int:
        write_text(path, "")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", full)
    keeper.fail("no")
    assert [path.name for path in layout.root.iterdir()] == ["clients.lock"]
    assert "cannot be written: the disk is full" in capsys.readouterr().err


def test_free_space_and_full_disks(tmp_path: Path) -> None:
    free = free_bytes(tmp_path / "not" / "yet" / "there")
    assert free is not None
    assert free > 0
    assert is_full_disk(OSError(errno.EDQUOT, "quota"))
    assert not is_full_disk(OSError(errno.EACCES, "no"))
    assert not is_full_disk(None)

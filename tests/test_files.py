"""Files that are written whole or not at all."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from esen_flows.errors import FolderInUseError
from esen_flows.files import only_process_in, sha256_of_file, written_whole


def test_the_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    path.write_text("old")
    with written_whole(path, durable=True) as temporary:
        assert temporary.suffix == ".png"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_durable_file_and_its_name_are_on_the_disk_when_the_block_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    with written_whole(tmp_path / "mark", durable=True) as temporary:
        temporary.write_text("new")
    assert synced == [str(temporary), str(tmp_path)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_former_content_and_no_rest(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(error), written_whole(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "empty"):
        pass


def test_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "data").write_bytes(content)
    assert sha256_of_file(tmp_path / "data") == hashlib.sha256(content).hexdigest()


def test_a_folder_is_free_again_when_its_process_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from esen_flows.files import only_process_in\n"
        "with only_process_in(pathlib.Path(sys.argv[1])): print(flush=True), time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            with pytest.raises(FolderInUseError, match=f"writes into {tmp_path}"), only_process_in(tmp_path):
                pass
            with only_process_in(tmp_path, "another.lock"):
                pass
        finally:
            other.kill()
    with only_process_in(tmp_path):
        pass


@pytest.mark.parametrize(("number", "works"), [(errno.ENOLCK, True), (errno.EIO, False)])
def test_a_file_system_without_locks_does_not_stop_anyone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, works: bool
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", fail)
    if works:
        with pytest.warns(UserWarning, match="has no locks; start no second"), only_process_in(tmp_path):
            pass
    else:
        with pytest.raises(OSError, match=os.strerror(number)), only_process_in(tmp_path):
            pass

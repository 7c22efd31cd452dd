"""Files that are written whole or not at all."""

import hashlib
import os
from pathlib import Path

import pytest

from esen_flows.files import sha256_of_file, written_whole


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

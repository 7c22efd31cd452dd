"""An error that nobody expected: one line, a traceback in a file, no password."""

import errno
from pathlib import Path

import pytest
from command_line import run

from esen_flows.settings import get_settings


@pytest.fixture
def data_dir(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESEN_FLOWS_DATA_DIR", str(folder / "data"))
    monkeypatch.setattr("esen_flows.cli.commands.properties.build_request", broken)
    get_settings.cache_clear()
    yield folder / "data"
    get_settings.cache_clear()


def broken(*arguments: object, **options: object) -> None:
    raise ZeroDivisionError("mongodb://me:secret@host/ divided by\nnothing")


def test_one_line_and_a_file(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("relax", "Cu.cif") == 1
    (report,) = (data_dir / "errors").iterdir()
    err = capsys.readouterr().err
    assert err.startswith("esen-flows: unexpected ZeroDivisionError: mongodb://***@host/ divided by nothing. ")
    assert f"its traceback is in {report}; please report it" in err
    assert err.count("\n") == 1
    text = report.read_text()
    assert "Traceback (most recent call last)" in text
    assert "in broken" in text
    assert "secret" not in text + err
    assert report.stat().st_mode & 0o077 == 0


def test_where_the_data_folder_cannot_be_written(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_dir.write_text("a file")
    assert run("relax", "Cu.cif") == 1
    (report,) = Path().glob("esen-flows-error-*.txt")
    assert f"its traceback is in {report.absolute()}" in capsys.readouterr().err


def test_where_nothing_can_be_written(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("esen_flows.cli.crash._folders", lambda: [Path("/proc/none")])
    assert run("relax", "Cu.cif") == 1
    assert "no file could be written for its traceback" in capsys.readouterr().err


def test_a_full_disk_is_said_as_such(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "results/a.png")

    monkeypatch.setattr("esen_flows.cli.commands.properties.build_request", full)
    assert run("relax", "Cu.cif") == 1
    err = capsys.readouterr().err
    assert err.startswith("esen-flows: the disk of results/a.png is full; free space there, or choose another folder")
    assert err.count("\n") == 1
    assert not data_dir.exists()

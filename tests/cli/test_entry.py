"""The entry point, and Ctrl-C during its imports."""

import sys
from importlib.machinery import ModuleSpec
from typing import Any

import pytest

from esen_flows.cli.entry import main


class CtrlC:
    """An import hook that interrupts the import of the command line."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name == "esen_flows.cli.app":
            raise KeyboardInterrupt
        return None


def test_ctrl_c_during_the_imports_ends_with_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "esen_flows.cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [CtrlC(), *sys.meta_path])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert capsys.readouterr().err == "esen-flows: interrupted before the command began\n"


def test_the_entry_point_runs_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["esen-flows", "--version"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("esen-flows ")


class Broken:
    """An import hook by which a library of the command line is missing."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name == "esen_flows.cli.app":
            raise ModuleNotFoundError("No module named 'typer'")
        return None


def test_a_package_that_cannot_be_imported_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "esen_flows.cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("esen-flows: a package cannot be imported: No module named 'typer'; install")
    assert err.count("\n") == 1

"""`--json`: every command that prints results has it, and its output is JSON alone."""

import ast
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from command_line import run

import esen_flows.cli
from esen_flows.cli.app import app
from esen_flows.cli.output.json_output import jsonable

# Commands that do something, or write files which hold the results, and print what they did.
ACTS = {
    "campaign": {"submit", "pause", "resume", "cancel", "delete", "retry", "recover", "heal", "report", "freeze",
                 "submission"},
    "data": {"import", "store", "pull"},
    "db": {"start", "stop", "init", "gc", "migrate", "export", "import", "ingest"},
    "launcher": {"init"},
    "models": {"convert", "pull", "install"},
    "": {"plot", "export", "report", "worker"},
}  # fmt: skip


def commands(group: Any, name: str = "") -> Iterator[tuple[str, str, Any]]:
    for command_name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, command_name)
        else:
            yield name, command_name, command


@pytest.mark.parametrize(("group", "name", "command"), list(commands(typer.main.get_command(app))), ids=str)
def test_every_command_that_prints_results_has_json(group: str, name: str, command: Any) -> None:
    has_json = any("--json" in option.opts for option in command.params)
    assert has_json is (name not in ACTS.get(group, ())), (group, name)


def test_tables_are_printed_in_one_place_which_knows_pipes_and_narrow_terminals() -> None:
    allowed = {"tables.py", "progress.py", "report.py", "run_or_load.py", "results.py", "worker.py", "campaign.py"}
    makers = {
        path.name
        for path in Path(esen_flows.cli.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console"
    }
    assert makers <= allowed  # the others print lines, bars or a live display


def test_values() -> None:
    found = jsonable(
        {
            "kappa": np.array([[1.0, np.inf], [np.nan, 2.0]]),
            "at": datetime(2026, 1, 2, 3, tzinfo=UTC),
            "of": (np.int64(3), np.float32(0.5), {"b"}, Path("a/b"), None, True),
        }
    )
    assert found == {
        "kappa": [[1.0, None], [None, 2.0]],
        "at": "2026-01-02T03:00:00Z",
        "of": [3, 0.5, ["b"], "a/b", None, True],
    }
    with pytest.raises(TypeError, match="no JSON for a complex"):
        jsonable(1j)


def test_other_words_go_to_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from esen_flows.cli.commands import launcher

    monkeypatch.setattr(launcher, "print_json", lambda value: (print("a warning"), launcher_print(value)))
    launcher_print = __import__("esen_flows.cli.output.json_output", fromlist=["x"]).print_json
    assert run("launcher", "list", "--json") == 0
    captured = capsys.readouterr()
    assert {each["site"] for each in json.loads(captured.out)} >= {"slurm_gpu", "workstation"}
    assert captured.err == "a warning\n"
    print("afterwards")
    assert capsys.readouterr().out == "afterwards\n"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("kappa Si.cif --set me", ["mesh=", "methods="]),
        ("converge phonon Si.cif --vary displacement.fc2_m", ["displacement.fc2_min_length_angstrom="]),
        ("phonon Si.cif --protocol mdr-e", ["mdr-esen"]),
        ("relax Si.cif --model esen_na", ["esen_nano"]),
        ("models show esen_na", ["esen_nano"]),
        ("fields kap", ["kappa"]),
        ("query kappa --columns key,kappa_rta_x", ["key,kappa_rta_xx", "key,kappa_rta_xy", "key,kappa_rta_xz"]),
        ("campaign pa", ["pause"]),
    ],
)
def test_a_shell_completes(
    words: str, offered: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_ESEN_FLOWS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"esen-flows {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    run()
    found = capsys.readouterr().out.split()
    assert set(offered) <= set(found)
    assert all(each.startswith(words.split()[-1]) for each in found)

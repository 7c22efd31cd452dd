"""The Python examples of README and docs/ run, their commands are understood, and what they name is there.

Commands of docs/tutorials/ are run by test_tutorials.py; the site marks all others as not run (docs/hooks.py).
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import esen_flows
from esen_flows.cli.app import app
from esen_flows.data.folders import write_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.store.results import Store

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
NAMED_FILE = re.compile(r"`((?:benchmarks|models|tests|launchers|workflows|esen_flows|docs)/[\w./-]+)`")


class Block(NamedTuple):
    """A fenced block: its language, its title (may be empty) and its text."""

    language: str
    title: str
    text: str


def fenced(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = [Block(*groups) for groups in FENCED.findall(text)]
    assert 2 * len(found) == len(re.findall(r"^```", text, flags=re.MULTILINE)), (
        f"{page}: a fence that is not understood"
    )
    return found


def blocks(language: str, *names: str) -> list[str]:
    """Fenced blocks of a language, in README and docs/ or in the pages that are named."""
    pages = [ROOT / name for name in names] or PAGES
    return [block.text for page in pages for block in fenced(page) if block.language == language]


def run_example(example: str, folder: Path) -> list[str]:
    """The lines that a Python example prints, run in a folder, with the database that the environment names."""
    command = [sys.executable, "-c", example]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.mongod
@pytest.mark.slow
@pytest.mark.usefixtures("named_store")
def test_the_training_flow_is_made(tmp_path: Path) -> None:
    copper = bulk("Cu", cubic=True)
    item = LabelledStructure(copper, -1.0, np.zeros((4, 3)), np.zeros((3, 3)))
    write_dataset(tmp_path / "mptrj", [item])
    (training,) = [block for block in blocks("python") if "RecipeFlow" in block]
    example, _, last = training.rpartition("run_locally(")  # a network of 30 M parameters trains for days
    assert last.startswith("flow, store=job_store(store))")
    printed = run_example(example + "print(*(job.name for job in flow.jobs), sep=';')", tmp_path)
    assert printed[-1].split(";")[:2] == ["esen_30m_mp 1 pretrain_60", "esen_30m_mp 2 finetune_40"]


@pytest.mark.mongod
@pytest.mark.slow
@pytest.mark.usefixtures("named_store")
def test_notebook_and_flow_are_one_result(tmp_path: Path) -> None:
    (tmp_path / "workflows").symlink_to(ROOT / "workflows")
    notebook, flow = blocks("python", "README.md")
    printed = run_example(notebook + flow, tmp_path)
    verdict, frequency, unit = next(line for line in printed if line.endswith(" THz")).split()
    assert verdict in ("stable", "acoustic_noise")
    # SevenNet-l3i5, which labelled the training data, has the top of silicon's spectrum at 12.81 THz
    # (benchmarks/results/silicon_kappa_sevennet_l3i5.json); DFT has it at 15.5 THz.
    assert 12.5 < float(frequency) < 13.1
    assert unit == "THz"
    assert printed[-1] == "True"


@pytest.mark.mongod
@pytest.mark.slow
def test_many_at_once_and_submission_run(tmp_path: Path, named_store: Store) -> None:
    (tmp_path / "workflows").symlink_to(ROOT / "workflows")
    _, dynamics, many = blocks("python", "docs/properties.md")
    (submission,) = blocks("python", "docs/campaigns.md")
    shorter = dynamics.replace("n_steps=1000", "n_steps=20").replace("esen_nano", "esen_silicon")
    atoms = "from ase.build import bulk\nstructures = [bulk('Si'), bulk('Si', a=5.5)]\n"
    write(tmp_path / "candidates.extxyz", [bulk("Si", a=5.4), bulk("Ge", a=5.6)])
    printed = run_example(atoms + shorter + many + submission + "print(document)", tmp_path)
    assert [printed.pop(0)[:2] for _ in range(2)] == ["0 ", "1 "]  # the drift of each trajectory
    assert "which 'esen_silicon' never saw" in printed[0]
    assert float(printed[1].removeprefix("0 ")) < -5.0  # eV/atom
    assert printed[-3:-1] == [
        f"submitted to launchpad {named_store.database.database_name}: fireworks {numbers}"
        for numbers in ("3, 2, 1", "6, 5, 4")
    ]
    assert printed[-1] == "None"


@pytest.mark.mongod
@pytest.mark.slow
@pytest.mark.usefixtures("named_store")
def test_joined_flows_run(tmp_path: Path) -> None:
    flows = blocks("python", "docs/flows.md")
    assert len(flows) == 3
    count = "print(sorted(row['kind'] for row in store.database['results'].find()))"
    printed = run_example("\n".join([*flows, count]), tmp_path)
    assert printed[-1] == str(
        sorted(["forces", "forces", "labelling", "phonon", "conductivity", "training", *["relax"] * 4])
    )


def test_names_of_the_notebook_are_public() -> None:
    # tests/cli/test_notebook.py runs these functions on a crystal that takes seconds.
    notebook, *_ = blocks("python", "docs/properties.md")
    compile(notebook, "docs/properties.md", "exec")
    used = set(re.findall(r"\bef\.(\w+)", notebook))
    assert used
    assert used <= set(esen_flows.__all__)


def test_commands_are_understood() -> None:
    asked = [found for block in blocks("bash") for line in block.splitlines() for found in commands_in(line)]
    assert ["kappa", "workflows/silicon_kappa/Si.cif"] in asked
    assert (ROOT / "workflows/silicon_kappa/Si.cif").is_file()
    with pytest.raises(Exception, match="No such option: --nope"):
        understand(get_command(app), "esen-flows", ["campaign", "status", "--nope", "oxides"])
    for arguments in asked:
        understand(get_command(app), "esen-flows", arguments)


def commands_in(line: str) -> Iterator[list[str]]:
    """The arguments of every esen-flows in a line of the shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    arguments: list[str] | None = None
    for token in [*lexer, ";"]:
        if set(token) <= set("();<>|&"):
            if arguments is not None:
                yield arguments
            arguments = None
        elif arguments is not None:
            arguments.append(token)
        elif token.rpartition("/")[2] == "esen-flows":
            arguments = []


def understand(command: TyperCommand | TyperGroup, name: str, arguments: list[str]) -> None:
    context = command.make_context(name, list(arguments))
    if isinstance(command, TyperGroup):
        below = [*context._protected_args, *context.args]
        if below or not command.invoke_without_command:
            name, command, rest = command.resolve_command(context, below)
            understand(command, name, rest)


def test_tree_is_the_tree() -> None:
    (tree,) = [block for block in blocks("", "README.md") if "esen_flows/" in block]
    rooms = re.findall(r"^  (\w+)/", tree, flags=re.MULTILINE)
    assert set(rooms) == {path.parent.name for path in (ROOT / "esen_flows").glob("*/__init__.py")}
    for folder in re.findall(r"^(\w+)/", tree, flags=re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_readme_is_short() -> None:
    assert len(README.encode()) <= 9000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    linked = [page.parent / target for target in LINK.findall(text)]
    named = [ROOT / name for name in NAMED_FILE.findall(text)]
    missing = [str(path) for path in linked + named if not path.exists()]
    assert not missing

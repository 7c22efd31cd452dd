"""Every command of docs/tutorials/ is typed as it stands there, and prints what stands there.

One user walks through all tutorials in their order, in a copy of what a clone holds and in an empty home. Blocks are
understood by their language and title:

- bash: typed into the same shell as the blocks before it, unless its title says "Not run by the tests";
- text: what the commands before it print; `...` stands for anything;
- python: run with the interpreter of the shell; with a title, the block is the file of that name in the shell's folder,
  as is a block of any other language with a title.
"""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from test_readme import ROOT, Block, fenced

from esen_flows.errors import ServerUnavailableError
from esen_flows.store.server.mongod import find_mongod

pytestmark = [pytest.mark.tutorials, pytest.mark.mongod]

NOT_RUN = "Not run by the tests"
(ORDER,) = (
    entry["Tutorials"]
    for entry in yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    if "Tutorials" in entry
)


class Newcomer:
    """A clone with its environment, and an empty home."""

    def __init__(self, folder: Path) -> None:
        self.clone, self.home = folder / "esen_flows", folder / "home"
        self.clone.mkdir()
        self.home.mkdir()
        (self.clone / ".venv").symlink_to(sys.prefix)
        for name in ("workflows", "models", "launchers"):
            (self.clone / name).symlink_to(ROOT / name)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ESEN_FLOWS_", "XDG_", "PYTEST_"))}
        cache = {"ESEN_FLOWS_CACHE_DIR": os.environ["ESEN_FLOWS_CACHE_DIR"]}  # compiled kernels, as other tests use
        self.environment = {**inherited, **cache, "HOME": str(self.home), "COLUMNS": "120"}

    def type(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.clone,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    try:
        find_mongod(None)
    except ServerUnavailableError as error:
        pytest.skip(str(error))
    made = Newcomer(tmp_path_factory.mktemp("newcomer"))
    yield made
    made.type(".venv/bin/esen-flows db stop --force")


def typed(number: int, block: Block, outputs: Path) -> str:
    """Lines of the shell for one block; what it prints goes to a file of its number."""
    if block.title.startswith(NOT_RUN) or block.language == "text":
        return ""
    if block.title:
        return f"cat >{shlex.quote(block.title)} <<'END_OF_FILE'\n{block.text}END_OF_FILE\n"
    if block.language == "python":
        body = f"python - <<'END_OF_FILE'\n{block.text}END_OF_FILE\n"
    else:
        assert block.language == "bash", block
        body = block.text
    return f"{{\n{body}}} >{outputs}/{number} 2>&1 || {{ echo {number} >{outputs}/failed; exit 1; }}\n"


def expected(text: str) -> re.Pattern[str]:
    """A pattern for the text of a block."""
    return re.compile(".*?".join(re.escape(part) for part in comparable(text.strip()).split("...")), flags=re.DOTALL)


def comparable(text: str) -> str:
    """Lines with single spaces, because columns are as wide as their contents, and without the boxes of a terminal."""
    inside = [line.replace("│", " ") for line in text.splitlines() if not re.fullmatch("[┌┬┐├┼┤└┴┘─]+", line)]
    return "\n".join(" ".join(line.split()) for line in inside)


@pytest.mark.parametrize("name", [str(Path(page).stem) for page in ORDER])
def test_tutorial(name: str, newcomer: Newcomer, tmp_path: Path) -> None:
    page = fenced(ROOT / f"docs/tutorials/{name}.md")
    assert any(block.language == "bash" for block in page)
    done = newcomer.type("".join(typed(number, block, tmp_path) for number, block in enumerate(page)))
    printed = {int(path.name): path.read_text() for path in tmp_path.glob("[0-9]*")}
    assert done.returncode == 0, f"{printed[max(printed)] if printed else ''}\n{done.stderr}"
    for number, block in enumerate(page):
        if block.language == "text" and not block.title:
            before = max(earlier for earlier in printed if earlier < number)
            assert expected(block.text).search(comparable(printed[before])), (
                f"{page[before].text}\nprinted\n{printed[before]}\nexpected\n{block.text}"
            )


def as_script(notebook: Path) -> str:
    """The code of a notebook; the last expression of a cell is shown as a page shows it, else as text."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    lines = ["def show(value):", "    print(value._repr_html_() if hasattr(value, '_repr_html_') else value)"]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], f"{notebook.name} holds outputs; clear them before it is committed"
            body = ast.parse("".join(cell["source"])).body
            if isinstance(body[-1], ast.Expr):
                body[-1] = ast.Expr(ast.Call(ast.Name("show", ast.Load()), [body[-1].value], []))
            lines += [ast.unparse(ast.fix_missing_locations(statement)) for statement in body]
    return "\n".join(lines)


def test_notebook(newcomer: Newcomer) -> None:
    script = as_script(ROOT / "docs/notebooks/silicon.ipynb")
    done = newcomer.type(f".venv/bin/python - <<'END_OF_FILE'\n{script}\nEND_OF_FILE\n")
    assert done.returncode == 0, done.stderr
    for title in ("relaxation", "phonons", "thermal conductivity"):
        assert f"<caption>Si: {title} by esen_silicon," in done.stdout
    assert done.stdout.count("src='data:image/png;base64,iVBORw0KGgo") == 3

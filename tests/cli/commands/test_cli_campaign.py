"""`esen-flows campaign`: the same warnings before and after planning, and files with bad structures."""

from pathlib import Path

import pytest
from ase.build import bulk, fcc111
from ase.io import write
from click.testing import Result
from typer.testing import CliRunner

from esen_flows.cli.app import app
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
SPEC = """name: metals
property: relax
structures:
  file: metals.xyz
models: [emt]
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["campaign", *arguments], env={"COLUMNS": "140"})


def warnings(said: str) -> list[str]:
    """The lines of what will probably fail."""
    lines = said.splitlines()
    first = next(number for number, line in enumerate(lines) if "will probably fail" in line)
    return [lines[first], *(line for line in lines[first + 1 :] if line.startswith("  "))]


def test_a_submission_repeats_the_warnings_of_its_plan(
    named_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    slab = fcc111("Ag", (1, 1, 2), vacuum=7.0)
    slab.info.clear()
    write("metals.xyz", [bulk("Ag"), slab, bulk("Ti")], format="extxyz")
    Path("spec.yaml").write_text(SPEC)
    plan = run("plan", "spec.yaml")
    assert plan.exit_code == 0, plan.output
    said = warnings(plan.output)
    assert said[0] == "2 will probably fail:"
    assert "emt never saw Ti" in plan.output
    assert "periodic in 2 of 3 directions" in plan.output
    for name in ("spec.yaml", "metals"):
        done = run("submit", name)
        assert done.exit_code == 0, done.output
        assert warnings(done.output) == said


@pytest.mark.shared
def test_the_warnings_of_a_users_campaign(
    named_store: Store, shared_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = shared_dir / "cases" / "campaign-warnings"
    if not case.is_dir():
        pytest.skip(f"no {case}")
    monkeypatch.chdir(case)
    plan, submit = run("plan", "camp.yaml"), run("submit", "camp.yaml")
    assert warnings(plan.output)[0] == "3 will probably fail:"
    assert warnings(submit.output) == warnings(plan.output)


def test_bad_structures_are_named_or_skipped(
    named_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("metals.xyz", [bulk("Ag"), bulk("Cu"), bulk("Au")], format="extxyz")
    text = Path("metals.xyz").read_text()
    for symbol in ("Cu", "Au"):
        text = text.replace(f"{symbol} ", f"{symbol} nowhere", 1)
    Path("metals.xyz").write_text(text)
    Path("spec.yaml").write_text(SPEC)
    refused = run("submit", "spec.yaml")
    assert refused.exit_code != 0
    assert "2 structures cannot be used" in str(refused.exception) + refused.output
    assert run("list").output.count("metals") == 0
    planned = run("plan", "spec.yaml", "--skip-bad")
    assert planned.exit_code == 0, planned.output
    assert "2 left out:" in planned.output
    assert "next: esen-flows campaign submit spec.yaml --skip-bad" in planned.output
    done = run("submit", "spec.yaml", "--skip-bad")
    assert "2 left out:" in done.output
    assert "submitted 1 members in 1 fireworks" in done.output
    assert "left out" in run("submit", "metals").output
    again = run("submit", "metals", "--skip-bad")
    assert again.exit_code != 0
    assert "--skip-bad is for a specification" in str(again.exception) + again.output

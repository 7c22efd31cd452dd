"""`label`: from a recipe without lattice constants to labels and phonons, and what it refuses before it computes."""

import json
from pathlib import Path

import pytest
import yaml
from command_line import run

from esen_flows.training.label import shard_path

CRYSTAL = {"prototype": "zincblende", "species": ["Cu", "Au"]}
GROUP = {"name": "rattled", "crystals_of": ["zincblende"], "count": 2, "rattle_angstrom": 0.05}


@pytest.fixture(name="recipe")
def _recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({"seed": 1, "groups": [GROUP], "crystals": {"CuAu": CRYSTAL}}))
    return file


def test_labels_and_phonons_as_json(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, phonons = tmp_path / "out.xyz", tmp_path / "phonons"
    options = ("--output", output, "--model", "emt", "--phonons", phonons, "--json")
    assert run("label", recipe, *options) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert "2 of 2 structures labelled" in captured.err
    assert (found["output"], found["structures"]) == (str(output), 2)
    assert found["phonons"] == [str(phonons / "CuAu" / "phonopy_params.yaml")]
    assert found["crystals"][0]["lattice_angstrom"] == pytest.approx(5.733, abs=0.001)  # EMT's own
    assert run("label", recipe, *options) == 0
    assert json.loads(capsys.readouterr().out) == found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--output", "folder"), "is a folder; give the path of a file"),
        (("--output", "file/out.xyz"), "not a folder that you may write to; use --output"),
        (("--output", "out.xyz", "--phonons", "file"), "not a folder that you may write to; use --phonons"),
        (("--output", "out.xyz", "--phonons", "phonons", "--forces", "direct"), "leave out --forces direct"),
        (("--output", "file"), "file exists and is not a labelling by emt; choose another path, or remove it"),
        (("--output", "unfinished.xyz"), "exists and is not a labelling by emt; choose another path, or remove it"),
        (("--output", "out.xyz", "--phonons", "theirs"), "theirs holds phonons by 'another'"),
        (("--output", "out.xyz", "--model", "esen_silicon"), "never saw Cu, Au; it knows Si"),
    ],
)
def test_what_cannot_be_written_is_refused_first(
    options: tuple[str, ...],
    words: str,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_text("a file")
    Path("theirs").mkdir()
    Path("theirs/phonons.json").write_text(json.dumps({"identity": "0", "labeller": "another", "done": {}}))
    other = {"identity": "0", "count": 1, "labeller": {"inner_key": "of another force field"}}
    shard_path("unfinished.xyz", 0, 1).write_text(json.dumps(other) + "\n")
    assert run("label", recipe, "--model", "emt", *options) != 0
    captured = capsys.readouterr()
    assert words in captured.err
    assert "relaxed" not in captured.out

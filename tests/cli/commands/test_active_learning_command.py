"""`esen-flows active-learning` from the shell's point of view, and `label --forces direct`."""

import json
from pathlib import Path

import pytest
import yaml
from ase.build import bulk
from ase.io import write
from command_line import run
from test_train_commands import TRAINING

from esen_flows.data.extxyz import read_provenance, write_labelled
from esen_flows.data.importing import read_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.forcefield.third_party.emt import emt


@pytest.fixture(name="place", scope="module")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a stage, a checkpoint that was trained by it, and a specification."""
    place = tmp_path_factory.mktemp("place")
    structures = []
    for seed in range(6):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        (result,) = emt().evaluate(atoms)
        structures.append(LabelledStructure(atoms, result.energy, result.forces, result.stress))
    write_labelled(place / "copper.xyz", structures)
    write(place / "Cu.cif", bulk("Cu", cubic=True))
    (place / "stage.yaml").write_text(yaml.safe_dump({**TRAINING, "epochs": 1}))
    assert not run("train", place / "stage.yaml", "--data", place / "copper.xyz", "--folder", place / "first")
    specification = {
        "teacher": "emt", "students": "first/checkpoint.safetensors", "structures": "Cu.cif", "data": "copper.xyz",
        "stage": "stage.yaml", "rounds": 0, "frames_per_round": 3, "temperatures_kelvin": [300], "duration_ps": 0.08,
        "frame_interval_steps": 1,
    }  # fmt: skip
    (place / "run.yaml").write_text(yaml.safe_dump(specification))
    return place


def test_a_run_prints_its_rounds_and_continues(place: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert not run("active-learning", place / "run.yaml", "--folder", tmp_path)
    text = capsys.readouterr().out
    assert "held-out" in text
    assert "0 of 1" in text
    assert f"esen-flows audit {tmp_path}/round-000/student/checkpoint.safetensors --quick" in text
    options = ("--set", "rounds=1", "--set", "settings.learning_rate=0.001", "--folder", tmp_path / "other")
    assert not run("active-learning", place / "run.yaml", *options)
    record = json.loads((tmp_path / "other" / "round-001" / "round.json").read_text())
    assert record["frames_added"] == 3
    capsys.readouterr()
    assert not run("active-learning", place / "run.yaml", *options, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["checkpoint"] == str(tmp_path / "other" / record["checkpoint"])
    assert found["rounds"][1]["own"] == record["own"]
    # Without time it stops and can be continued.
    assert run("active-learning", place / "run.yaml", "--folder", tmp_path / "late", "--max-seconds", "0.001s") == 75


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("rounds=-1", "rounds: Input should be greater than or equal to 0 (got -1)"),
        ("speed=3", "speed: Extra inputs are not permitted"),
        ("choose=committee", "at least two students"),
        ("teacher=nobody", "nobody"),
        ("data=nowhere.xyz", "esen-flows: data "),
        ("students=emt", "'emt' is a force field of another package"),
        ("settings=3", "settings: Input should be a valid dictionary (got 3)"),
        ("settings.speed=3", "unknown keys ['speed']"),
    ],
)
def test_bad_specifications_are_refused(change: str, words: str, place: Path, tmp_path: Path, capsys) -> None:
    options = ("--set", "rounds=1", "--set", change, "--folder", tmp_path)
    assert run("active-learning", place / "run.yaml", *options) in (1, 2)
    assert words in capsys.readouterr().err


def test_a_direct_student_needs_a_stage(place: Path, tmp_path: Path, capsys) -> None:
    direct = {**TRAINING, "direct_forces": True, "stress_weight": 0.0, "epochs": 1}
    (place / "direct.yaml").write_text(yaml.safe_dump(direct))
    assert not run("train", place / "direct.yaml", "--data", place / "copper.xyz", "--folder", place / "direct")
    student = ("--set", "students=direct/checkpoint.safetensors", "--set", "rounds=1")
    assert run("active-learning", place / "run.yaml", *student, "--set", "stage=null", "--folder", tmp_path) == 1
    assert "give `stage`" in capsys.readouterr().err
    # Such a force field labels too: without a stress head its labels have no stress.
    recipe = {"seed": 1, "groups": [
        {"name": "a", "prototype": "fcc", "species": "Cu", "lattice_angstrom": 3.6, "count": 2, "rattle_angstrom": 0.1},
    ]}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    options = ("--model", place / "direct" / "checkpoint.safetensors", "--output", tmp_path / "out.xyz")
    assert not run("label", tmp_path / "recipe.yaml", *options)
    assert len(read_dataset(tmp_path / "out.xyz")) == 2
    assert read_provenance(tmp_path / "out.xyz")["without_stress"] is True

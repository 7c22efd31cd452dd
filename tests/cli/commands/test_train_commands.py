"""`esen-flows label` and `esen-flows train` from the shell's point of view."""

import json

import pytest
import yaml
from ase.build import bulk
from ase.calculators.emt import EMT
from command_line import run

from esen_flows.data.extxyz import read_provenance, write_labelled
from esen_flows.data.importing import read_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.forcefield.load import load_force_field

TRAINING = {
    "num_layers": 1, "lmax": 2, "mmax": 1, "sphere_channels": 4, "hidden_channels": 4, "edge_channels": 4,
    "num_distance_basis": 6, "cutoff_angstrom": 4.0, "epochs": 2, "edges_per_batch": 200, "learning_rate": 0.01,
    "weight_decay": 0.0, "warmup_steps": 2, "clip_norm": 20.0, "ema_decay": 0.5, "loss": "absolute",
    "energy_weight": 1.0, "force_weight": 1.0, "stress_weight": 1.0, "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def copper_data(tmp_path_factory):
    """Rattled fcc copper with EMT labels (an interatomic potential of ASE)."""
    path = tmp_path_factory.mktemp("data") / "copper.xyz"
    structures = []
    for seed in range(10):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        labels = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
        structures.append(LabelledStructure(atoms.copy(), *labels, "fcc"))
    write_labelled(path, structures, {"labeller": "EMT"})
    return path


def test_train_writes_a_checkpoint_and_a_second_stage_starts_from_it(copper_data, tmp_path, capsys):
    config = tmp_path / "t.yaml"
    config.write_text(yaml.safe_dump(TRAINING))
    options = ("--data", copper_data, "--validation-fraction", "0.2")
    assert not run("train", config, *options, "--folder", tmp_path / "first")
    first = load_force_field(tmp_path / "first" / "checkpoint.safetensors")
    initial = ("--initial", tmp_path / "first" / "checkpoint.safetensors")
    capsys.readouterr()
    assert not run("train", config, *options, *initial, "--folder", tmp_path / "second", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["checkpoint"] == str(tmp_path / "second" / "checkpoint.safetensors")
    assert found["training"]["validation"]["all"]["force_mae_mev_per_angstrom"] > 0.0
    second = load_force_field(tmp_path / "second" / "checkpoint.safetensors")
    assert first.key != second.key == found["model_key"]
    assert not run("train", config, *options, "--estimate", "--json")
    assert json.loads(capsys.readouterr().out)["stage"]["steps"] == found["training"]["steps"]
    assert first.declaration.elements == frozenset({29})
    assert (tmp_path / "second" / "history.csv").read_text().count("\n") == 3


def test_label_writes_a_dataset_with_its_provenance(copper_data, tmp_path, capsys):
    config, recipe = tmp_path / "t.yaml", tmp_path / "r.yaml"
    config.write_text(yaml.safe_dump(TRAINING))
    run("train", config, "--data", copper_data, "--validation-fraction", "0.2", "--folder", tmp_path / "m")
    groups = [{"name": "a", "prototype": "fcc", "species": "Cu", "lattice_angstrom": 3.6, "count": 3}]
    recipe.write_text(yaml.safe_dump({"seed": 1, "groups": groups}))
    model = tmp_path / "m" / "checkpoint.safetensors"
    assert not run("label", recipe, "--model", model, "--output", tmp_path / "out.xyz")
    assert len(read_dataset(tmp_path / "out.xyz")) == 3
    provenance = read_provenance(tmp_path / "out.xyz")
    assert provenance["labeller"]["inner_key"] == load_force_field(model).key
    assert provenance["averaged_with_inversion"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "nowhere.yaml", "--data", "x.xyz", "--folder", "f"), "nothing at x.xyz"),
        (("train", "nowhere.yaml", "--data", __file__, "--folder", "f"), "no training file at nowhere.yaml"),
        (("train", "--finetune", "nobody", "--data", "x.xyz"), "nothing at x.xyz"),
        (("label", "nowhere.yaml", "--output", "x.xyz"), "nowhere.yaml"),
    ],
)
def test_missing_files_end_with_one_message(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 1
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train",), "give a training file or a card"),
        (("train", "esen_3.2m_mp"), "give --data"),
        (
            ("train", "esen_3.2m_mp", "--recipe", "no", "--data", __file__),
            "--recipe no: the card 'esen_3.2m_mp' has two_",
        ),
        (("train", "esen_3.2m_mp", "--stage", "3", "--data", __file__), "stages 1 to 2"),
        (("train", "esen_30m_oam", "--stage", "3", "--data", f"sAlex={__file__}"), "missing: --data MPtrj=PATH"),
        (("train", "esen_silicon", "--data", __file__), "has no recipe"),
        (("train", "esen_30m_oam", "--stage", "3", "--data", __file__), "missing: --data sAlex=PATH --data MPtrj=PATH"),
        (("train", "--finetune", "esen_silicon", "--estimate", "--data", __file__), "--estimate has no effect with"),
        (("train", "t.yaml", "--replay", __file__, "--data", __file__), "--replay has no effect without --finetune"),
        (("train", "t.yaml", "--set", "epochs", "--data", __file__), "--set 'epochs' is not key=value"),
        (("train", "t.yaml", "--data", __file__, "--device", "tpu"), "--device 'tpu' is not one of cpu, cuda"),
        (
            ("train", "t.yaml", "--data", __file__, "--device", "tpu", "--submit"),
            "--device 'tpu' is not one of cpu, cuda",
        ),
        (("train", "t.yaml", "--data", __file__, "--validation-fraction", "2", "--submit"), "--validation-fraction 2:"),
        (("train", "t.yaml", "--data", __file__, "--max-seconds", "-5", "--submit"), "--max-seconds"),
        (("train", "t.yaml", "--data", __file__, "--split-seed", "-1", "--submit"), "--split-seed"),
        (("label", "r.yaml", "--output", "o.xyz", "--device", "tpu"), "--device 'tpu' is not one of cpu, cuda"),
    ],
)
def test_wrong_options_are_wrong_usage(arguments, words, capsys):
    assert run(*arguments) == 2
    assert words in capsys.readouterr().err


SMALL = [part for name in ("sphere_channels", "hidden_channels", "edge_channels") for part in ("--set", f"{name}=4")]


def test_a_folder_that_cannot_be_made_is_refused_before_the_data_are_read(tmp_path, capsys):
    (tmp_path / "taken").touch()
    assert run("train", "t.yaml", "--data", __file__, "--folder", tmp_path / "taken") == 1
    assert f"cannot write to {tmp_path / 'taken'}: " in capsys.readouterr().err


def test_a_card_is_trained_stage_by_stage(copper_data, tmp_path, capsys):
    options = ("--data", f"MPtrj={copper_data}", "--validation-fraction", "0.2", "--folder", tmp_path, *SMALL)
    short = ("--set", "epochs=2", "--set", "cutoff_angstrom=4.0", "--set", "structures_per_batch=4")
    assert not run("train", "esen_3.2m_mp", *options, *short)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"1-pretrain", "2-finetune"}
    force_field = load_force_field(tmp_path / "2-finetune" / "checkpoint.safetensors")
    assert force_field.declaration.conservative
    assert not load_force_field(tmp_path / "1-pretrain" / "checkpoint.safetensors").declaration.conservative
    assert (tmp_path / "learning_curves.png").stat().st_size > 5_000
    before = force_field.key
    assert not run("train", "esen_3.2m_mp", *options, *short)
    assert load_force_field(tmp_path / "2-finetune" / "checkpoint.safetensors").key == before
    assert run("train", "esen_3.2m_mp", *options, *short, "--split-seed", "3") == 1
    assert "use a new folder" in capsys.readouterr().err


def test_an_estimate_trains_nothing(copper_data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--data", f"MPtrj={copper_data}:8", "--validation-fraction", "0.2", *SMALL)
    assert not run("train", "esen_3.2m_mp", "--stage", "2", "--estimate", *options)
    printed = capsys.readouterr().out
    assert "2-finetune: " in printed
    assert "40 epochs, 40 steps, 2,560 structures" in printed
    assert "hours on one such cpu" in printed
    assert not list(tmp_path.iterdir())


def test_a_model_is_fine_tuned_by_one_command(tmp_path, capsys):
    labeller = load_force_field("esen_silicon")
    items = []
    for seed in range(10):
        atoms = bulk("Si", a=5.47)
        atoms.rattle(0.05, seed=seed)
        (result,) = labeller.evaluate([atoms])
        items.append(LabelledStructure(atoms, 1.2 * result.energy, 1.2 * result.forces, 1.2 * result.stress))
    write_labelled(tmp_path / "mine.xyz", items)
    options = ("--validation-fraction", "0.2", "--set", "epochs=1", "--folder", tmp_path / "f")
    command = ("train", "--finetune", "esen_silicon", "--data", tmp_path / "mine.xyz", *options)
    assert not run(*command, "--replay", tmp_path / "mine.xyz", "--replay-share", "0.5")
    printed = capsys.readouterr().out
    assert all(
        f"{title}, {when}" in printed for title in ("held out", "parent's domain") for when in ("before", "after")
    )
    report = json.loads((tmp_path / "f" / "report.json").read_text())
    assert report["scale_factor_at_start"] == pytest.approx(1.2, rel=1e-3)
    assert load_force_field(tmp_path / "f" / "checkpoint.safetensors").key == report["model_key"]
    assert yaml.safe_load((tmp_path / "f" / "stage.yaml").read_text())["epochs"] == 1

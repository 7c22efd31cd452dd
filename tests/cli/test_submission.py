"""`--submit` of property commands and of `train`: what is printed, added and refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ase.build import bulk
from ase.io import write
from command_line import run
from result_documents import commit, document

from esen_flows.data.extxyz import write_labelled
from esen_flows.data.importing import read_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.makers.training import TrainMaker
from esen_flows.schemas.audit import AuditProtocol
from esen_flows.schemas.protocols import NumericSettings
from esen_flows.schemas.requests import property_requests
from esen_flows.schemas.training import Split
from esen_flows.settings import get_settings
from esen_flows.training.config import config_from_dict

pytestmark = pytest.mark.mongod
STAGE = {
    "num_layers": 1, "lmax": 1, "mmax": 1, "sphere_channels": 4, "hidden_channels": 4, "edge_channels": 4,
    "num_distance_basis": 4, "cutoff_angstrom": 4.0, "epochs": 2, "edges_per_batch": 200, "learning_rate": 0.01,
    "weight_decay": 0.0, "warmup_steps": 2, "clip_norm": 20.0, "ema_decay": 0.5, "loss": "absolute",
    "energy_weight": 1.0, "force_weight": 1.0, "stress_weight": 1.0, "seed": 0,
}  # fmt: skip


@pytest.fixture
def folder(copper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a copper crystal, labelled frames of it, and a training file."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "Cu.cif", bulk("Cu", "fcc", a=3.6, cubic=True))
    frames = []
    for seed in range(8):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        (result,) = copper.force_field.evaluate([atoms])
        frames.append(LabelledStructure(atoms, result.energy, result.forces, result.stress, "fcc"))
    write_labelled(tmp_path / "copper.xyz", frames, {"labeller": "EMT"})
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(STAGE))
    return tmp_path


def specs(copper: Any) -> list[dict[str, Any]]:
    """Specs of the fireworks, in the order of work."""
    return [row["spec"] for row in copper.store.database["fireworks"].find().sort("fw_id", -1)]


@pytest.mark.parametrize(("command", "kinds"), [("relax", 1), ("phonon", 3), ("kappa", 3)])
def test_a_property_is_submitted_and_computed_later(
    copper: Any, folder: Path, capsys: pytest.CaptureFixture[str], command: str, kinds: int
) -> None:
    assert run(command, "Cu.cif", "--model", copper.checkpoint, "--submit") == 0
    printed = capsys.readouterr().out
    assert f"submitted to launchpad {copper.store.database.database_name}: fireworks {kinds}" in printed
    assert "esen-flows db init settings" in printed
    assert "esen-flows db start" in printed  # the private server
    key = printed.split("key ")[-1].strip()
    assert f"esen-flows show {key[:12]}\n" in printed
    assert [spec["result_key"] for spec in specs(copper)][-1] == key
    assert len(specs(copper)) == kinds
    assert (copper.force_field.force_evaluations, list(folder.glob("results"))) == (8, [])  # those of the frames
    assert run(command, "Cu.cif", "--model", copper.checkpoint, "--submit") == 0
    assert "nothing added: submitted before" in capsys.readouterr().out
    assert len(specs(copper)) == kinds


def test_a_firework_whose_worker_was_killed_can_be_run_again(
    copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("relax", "Cu.cif", "--model", copper.checkpoint, "--submit")
    copper.store.database["fireworks"].update_one({"fw_id": 1}, {"$set": {"state": "RUNNING"}})
    capsys.readouterr()
    assert run("relax", "Cu.cif", "--model", copper.checkpoint, "--submit") == 0
    printed = capsys.readouterr().out
    assert "fireworks 1 (RUNNING)" in printed
    assert "esen-flows campaign recover" in printed


def test_a_training_is_submitted_with_its_data(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", "copper.xyz", "--validation-fraction", "0.25", "--set", "epochs=3", "--max-seconds", "10m"]
    assert run("train", "t.yaml", *options, "--submit") == 0
    printed = capsys.readouterr().out
    data = read_dataset(folder / "copper.xyz").key
    config = config_from_dict({**STAGE, "epochs": 3}, "t.yaml")
    request = TrainMaker(config=config, split=Split(fraction=0.25)).request(data)
    assert request is not None
    assert f"key      {request.key}" in printed
    spec, audit = specs(copper)
    assert (spec["result_key"], spec["kind"], spec["_category"]) == (request.key, "training", "gpu")
    job = spec["_tasks"][0]["job"]
    assert (audit["kind"], audit["_tasks"][0]["job"]["function_args"][0]["uuid"]) == ("audit", job["uuid"])
    arguments = spec["_tasks"][0]["job"]["function_kwargs"]
    assert arguments["datasets"] == [[data, 1]]
    assert arguments["run"]["max_seconds"] == 600
    assert copper.store.database["datasets"].find_one({"_id": data})["names"] == ["copper"]
    assert not (folder / "training").exists()
    assert run("train", "t.yaml", *options, "--submit") == 0
    assert "nothing added: submitted before" in capsys.readouterr().out

    # The audit of a stored training has a key; it is added until it is stored.
    commit(copper.store, document(request.key, kind="training", summary={"model_key": "ab" * 32}))
    assert run("train", "t.yaml", *options, "--submit") == 0
    assert "fireworks 4, 3" in capsys.readouterr().out
    *_, verdict = property_requests("ab" * 32, "ab" * 32, AuditProtocol(), NumericSettings())
    commit(copper.store, document(verdict.key, kind="audit"))
    assert run("train", "t.yaml", *options, "--submit") == 0
    assert "nothing added: every result is stored" in capsys.readouterr().out


def test_a_recipe_is_submitted_as_a_chain(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "esen_3.2m_mp", "--data", "MPtrj=copper.xyz:2", "--submit") == 0
    first, second, _ = specs(copper)
    data = read_dataset(folder / "copper.xyz").key
    assert [spec["_tasks"][0]["job"]["function_kwargs"]["datasets"] for spec in (first, second)] == [[[data, 2]]] * 2
    assert [spec["_tasks"][0]["job"]["name"] for spec in (first, second)] == ["1-pretrain", "2-finetune"]
    assert copper.store.database["workflows"].find_one({})["links"] == {"1": [], "2": [1], "3": [2]}
    assert f"key      {second['result_key']}" in capsys.readouterr().out


def test_options_without_effect_are_refused(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = ("train", "t.yaml", "--data", "copper.xyz")
    for arguments, words in (
        (("relax", "Cu.cif", "--model", copper.checkpoint, "--output", "out"), "--output has no effect with --submit"),
        ((*training, "--folder", "x"), "--folder has no effect with --submit"),
        ((*training, "--estimate"), "--estimate has no effect with --submit"),
        ((*training, "--validation", "copper.xyz"), "--validation has no effect with --submit"),
        (("train", "--finetune", "esen_silicon", "--data", "copper.xyz"), "--submit has no effect with --finetune"),
    ):
        assert run(*arguments, "--submit") == 2
        assert words in capsys.readouterr().err
    assert specs(copper) == []


def test_without_a_server_nothing_can_be_submitted(
    copper: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ESEN_FLOWS_SPOOL", "1")
    get_settings.cache_clear()
    assert run("relax", "Cu.cif", "--model", copper.checkpoint, "--submit") == 1
    assert "ESEN_FLOWS_SPOOL is set, so results go into" in capsys.readouterr().err
    monkeypatch.delenv("ESEN_FLOWS_SPOOL")
    monkeypatch.setenv("ESEN_FLOWS_READ_ONLY", "1")
    get_settings.cache_clear()
    assert run("relax", "Cu.cif", "--model", copper.checkpoint, "--submit") == 1
    assert "ESEN_FLOWS_READ_ONLY is set, so nothing is written" in capsys.readouterr().err


def test_a_worker_is_told_which_settings_it_needs(
    copper: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "uri"
    file.write_text(copper.store.database.uri)
    file.chmod(0o600)
    monkeypatch.setenv("ESEN_FLOWS_MONGO_URI_FILE", str(file))
    get_settings.cache_clear()
    assert run("relax", "Cu.cif", "--model", copper.checkpoint, "--submit") == 0
    printed = capsys.readouterr().out
    assert "with ESEN_FLOWS_MONGO_URI_FILE, ESEN_FLOWS_DATABASE, ESEN_FLOWS_DATA_DIR set as here" in printed
    assert "esen-flows db start" not in printed  # with a URI, the server is not known to be the private one
    assert "mongodb://" not in printed

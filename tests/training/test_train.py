"""Training: it learns, resumes to the same bits, and refuses impossible inputs."""

import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from stages import DENS, DIRECT, argon_data, stage

from esen_flows.data.dataset import from_structures
from esen_flows.data.folders import open_dataset, write_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.errors import FolderInUseError, InputError
from esen_flows.files import only_process_in
from esen_flows.forcefield.checkpoint import load
from esen_flows.forcefield.load import load_force_field
from esen_flows.training.distributed import World
from esen_flows.training.divergence import TrainingDivergedError
from esen_flows.training.estimate import estimate
from esen_flows.training.metrics import read_rows
from esen_flows.training.state import saved_states
from esen_flows.training.train import TrainingInterrupted, train

KINDS = {
    "conservative": {"random_inversion": True},
    "accumulated": {"edges_per_pass": 200, "edges_per_chunk": 100},
    "denoising": DENS,
}


@pytest.fixture(scope="module")
def data():
    return argon_data()


def test_training_learns_and_its_checkpoint_is_a_force_field(data, tmp_path):
    path = train(stage(epochs=30, random_inversion=True), *data, tmp_path)
    errors = [row["force_rmse_mev_per_angstrom"] for row in read_rows(tmp_path / "history.csv")]
    assert errors[-1] < 0.4 * errors[0]
    held_out = data[1][0]
    (result,) = load_force_field(path).evaluate([held_out.atoms])
    assert np.corrcoef(result.forces.ravel(), held_out.forces.ravel())[0, 1] > 0.9
    assert load(path).training["config"]["epochs"] == 30
    steps = read_rows(tmp_path / "steps.csv")
    assert {row["step"] for row in steps} > set(range(10, int(steps[-1]["step"]) + 1, 10))
    assert steps[-1]["loss"] == pytest.approx(sum(steps[-1][name] for name in ("energy", "forces", "stress")))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop_at", [3, 17])
def test_an_interrupted_training_ends_with_the_same_bits(data, tmp_path, kind, stop_at):
    config = stage(**KINDS[kind])
    whole = load(train(config, *data, tmp_path / "whole"))

    def interrupt(state):
        if state["step"] == stop_at:
            signal.raise_signal(signal.SIGUSR1)

    with pytest.raises(TrainingInterrupted, match=f"step {stop_at + 1}"):
        train(config, *data, tmp_path / "parts", progress=interrupt)
    resumed = load(train(config, *data, tmp_path / "parts"))
    assert resumed.model_key == whole.model_key
    for name in ("steps.csv", "history.csv"):
        rows = [read_rows(tmp_path / part / name) for part in ("whole", "parts")]
        for row in (*rows[0], *rows[1]):
            del row["seconds"], row["cpu_seconds"]
        assert rows[0] == rows[1]


def test_a_training_without_time_left_stops_after_a_step(data, tmp_path):
    with pytest.raises(TrainingInterrupted, match="same call goes on") as caught:
        train(stage(), *data, tmp_path, max_seconds=0.0)
    assert caught.value.step == 1
    assert len(saved_states(tmp_path)) == 1


def test_a_folder_of_another_training_is_refused(data, tmp_path):
    train(stage(epochs=1), *data, tmp_path)
    with pytest.raises(InputError, match=r"learning_rate 0.01 instead of 0.1"):
        train(stage(epochs=1, learning_rate=0.1), *data, tmp_path)
    with pytest.raises(InputError, match="training '"):
        train(stage(epochs=1), data[1], data[1], tmp_path)


def test_two_processes_do_not_train_in_one_folder(data, tmp_path):
    with only_process_in(tmp_path), pytest.raises(FolderInUseError, match="another process writes into"):
        train(stage(epochs=1), *data, tmp_path)
    train(stage(epochs=1), *data, tmp_path)


def test_a_process_that_does_not_lead_says_why_the_folder_is_refused(data, tmp_path, monkeypatch):
    refusal = FolderInUseError("another process writes into the folder")
    monkeypatch.setattr(World, "share_object", lambda *_: refusal)
    with pytest.raises(FolderInUseError, match="another process writes"):
        train(stage(epochs=1), *data, tmp_path, world=World(rank=1, size=2))


def test_a_loss_that_is_not_finite_for_any_record_blames_the_weights(data, tmp_path):
    with pytest.raises(
        TrainingDivergedError, match=r"not finite .*at step [12] .*: the weights, or the scale of .* eV, are the reason"
    ):
        train(stage(learning_rate=1e30, warmup_steps=0), *data, tmp_path)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    return load(train(stage(epochs=1), *data, tmp_path_factory.mktemp("trained")))


@pytest.mark.parametrize("loss", ["absolute", "relative"])
@pytest.mark.parametrize("size", [1e60, 1e30])  # infinite in float32, and infinite when it is squared
def test_a_loss_that_is_not_finite_names_its_records(data, tmp_path, trained, loss, size):
    items = [data[0][index] for index in range(12)]
    for index in (3, 7):
        items[index] = replace(items[index], forces=np.full((4, 3), size), group="broken", material=f"Ar-{index}")
    write_dataset(tmp_path / "d", items)
    config = stage(loss=loss, edges_per_batch=10**6)
    with pytest.raises(TrainingDivergedError) as caught:
        train(config, open_dataset(tmp_path / "d"), data[1], tmp_path / "run", initial=trained)
    message = str(caught.value)
    named = re.findall(r"record (\d+) of \S+/d \(Ar4, '(Ar-\d)', 'broken': ", message)
    assert sorted(named) == [("3", "Ar-3"), ("7", "Ar-7")], message


@pytest.mark.parametrize("kind", ["slab", "box"])
def test_a_stored_stress_without_a_volume_is_not_trained_on(data, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("esen_flows.data.dataset.without_meaningless_stress", lambda item: item)  # as datasets were
    atoms = data[0][0].atoms.copy()
    atoms.pbc = [True, True, False] if kind == "slab" else False
    if kind == "slab":
        atoms.cell[2] = 0.0
    old = LabelledStructure(atoms, -0.1, np.zeros((4, 3)), np.full((3, 3), 0.01))
    mixed = from_structures([data[0][index] for index in range(4)] + [old])
    assert np.isfinite(mixed[4].stress).all()
    train(stage(epochs=1), mixed, data[1], tmp_path)
    assert all(np.isfinite(row["loss"]) for row in read_rows(tmp_path / "steps.csv"))


def test_accumulated_passes_give_the_same_training(data, tmp_path):
    changes = {"dtype": "float64", "epochs": 2}
    whole = load(train(stage(**changes), *data, tmp_path / "whole"))
    parts = load(train(stage(**changes, edges_per_pass=150), *data, tmp_path / "parts"))
    for name, value in parts.network.state_dict().items():
        torch.testing.assert_close(value, whole.network.state_dict()[name], atol=1e-6, rtol=1e-5)


def test_molecules_without_a_volume_keep_the_gradient_finite(data, tmp_path):
    cluster = data[0][0].atoms.copy()
    cluster.pbc = False
    cluster.cell = None
    free = LabelledStructure(cluster, -0.1, np.zeros((len(cluster), 3)), np.full((3, 3), np.nan), "free")
    mixed = from_structures([data[0][index] for index in range(4)] + [free])
    train(stage(epochs=1), mixed, data[1], tmp_path)
    assert all(np.isfinite(row["loss"]) for row in read_rows(tmp_path / "steps.csv"))
    assert load(tmp_path / "checkpoint.safetensors").model_key


def test_a_direct_stage_trains_in_bfloat16(data, tmp_path):
    path = train(stage(**DIRECT, autocast="bfloat16", epochs=30), *data, tmp_path)
    errors = [row["force_rmse_mev_per_angstrom"] for row in read_rows(tmp_path / "history.csv")]
    assert errors[-1] < 0.7 * errors[0]
    assert not load_force_field(path).declaration.conservative


def test_a_missing_device_is_refused(data, tmp_path):
    with pytest.raises(InputError, match="device 'meta:7x' cannot be used"):
        estimate(stage(), data[0], device="meta:7x")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"'cuda' cannot be used.*available: cpu"):
            train(stage(), *data, tmp_path / "no", world=World(device=torch.device("cuda")))
        assert not (tmp_path / "no").exists()


def test_no_torch_global_is_left_behind(data, tmp_path):
    before = (torch.get_default_dtype(), torch.is_grad_enabled(), signal.getsignal(signal.SIGTERM))
    train(stage(epochs=1), *data, tmp_path)
    assert (torch.get_default_dtype(), torch.is_grad_enabled(), signal.getsignal(signal.SIGTERM)) == before

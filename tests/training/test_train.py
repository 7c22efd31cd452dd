"""Training: it learns, it resumes to the bit, it refuses what cannot work."""

import signal

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones

from esen_flows.data.labelled import LabelledStructure
from esen_flows.errors import InputError
from esen_flows.forcefield.checkpoint import load
from esen_flows.forcefield.load import load_force_field
from esen_flows.training import train as training_module
from esen_flows.training.config import TrainingConfig, read_config
from esen_flows.training.train import train

CONFIG = {
    "num_layers": 1, "lmax": 2, "mmax": 2, "sphere_channels": 8, "hidden_channels": 8, "edge_channels": 8,
    "num_distance_basis": 8, "cutoff_angstrom": 5.0, "epochs": 6, "edges_per_batch": 400, "learning_rate": 0.01,
    "weight_decay": 0.001, "warmup_steps": 5, "clip_norm": 20.0, "ema_decay": 0.9, "loss": "relative",
    "energy_weight": 5.0, "force_weight": 1.0, "stress_weight": 0.5, "seed": 0, "random_inversion": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def argon():
    """Rattled, strained fcc argon with Lennard-Jones labels (epsilon 10.4 meV, sigma 3.4 Angstrom)."""
    structures = []
    for seed in range(24):
        atoms = bulk("Ar", "fcc", a=5.2 + 0.02 * (seed % 6), cubic=True)
        atoms.rattle(0.08, seed=seed)
        atoms.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=8.0, smooth=True)
        structures.append(
            LabelledStructure(
                atoms.copy(), atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False), "fcc"
            )
        )
    return structures[:20], structures[20:]


def test_training_learns_and_its_checkpoint_is_a_force_field(argon, tmp_path):
    config = TrainingConfig(**CONFIG | {"epochs": 30})
    path = train(config, *argon, tmp_path)
    history = (tmp_path / "history.csv").read_text().splitlines()
    errors = [float(row.split(",")[6]) for row in history[1:]]
    assert errors[-1] < 0.4 * errors[0]  # force RMSE of held-out frames, meV/Angstrom
    force_field = load_force_field(path)
    held_out = argon[1][0]
    (result,) = force_field.evaluate([held_out.atoms])
    assert np.corrcoef(result.forces.ravel(), held_out.forces.ravel())[0, 1] > 0.9
    assert load(path).training["config"]["epochs"] == 30


@pytest.mark.parametrize("stop_at", [3, 17])
def test_an_interrupted_training_ends_with_the_same_bits(argon, tmp_path, stop_at):
    config = TrainingConfig(**CONFIG)
    whole = load(train(config, *argon, tmp_path / "whole"))

    def interrupt(state):
        if state["step"] == stop_at:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match=f"step {stop_at}"):
        train(config, *argon, tmp_path / "parts", progress=interrupt)
    resumed = load(train(config, *argon, tmp_path / "parts"))
    assert resumed.model_key == whole.model_key


def test_a_folder_of_another_configuration_is_refused(argon, tmp_path):
    train(TrainingConfig(**CONFIG | {"epochs": 1}), *argon, tmp_path)
    with pytest.raises(InputError, match="learning_rate"):
        train(TrainingConfig(**CONFIG | {"epochs": 1, "learning_rate": 0.1}), *argon, tmp_path)


def test_a_nan_label_stops_with_the_step(argon, tmp_path):
    broken = LabelledStructure(argon[0][0].atoms, float("nan"), argon[0][0].forces, argon[0][0].stress, "x")
    bad = [LabelledStructure(s.atoms, s.energy, s.forces * np.nan, s.stress, "x") for s in argon[0][:1]]
    assert np.isnan(broken.energy)
    with pytest.raises(training_module.TrainingDivergedError, match="step 0"):
        train(TrainingConfig(**CONFIG), bad, argon[1], tmp_path)


def test_a_second_stage_starts_from_the_first(argon, tmp_path):
    first = load(train(TrainingConfig(**CONFIG), *argon, tmp_path / "first"))
    still = TrainingConfig(**CONFIG | {"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "seed": 5})
    second = load(train(still, *argon, tmp_path / "second", initial=first))
    for name, value in second.network.state_dict().items():
        assert torch.allclose(value, first.network.state_dict()[name], atol=1e-7)
    assert second.training["initial_model_key"] == first.model_key
    wider = TrainingConfig(**CONFIG | {"sphere_channels": 16})
    with pytest.raises(InputError, match="sphere_channels=16"):
        train(wider, *argon, tmp_path / "third", initial=first)


def test_no_torch_global_is_left_behind(argon, tmp_path):
    before = (torch.get_default_dtype(), torch.is_grad_enabled(), signal.getsignal(signal.SIGTERM))
    train(TrainingConfig(**CONFIG | {"epochs": 1}), *argon, tmp_path)
    assert (torch.get_default_dtype(), torch.is_grad_enabled(), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [("epochs: 3\nspeed: 9\n", "speed"), ("- 1\n", "mapping"), ("epochs: [", "YAML"), ("epochs: 3\n", "missing")],
)
def test_bad_training_files_name_what_is_wrong(tmp_path, text, words):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(InputError, match=words):
        read_config(tmp_path / "t.yaml")


def test_a_binary_training_file_is_refused(tmp_path):
    (tmp_path / "t.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="YAML"):
        read_config(tmp_path / "t.yaml")

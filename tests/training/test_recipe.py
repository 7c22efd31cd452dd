"""Stages one after the other: pre-training with denoising, then a conservative stage from its network."""

import os
import signal

import pytest
from stages import DENS, argon_data, stage

from esen_flows.forcefield.checkpoint import load
from esen_flows.training import train as train_module
from esen_flows.training.recipe import Stage, train_stages
from esen_flows.training.train import TrainingInterrupted


def test_a_conservative_stage_follows_a_direct_one_and_is_resumed(tmp_path):
    data = argon_data()
    stages = [
        Stage("1-pretrain", stage(**DENS, epochs=3), *data),
        Stage("2-finetune", stage(epochs=3, seed=1), *data),
    ]
    whole = load(train_stages(stages, tmp_path / "whole"))
    assert not whole.network.config.direct_forces
    first = load(tmp_path / "whole" / "1-pretrain" / "checkpoint.safetensors")
    assert whole.training["initial_model_key"] == first.model_key
    for _ in range(40):
        try:
            parts = load(train_stages(stages, tmp_path / "parts", max_seconds=0.0))
            break
        except TrainingInterrupted:
            continue
    else:
        pytest.fail("a stage that makes a step in every call should have ended")
    assert parts.model_key == whole.model_key


def test_a_signal_during_the_last_validation_of_a_stage_stops_the_next_one(tmp_path, monkeypatch):
    def validated(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    original = train_module.evaluate_dataset
    monkeypatch.setattr(train_module, "evaluate_dataset", validated)
    stages = [Stage(name, stage(epochs=1), *argon_data()) for name in ("1", "2")]
    with pytest.raises(TrainingInterrupted, match="stopped after step 1 of"):
        train_stages(stages, tmp_path)
    assert (tmp_path / "1" / "checkpoint.safetensors").is_file()
    assert not (tmp_path / "2" / "checkpoint.safetensors").exists()

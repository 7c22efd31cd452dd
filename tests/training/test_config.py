"""Training files: one flat mapping, whose errors are named."""

import pytest
from stages import DENS, STAGE, stage

from esen_flows.errors import InputError
from esen_flows.training.config import config_from_dict, read_config


@pytest.mark.parametrize(
    ("text", "words"),
    [("epochs: 3\nspeed: 9\n", "speed"), ("- 1\n", "mapping"), ("epochs: [", "YAML"), ("epochs: 3\n", "missing")],
)
def test_errors_of_training_files_name_the_key(tmp_path, text, words):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(InputError, match=words):
        read_config(tmp_path / "t.yaml")


def test_a_binary_training_file_is_refused(tmp_path):
    (tmp_path / "t.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="YAML"):
        read_config(tmp_path / "t.yaml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "epochs must be a positive number, got 0"),
        ({"learning_rate": "fast"}, "learning_rate must be a positive number, got 'fast'"),
        ({"ema_decay": 1.0}, "ema_decay must be in"),
        ({"warmup_epochs": 0.1}, "one of warmup_steps and warmup_epochs"),
        ({"loss": "mae"}, "loss must be one of absolute, relative, got 'mae'"),
        ({"autocast": "bfloat16"}, "for direct-force stages"),
        ({"direct_forces": True, "loss": "absolute"}, "without a stress head"),
        ({"direct_forces": True, "stress_weight": 0.0}, "relative is for conservative"),
        ({"lmax": 1}, "1 <= mmax <= lmax"),
        ({"denoising_probability": 2}, r"denoising_probability must be in \[0, 1\], got 2"),
        ({"edges_per_pass": 0}, "edges_per_pass must be a positive integer"),
    ],
)
def test_impossible_values_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        stage(**changes)


def test_a_stage_survives_its_flat_values():
    config = stage(**DENS, betas=[0.9, 0.98], freeze=["sphere_embedding"])
    assert config.network.denoising
    assert config_from_dict(config.to_dict()) == config
    assert set(STAGE) <= set(config.to_dict())

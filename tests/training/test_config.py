"""Training files: one flat mapping, whose errors are named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stages import DENS, STAGE, stage

from esen_flows.errors import InputError
from esen_flows.training.config import config_from_dict, read_config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs: 3\nspeed: 9\n", "speed"),
        ("- 1\n", "mapping"),
        ("epochs: [", "YAML"),
        ("7: 1\n", r"unknown keys \[7\]"),
        ("epochs: 3\n", r"missing \[.*'clip_norm'.*'num_layers'.*example"),
    ],
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
        ({"epochs": 0}, "epochs must be a positive integer of at most 1,000,000, got 0"),
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
        ({"epochs": 10**9}, "epochs must be a positive integer of at most 1,000,000, got 1000000000"),
        ({"energy_weight": "much"}, "energy_weight must be a number of at least 0, got 'much'"),
        ({"force_weight": float("nan")}, "force_weight must be a number of at least 0, got nan"),
        ({"clip_norm": float("inf")}, "clip_norm must be a positive number, got inf"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": 1.5}, "seed must be an integer"),
        ({"betas": [0.9]}, r"betas must be a list: each number of it, got \(0.9,\)"),
        ({"betas": [0.9, 1.0]}, r"betas must be in \[0, 1\)"),
        ({"betas": "ab"}, "betas must be a list"),
        ({"freeze": "sphere"}, "freeze must be a list: each text of it, got 'sphere'"),
        ({"freeze": [1]}, "freeze must be a list"),
        ({"group_share": {"bulk": 2.0}}, "group_share must be a mapping of names to numbers: each number of it in"),
        ({"group_share": {1: 0.5}}, "group_share must be a mapping"),
        ({"group_share": [0.5]}, "group_share must be a mapping"),
        ({"random_inversion": "false"}, "random_inversion must be true or false, got 'false'"),
        ({"dtype": ["float32"]}, r"dtype must be one of float32, float64, got \['float32'\]"),
        ({"num_layers": 10**6}, "num_layers must be positive and at most 100"),
        ({"hidden_channels": 10**9}, "hidden_channels must be positive and at most 10000"),
        ({"lmax": 100}, "lmax must be positive and at most 16"),
        ({"curvature_every": 4}, "curvature_every does nothing without a curvature_weight"),
        ({"cutoff_angstrom": 1e9}, "cutoff_angstrom must be positive and at most 30"),
        ({"cutoff_angstrom": float("nan")}, "cutoff_angstrom must be positive"),
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


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.floats(), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.floats(), max_size=2)
)  # fmt: skip


@given(changes=st.dictionaries(st.sampled_from([*stage().to_dict(), "nothing"]), VALUES, min_size=1, max_size=4))
def test_any_values_give_a_stage_or_one_message(changes):
    try:
        config = config_from_dict({**STAGE, **changes}, "stage.yaml")
    except InputError as error:
        message = str(error)
    else:
        message = "stage.yaml: "
        assert config_from_dict(config.to_dict()) == config
    assert message.startswith("stage.yaml: ")


def test_a_later_field_changes_no_key_at_its_default():
    assert "tf32" not in stage().to_dict()
    rounded = stage(tf32=True)
    assert rounded.to_dict()["tf32"] is True
    assert config_from_dict(rounded.to_dict()) == rounded
    with pytest.raises(InputError, match="tf32 is for dtype float32, got float64"):
        stage(tf32=True, dtype="float64")

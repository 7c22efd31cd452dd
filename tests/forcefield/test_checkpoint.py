"""Native checkpoints: round trip, keys, and corrupted files refused with the reason."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from safetensors.torch import load_file, save_file
from small_force_field import small_checkpoint

from esen_flows.errors import ModelError
from esen_flows.forcefield.checkpoint import load, save
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.schemas.checkpoint_header import read_header


@pytest.fixture
def written(tmp_path):
    checkpoint = replace(small_checkpoint(seed=3), training={"seed": 3}, model_key="")
    path = tmp_path / "model.safetensors"
    return path, save(path, checkpoint), checkpoint


def test_round_trip_gives_the_same_numbers_and_key(written):
    path, key, checkpoint = written
    loaded = load(path)
    assert loaded.model_key == key == read_header(path)["model_key"]
    before = NetworkForceField(checkpoint).evaluate([bulk("Si")])[0]
    after = NetworkForceField(loaded).evaluate([bulk("Si")])[0]
    assert before.energy == after.energy
    assert np.array_equal(before.forces, after.forces)
    assert not list(path.parent.glob("*.partial*"))


def test_the_key_depends_on_numbers_and_not_on_notes(written, tmp_path):
    _, key, c = written
    c.network.float()
    noted = replace(c, training={"note": "other"})
    assert save(tmp_path / "a.safetensors", noted) == key
    assert save(tmp_path / "b.safetensors", replace(c, scale_ev=1.6)) != key
    c.network.sphere_embedding.weight.data[14, 0] += 1e-6
    assert save(tmp_path / "c.safetensors", noted) != key


def corrupt_flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 0x10
    path.write_bytes(data)


def corrupt_truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def corrupt_header(path):
    path.write_bytes(b"\xff" * 64)


def corrupt_foreign(path):
    save_file({"a": torch.zeros(2)}, path)


def corrupt_nan(path):
    loaded = load(path)
    loaded.network.norm.affine_bias.data[0] = float("nan")
    save(path, loaded)


def corrupt_shape(path):
    header = read_header(path)
    header["architecture"]["sphere_channels"] = 7
    rewrite_header(path, header)


def corrupt_scale(path):
    header = read_header(path)
    del header["scale_ev"]
    rewrite_header(path, header)


def rewrite_header(path, header):
    save_file(load_file(path), path, metadata={"esen_flows": json.dumps(header)})


@pytest.mark.parametrize(
    ("corrupt", "words"),
    [
        (corrupt_flip, "does not match its own key|NaN"),
        (corrupt_truncate, "truncated"),
        (corrupt_header, "not a safetensors checkpoint"),
        (corrupt_foreign, "without an 'esen_flows' header"),
        (corrupt_nan, "NaN"),
        (corrupt_shape, "cannot be loaded"),
        (corrupt_scale, "cannot be loaded: 'scale_ev'"),
    ],
)
def test_corrupted_files_are_refused_with_the_reason(written, corrupt, words):
    path, _, _ = written
    corrupt(path)
    with pytest.raises(ModelError, match=words):
        load(path)


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"no checkpoint file at .*nowhere"):
        load(tmp_path / "nowhere.safetensors")


def test_a_file_that_cannot_be_written_leaves_nothing(written, tmp_path):
    _, _, checkpoint = written
    (tmp_path / "taken.safetensors").mkdir()
    for target in ("taken.safetensors", "nowhere/model.safetensors"):
        with pytest.raises(ModelError, match=f"{target} cannot be written"):
            save(tmp_path / target, checkpoint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "taken.safetensors"]

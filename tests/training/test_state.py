"""States on disk: the newest undamaged one is resumed, and only by the training that wrote it."""

import pytest
import torch
from stages import stage

from esen_flows.errors import InputError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.network.esen.esen import ESEN
from esen_flows.training.state import TrainingState, newest_state, saved_states

IDENTITY = {"config": {"seed": 0}, "training": "a", "initial": None}


@pytest.fixture
def folder(tmp_path):
    """States after 1, 2 and 3 steps."""
    config = stage()
    torch.manual_seed(0)
    state = TrainingState.fresh(Checkpoint(ESEN(config.network), 1.5, {18: -0.1}, (18,)), config)
    for step in (1, 2, 3):
        state.step, state.batch = step, step
        state.network.get_parameter("energy_block.4.bias").data += 1.0
        state.save(tmp_path, IDENTITY)
    return tmp_path


def test_the_two_newest_are_kept(folder):
    assert [path.name[:16] for path in saved_states(folder)] == ["state-0000000002", "state-0000000003"]
    saved = newest_state(folder, IDENTITY)
    assert saved["position"] == [0, 3, 3]
    assert saved["references_ev"] == {18: -0.1}


@pytest.mark.parametrize("damage", ["half", "empty", "flipped"])
def test_a_damaged_newest_state_is_skipped(folder, damage):
    newest = saved_states(folder)[-1]
    content = bytearray(newest.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    newest.write_bytes({"half": content[: len(content) // 2], "empty": b""}.get(damage, content))
    with pytest.warns(UserWarning, match="is damaged"):
        saved = newest_state(folder, IDENTITY)
    assert saved["position"] == [0, 2, 2]


def test_a_state_of_another_training_is_refused_by_name(folder):
    with pytest.raises(InputError, match="seed 0 instead of 1"):
        newest_state(folder, {**IDENTITY, "config": {"seed": 1}})
    assert newest_state(folder / "nowhere", IDENTITY) is None


def test_a_saved_state_is_restored(folder):
    config = stage()
    state = TrainingState.fresh(Checkpoint(ESEN(config.network), 1.0, {}, ()), config)
    state.restore(newest_state(folder, IDENTITY))
    assert (state.scale_ev, state.references_ev, state.epoch, state.batch, state.step) == (1.5, {18: -0.1}, 0, 3, 3)

"""Two processes train as one does, and resume as one does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ranks
import torch

from esen_flows.errors import InputError
from esen_flows.forcefield.checkpoint import load
from esen_flows.training.distributed import joined

SCRIPT = Path(__file__).with_name("ranks.py")
PATIENCE_SECONDS = 600.0  # a machine may be busy with other work


def run_ranks(folder, size, *arguments, **environment):
    """Start `size` processes; the losses that the first one printed, the exit codes and the messages."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(size):
        values = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        if size > 1:
            values |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
        command = [sys.executable, str(SCRIPT), str(folder), *map(str, arguments)]
        processes.append(
            subprocess.Popen(command, env=values, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    outputs = [process.communicate(timeout=PATIENCE_SECONDS) for process in processes]
    losses = {int(step): float(loss) for step, loss in (line.split() for line in outputs[0][0].splitlines())}
    return losses, [process.returncode for process in processes], "".join(error for _, error in outputs)


def in_this_process(folder):
    """The losses of a training by this process alone, with one thread as in processes of their own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return ranks.run(folder)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return folder, in_this_process(folder)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    losses, codes, errors = run_ranks(folder, 2)
    assert codes == [0, 0], errors
    return folder, losses


def test_two_ranks_follow_the_losses_of_one(alone, together):
    assert len(alone[1]) >= 12
    assert together[1] == pytest.approx(alone[1], rel=1e-6)


def test_two_stopped_ranks_are_resumed_to_the_same_bits(together, tmp_path):
    _, codes, errors = run_ranks(tmp_path, 2, 7)
    assert all(codes), errors
    assert "stopped after step 8" in errors
    losses, codes, errors = run_ranks(tmp_path, 2)
    assert codes == [0, 0], errors
    assert min(losses) == 9
    keys = [load(folder / "checkpoint.safetensors").model_key for folder in (together[0], tmp_path)]
    assert keys[0] == keys[1]


def test_a_killed_process_resumes_from_its_saved_state(alone, tmp_path):
    steps_per_epoch = len(alone[1]) // 4
    _, codes, _ = run_ranks(tmp_path, 1, steps_per_epoch + 2, HARD="1")
    assert codes == [-9]
    losses = in_this_process(tmp_path)
    assert 1 < min(losses) <= steps_per_epoch + 3
    keys = [load(folder / "checkpoint.safetensors").model_key for folder in (alone[0], tmp_path)]
    assert keys[0] == keys[1]


def test_processes_without_an_address_are_refused():
    with (
        pytest.raises(InputError, match="2 processes train together, but MASTER_ADDR"),
        joined(environment={"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}),
    ):
        pass
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}
    with joined(environment=batch_script) as world:
        assert world.size == 1

"""A training in one of several processes, for test_distributed: python ranks.py FOLDER [KILL_AT_STEP]."""

import os
import signal
import sys
from pathlib import Path

import torch
from stages import DENS, argon_data, stage

from esen_flows.training.distributed import joined
from esen_flows.training.train import train


def run(folder: Path, kill_at: int | None = None) -> dict[int, float]:
    """Train in a folder, and print the loss of each step; the losses by step."""
    losses: dict[int, float] = {}

    def progress(state: dict[str, float]) -> None:
        losses[int(state["step"])] = state["loss"]
        print(f"{state['step']} {state['loss']!r}", flush=True)
        if state["step"] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL if os.environ.get("HARD") else signal.SIGTERM)

    config = stage(**DENS, dtype="float64", epochs=4, denoising_atoms=0.7)
    with joined() as world:
        train(config, *argon_data(), folder, progress=progress, world=world)
    return losses


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)

"""A training in one of several processes, for test_distributed: python ranks.py FOLDER [KILL_AT_STEP]."""

import os
import signal
import sys
from pathlib import Path

import torch
from stages import DENS, argon_data, stage

from esen_flows.training.distributed import joined
from esen_flows.training.train import train

torch.set_num_threads(1)
folder, kill_at = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None


def progress(state: dict[str, float]) -> None:
    print(f"{state['step']} {state['loss']!r}", flush=True)
    if state["step"] == kill_at:
        os.kill(os.getpid(), signal.SIGKILL if os.environ.get("HARD") else signal.SIGTERM)


config = stage(**DENS, dtype="float64", epochs=8, denoising_atoms=0.7)
with joined() as world:
    train(config, *argon_data(), folder, progress=progress, world=world)

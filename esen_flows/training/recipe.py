"""Stages one after the other: each starts from the network of the stage before it."""

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esen_flows.data.dataset import Dataset
from esen_flows.forcefield.checkpoint import Checkpoint, load
from esen_flows.stopping import SIGNALS, Allocation, handling
from esen_flows.training.config import TrainingConfig
from esen_flows.training.curvature import ForceConstants
from esen_flows.training.distributed import ALONE, World
from esen_flows.training.train import Progress, train


@dataclass(frozen=True)
class Stage:
    """A stage with its data.

    Parameters
    ----------
    name
        Name of its folder, such as "1-pretrain".
    config
        Its settings.
    training, validation
        Labelled structures to train on, and to measure errors on.
    """

    name: str
    config: TrainingConfig
    training: Dataset
    validation: Dataset


def train_stages(
    stages: Sequence[Stage],
    folder: str | Path,
    *,
    initial: Checkpoint | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    world: World = ALONE,
    max_seconds: float | None = None,
    force_constants: Sequence[ForceConstants] = (),
) -> Path:
    """Train stages one after the other, each in a folder of its own.

    Called again after an interruption, it skips the stages that are done and resumes the one that was interrupted.

    Parameters
    ----------
    stages
        The stages in their order.
    folder
        Holds the folders of the stages.
    initial
        Network that the first stage starts from; None: random weights.
    provenance, progress, world
        As in `train`.
    max_seconds
        Wall time of this call, over all stages; None: no limit.
    force_constants
        As in `train`, for the stages with `curvature_weight`.

    Returns
    -------
    Path
        The checkpoint of the last stage.

    Raises
    ------
    InputError, TrainingDivergedError, TrainingInterrupted
        As in `train`.
    """
    path = Path(folder)
    time_of_call = Allocation(None if max_seconds is None else time.monotonic() + max_seconds)
    with handling((*SIGNALS, signal.SIGINT), time_of_call.request_stop):
        for stage in stages:
            left = None if max_seconds is None else time_of_call.seconds_left
            path = train(
                stage.config,
                stage.training,
                stage.validation,
                Path(folder) / stage.name,
                initial=initial,
                provenance=provenance,
                progress=progress,
                world=world,
                max_seconds=0.0 if time_of_call.requested else left,  # asked to stop while a stage was validated
                force_constants=force_constants if stage.config.curvature_weight else (),
            )
            initial = load(path)
    return path

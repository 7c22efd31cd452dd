"""A training as a file describes it, carried out by one process or by many that a launcher starts.

    torchrun --nproc-per-node=4 -m esen_flows.makers.training_task FOLDER
    srun --ntasks=8 --gpus-per-task=1 python -m esen_flows.makers.training_task FOLDER

Only the job that starts them uses the database. The processes have the datasets' folders, the first checkpoint and
FOLDER, on a file system that all nodes share.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from esen_flows import errors
from esen_flows.errors import EsenFlowsError
from esen_flows.files import only_process_in
from esen_flows.schemas.training import Split
from esen_flows.stopping import SIGNALS, end_with_parent, handling

if TYPE_CHECKING:
    from esen_flows.data.dataset import Dataset
    from esen_flows.training.distributed import World

TASK_NAME, LAUNCH_LOCK = "task.json", ".launch.lock"
# Name of the file in the folder for the error of a launch: processes of another one must not be taken for its own.
OUTCOME_VARIABLE = "ESEN_FLOWS_TRAINING_OUTCOME"
Progress = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class TrainingTask:
    """The inputs of a training that has no database.

    Attributes
    ----------
    config
        `TrainingConfig.to_dict()`.
    datasets
        Folder of each dataset, and how often an epoch sees it.
    split
        `Split` of each dataset.
    initial
        Checkpoint to start from; None: random weights.
    provenance
        Written into the checkpoint's header.
    device
        "cpu" or "cuda".
    max_seconds
        Wall time after which the training saves and stops; None: no limit.
    """

    config: dict[str, Any]
    datasets: list[tuple[str, int]]
    split: dict[str, Any]
    initial: str | None
    provenance: dict[str, Any]
    device: str
    max_seconds: float | None


def carry_out(task: TrainingTask, folder: Path, world: "World", progress: Progress | None = None) -> Path:
    """Run or resume the training of a task in this process.

    Parameters
    ----------
    task
        The training.
    folder
        Folder of the training, which `train` fills.
    world
        The processes that share the work.
    progress
        Called after every step, see `train`.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    InputError, TrainingDivergedError, TrainingInterrupted
        As in `train`.
    """
    from esen_flows.data.dataset import mixture
    from esen_flows.data.folders import open_dataset
    from esen_flows.forcefield.checkpoint import load
    from esen_flows.training.config import config_from_dict
    from esen_flows.training.train import train

    split = Split.model_validate(task.split)
    parts = [(*split_dataset(open_dataset(place), split), repeats) for place, repeats in task.datasets]
    training = mixture([(seen, repeats) for seen, _, repeats in parts])
    validation = mixture([(held_out, 1) for _, held_out, _ in parts])
    counts = {
        "training_structures": sum(len(seen) for seen, _, _ in parts),
        "validation_structures": len(validation),
    }
    return train(
        config_from_dict(task.config),
        training,
        validation,
        folder,
        initial=None if task.initial is None else load(task.initial),
        provenance={**task.provenance, **counts},
        progress=progress,
        world=world,
        max_seconds=task.max_seconds,
    )


def split_dataset(dataset: "Dataset", split: Split) -> "tuple[Dataset, Dataset]":
    """Divide a dataset into the part to train on and the part that is held out.

    Parameters
    ----------
    dataset
        Labelled structures.
    split
        Share that is held out, and seed.

    Returns
    -------
    tuple[Dataset, Dataset]
        Training and held-out part.
    """
    from esen_flows.data.splits import split_by_material

    return split_by_material(dataset, split.fraction, split.seed).apply(dataset)


def launch(task: TrainingTask, folder: Path, launcher: Sequence[str]) -> Path:
    """Run or resume the training of a task in the processes that a launcher starts.

    SIGTERM, SIGINT, SIGUSR1 and the death of this process reach them as SIGTERM, on which they save and stop.

    Parameters
    ----------
    task
        The training.
    folder
        Folder of the training, on a file system that all nodes share.
    launcher
        Command line of the launcher, to which "-m module folder" is added.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    FolderInUseError
        Another process has launched a training in the folder that runs.
    EsenFlowsError
        The error that ended the training, as its own type, or the processes ended without writing one down.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with only_process_in(folder, LAUNCH_LOCK):  # the processes use another lock, that of `train`
        return _launch(task, folder, launcher)


def _launch(task: TrainingTask, folder: Path, launcher: Sequence[str]) -> Path:
    for left in folder.glob("outcome-*.json"):
        left.unlink(missing_ok=True)
    outcome = folder / f"outcome-{uuid4().hex}.json"
    (folder / TASK_NAME).write_text(json.dumps(asdict(task)))
    search = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [*launcher, "-m", __name__, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search), OUTCOME_VARIABLE: outcome.name},
        start_new_session=True,  # a Ctrl-C of the terminal reaches the processes once, through this one
        preexec_fn=end_with_parent,  # two trainings in one folder would spoil each other
    )
    # The launcher hands SIGTERM on to its processes.
    with handling((*SIGNALS, signal.SIGINT), lambda: process.send_signal(signal.SIGTERM)):
        code = process.wait()
    if outcome.is_file():
        content = json.loads(outcome.read_text())
        outcome.unlink()
        raise _error_of(content)
    if code != 0:
        raise EsenFlowsError(
            f"the training processes ended with code {code} without an error of ours; look at their output. Command: "
            f"{' '.join(launcher)} -m {__name__} {folder}"
        )
    from esen_flows.training.train import CHECKPOINT_NAME

    return folder / CHECKPOINT_NAME


def main(folder: Path) -> None:
    """Be one of the processes that a launcher has started.

    An error of the training is written down for `launch`, and the process ends with status 0: torchrun would kill all
    processes at the first failure, also the one that writes the error down.

    Parameters
    ----------
    folder
        Folder of the training, with the task.

    Raises
    ------
    EsenFlowsError
        The training fails, and `launch` has not started this process.
    """
    from esen_flows.training.distributed import joined

    values = json.loads((folder / TASK_NAME).read_text())
    task = TrainingTask(**values)
    steps = {"done": 0, "total": 0}

    def note(row: dict[str, float]) -> None:
        steps.update(done=int(row["step"]), total=int(row["total_steps"]))

    with joined(task.device) as world:
        try:
            carry_out(task, folder, world, note)
        except EsenFlowsError as error:
            if OUTCOME_VARIABLE not in os.environ:
                raise  # started by hand
            if world.leads:
                content = {"error": type(error).__name__, "message": str(error), **steps}
                (folder / os.environ[OUTCOME_VARIABLE]).write_text(json.dumps(content))
            else:
                print(f"process {world.rank}: {error}", file=sys.stderr)


def _error_of(outcome: dict[str, Any]) -> EsenFlowsError:
    """The error that the first process has written down, as its own type."""
    from esen_flows.training.divergence import TrainingDivergedError
    from esen_flows.training.train import TrainingInterrupted

    name, message = outcome["error"], outcome["message"]
    if name == TrainingInterrupted.__name__:
        return TrainingInterrupted(outcome["done"], outcome["total"])
    kind = TrainingDivergedError if name == TrainingDivergedError.__name__ else getattr(errors, name, EsenFlowsError)
    error: EsenFlowsError = kind(message)
    return error


if __name__ == "__main__":
    main(Path(sys.argv[1]))

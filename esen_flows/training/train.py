"""The training loop: one stage, on one process or many, from data to a checkpoint.

The file reads top to bottom. For each epoch `_run_epochs`

1. plans the batches: a random order of the structures, cut into batches by their edges (`plan_epoch`);
2. goes through the batches (`_run_epoch`): `load_batch` makes the graphs of a later batch in a thread, while
   `training_step` (`steps.py`) computes the loss of this one, sums its gradient over all processes, clips it, takes a
   step of AdamW and moves the average of the weights;
3. validates the average on held-out structures, and writes a checkpoint of it (`_validate`);
4. saves its state, as it does every minute.

Every batch is a function of seed, epoch and its number alone, so that a training that was stopped and resumed on CPUs
ends with the same bits as one that was not. On GPUs the batches are the same, but the terms of sums over edges
(`index_add`) are added in an order that changes from run to run, and so do the last digits.
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from esen_flows.data.dataset import Dataset
from esen_flows.errors import EsenFlowsError, FolderInUseError
from esen_flows.files import only_process_in
from esen_flows.forcefield.checkpoint import Checkpoint, save
from esen_flows.forcefield.families import make_network
from esen_flows.forcefield.load import check_device
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.stopping import SIGNALS, Allocation, handling
from esen_flows.training.batches import Epoch, plan_epoch, prefetched
from esen_flows.training.config import TrainingConfig
from esen_flows.training.curvature import Curvature, ForceConstants
from esen_flows.training.distributed import ALONE, World
from esen_flows.training.evaluate import evaluate_dataset
from esen_flows.training.initial import prepared, starting_point
from esen_flows.training.metrics import HISTORY_NAME, STEPS_NAME, Metrics
from esen_flows.training.schedule import learning_rate_factor
from esen_flows.training.state import TrainingState, newest_state
from esen_flows.training.steps import TrainingRun, curvature_step, load_batch, training_step

CHECKPOINT_NAME = "checkpoint.safetensors"
SAVE_EVERY_SECONDS = 60.0
LOG_EVERY_STEPS = 10
LOADER_THREADS = 4  # that make batches for a GPU
Progress = Callable[[dict[str, float]], None]


class TrainingInterrupted(EsenFlowsError):
    """A training was asked to stop, or its time was up. It has saved its state, and the same call resumes it.

    Parameters
    ----------
    step
        Optimiser steps done.
    total
        Optimiser steps of the whole stage, estimated from the current epoch.

    Attributes
    ----------
    step
        Optimiser steps done.
    """

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: run it again

    def __init__(self, step: int, total: int) -> None:
        super().__init__(f"stopped after step {step} of about {total}; the same call goes on from there")
        self.step = step


def train(
    config: TrainingConfig,
    training: Dataset,
    validation: Dataset,
    folder: str | Path,
    *,
    initial: Checkpoint | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    world: World = ALONE,
    max_seconds: float | None = None,
    force_constants: Sequence[ForceConstants] = (),
) -> Path:
    """Train one stage and write a checkpoint of its averaged weights.

    On SIGTERM, SIGINT or SIGUSR1, or after `max_seconds`, it saves its state and raises; the same call resumes it.

    Parameters
    ----------
    config
        Settings of the stage.
    training, validation
        Labelled structures to train on, and to measure errors on.
    folder
        Receives steps.csv, history.csv, the state and checkpoint.safetensors; all processes share it.
    initial
        Start from this network, with its scale and element references, instead of random weights.
    provenance
        Written into the checkpoint's header; not part of its key.
    progress
        Called after every step with a row of steps.csv, and total_steps (an estimate).
    world
        The processes that share the work, from `distributed.joined`.
    max_seconds
        Wall time of this call; None: no limit.
    force_constants
        Supercells with force constants, for a stage with `curvature_weight`.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    InputError
        There is no such device, the folder holds another training, the initial network does not fit, or the stage needs
        force constants that were not given, has no use for them, or has no data of their elements.
    FolderInUseError
        Another process trains in the folder.
    InsufficientMemoryError
        A structure, or a supercell with force constants, does not fit into memory.
    TrainingDivergedError, TrainingInterrupted
        The loss is NaN or infinite; the training was stopped before its end, and has saved its state.
    """
    check_device(str(world.device))
    folder, initial_key = Path(folder), None if initial is None else initial.model_key
    keys = {"training": training.key, "validation": validation.key, "initial": initial_key}
    curvature = Curvature.of(config, force_constants)
    if curvature is not None:
        keys["curvature"] = curvature.key
    identity = {"config": config.to_dict(), **keys}
    folder.mkdir(parents=True, exist_ok=True)
    with _only_training_in(folder, world):
        state = _state(folder, identity, config, training, initial, world)
        if curvature is not None:
            curvature.check_elements(state.references_ev)
        edges = training.edge_counts(config.network.cutoff_angstrom)
        run = TrainingRun(config, training, edges, world, state, curvature)
        time_of_call = Allocation(None if max_seconds is None else time.monotonic() + max_seconds)
        _run_epochs(run, validation, folder, identity, provenance or {}, progress, time_of_call)
        world.wait()
    return folder / CHECKPOINT_NAME


@contextmanager
def _only_training_in(folder: Path, world: World) -> Iterator[None]:
    """Keep other trainings out of a folder. The first process asks, and all raise if it is refused."""
    with ExitStack() as stack:
        refused: EsenFlowsError | OSError | None = None
        if world.leads:
            try:
                stack.enter_context(only_process_in(folder))
            except (FolderInUseError, OSError) as error:
                refused = error
        if (refused := world.share_object(refused)) is not None:
            raise refused
        yield


def _run_epochs(
    run: TrainingRun,
    validation: Dataset,
    folder: Path,
    identity: Mapping[str, Any],
    provenance: Mapping[str, Any],
    progress: Progress | None,
    time_of_call: Allocation,
) -> None:
    """Train, validate and save, epoch by epoch."""
    config, state, leads = run.config, run.state, run.world.leads
    header = {
        "config": identity["config"], "initial_model_key": identity["initial"], "provenance": dict(provenance),
    }  # fmt: skip
    save_state = partial(state.save, folder, identity)
    tables = closing(Metrics(folder, state.step, state.epoch)) if leads else nullcontext()
    with handling((*SIGNALS, signal.SIGINT), time_of_call.request_stop), tables as metrics:
        while state.epoch < config.epochs:
            plan = plan_epoch(run.training, run.edges, config, state.epoch)
            _run_epoch(run, plan, time_of_call, metrics, progress, save_state)
            state.epoch, state.batch = state.epoch + 1, 0
            if state.epoch % config.validate_every_epochs == 0 or state.epoch == config.epochs:
                _validate(run, validation, folder, metrics, header)
            if leads:
                save_state()


def _state(
    folder: Path,
    identity: Mapping[str, Any],
    config: TrainingConfig,
    training: Dataset,
    initial: Checkpoint | None,
    world: World,
) -> TrainingState:
    """The saved state of the folder's training, or a state before the first step; the same in all processes."""
    saved = world.share_object(newest_state(folder, identity) if world.leads else None)
    if saved is None:
        start = starting_point(config, training, initial)
    else:  # the file has what was fitted to the data
        start = Checkpoint(
            prepared(make_network(config.network), config), saved["scale_ev"], saved["references_ev"], ()
        )
    start.network.to(world.device)
    world.share(list(start.network.state_dict().values()))
    state = TrainingState.fresh(start, config)
    if saved is not None:
        state.restore(saved)
    return state


def _run_epoch(
    run: TrainingRun,
    plan: Epoch,
    time_of_call: Allocation,
    metrics: Metrics | None,
    progress: Progress | None,
    save_state: Callable[[], None],
) -> None:
    """Take the steps of an epoch that are not done yet; tell, log and save."""
    state, config, leads = run.state, run.config, run.world.leads
    saved = time.monotonic()
    numbers = range(state.batch, len(plan))
    # A GPU computes faster than one thread makes neighbour lists; a CPU has no core to spare for more.
    threads = LOADER_THREADS if run.world.device.type == "cuda" else 1
    loaded = prefetched(partial(load_batch, run, plan, state.epoch), numbers, threads=threads)
    for number, parts in zip(numbers, loaded, strict=True):
        started, cpu_started = time.monotonic(), time.process_time()
        done = (state.epoch + number / len(plan)) / config.epochs
        rate = config.learning_rate * learning_rate_factor(state.step, done, run.steps(len(plan)), config)
        terms, norm, stopping = training_step(run, parts, rate, time_of_call.is_stopping, plan.batch(number))
        before, after = state.step, run.steps(run.batches_done + 1)
        state.batch, state.step = number + 1, state.step + 1
        if after > state.step:
            state.curvature = curvature_step(run, rate)
            state.step = after
        loss = sum(terms.values())
        if run.curvature is not None:  # of the last step that had it
            terms = {**terms, "curvature": terms.get("curvature", state.curvature)}
        state.seconds += time.monotonic() - started
        state.cpu_seconds += time.process_time() - cpu_started
        row = {"step": state.step, "epoch": state.epoch, "loss": loss, **terms,
               "learning_rate": rate, "gradient_norm": norm, "seconds": round(state.seconds, 2),
               "cpu_seconds": round(state.cpu_seconds, 2)}  # fmt: skip
        is_logged = state.step // LOG_EVERY_STEPS > before // LOG_EVERY_STEPS or number + 1 == len(plan)
        if metrics is not None and is_logged:
            metrics.write(STEPS_NAME, row)
        later = len(plan) - state.batch + (config.epochs - state.epoch - 1) * len(plan)
        total_steps = run.steps(run.batches_done + later)
        if progress and leads:
            progress({**row, "total_steps": total_steps})
        if leads and (stopping or time.monotonic() - saved > SAVE_EVERY_SECONDS):
            save_state()
            saved = time.monotonic()
        if stopping:
            run.world.wait()  # no process leaves before the first one has saved
            raise TrainingInterrupted(state.step, total_steps)


def _validate(
    run: TrainingRun, validation: Dataset, folder: Path, metrics: Metrics | None, header: Mapping[str, Any]
) -> None:
    """Write the averaged weights' errors on held-out structures into the history, and the weights as a checkpoint."""
    state, config = run.state, run.config
    averaged = make_network(config.network).to(getattr(torch, config.dtype))
    averaged.load_state_dict(state.network.state_dict())  # what is not averaged, such as buffers
    state.average.copy_to(averaged.parameters())
    checkpoint = Checkpoint(averaged.float(), state.scale_ev, state.references_ev, tuple(sorted(state.references_ev)))
    force_field = NetworkForceField(checkpoint, device=str(run.world.device), dtype=config.dtype)
    errors = evaluate_dataset(force_field, validation, world=run.world)
    row = dict(errors["all"])
    training = {**header, "epoch": state.epoch, "steps": state.step, "seconds": state.seconds, "validation": errors}
    if config.network.has_both_forces:
        direct = training["validation_direct"] = evaluate_dataset(force_field.direct(), validation, world=run.world)
        row |= {f"direct_{name}": direct["all"][name] for name in row if name.startswith(("force", "stress"))}
    if metrics is None:
        return
    times = {"seconds": round(state.seconds, 1), "cpu_seconds": round(state.cpu_seconds, 1)}
    metrics.write(HISTORY_NAME, {"step": state.step, "epoch": state.epoch, **times, **row})
    save(folder / CHECKPOINT_NAME, replace(checkpoint, training=training))

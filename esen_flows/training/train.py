"""The training loop, top to bottom: one stage, on one process or many, from data to a checkpoint.

Every batch is a function of seed, epoch and number alone, so that a training that was stopped ends with the same bits
as one that was not.
"""

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from esen_flows.data.dataset import Dataset
from esen_flows.errors import EsenFlowsError
from esen_flows.forcefield.checkpoint import Checkpoint, save
from esen_flows.forcefield.esen import EsenForceField
from esen_flows.forcefield.load import check_device
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.esen import ESEN
from esen_flows.training.batches import Epoch, Pick, ahead, passes, plan_epoch, share_of
from esen_flows.training.config import TrainingConfig
from esen_flows.training.denoising import draw_noise, is_noised
from esen_flows.training.distributed import ALONE, World
from esen_flows.training.evaluate import evaluate_dataset
from esen_flows.training.frames import Frame, LabelledBatch, collate, make_frame
from esen_flows.training.initial import InitialNetwork, prepared, starting_point
from esen_flows.training.loss import Counts, training_loss
from esen_flows.training.metrics import HISTORY_NAME, STEPS_NAME, Metrics
from esen_flows.training.schedule import learning_rate_factor
from esen_flows.training.state import TrainingState, newest_state

CHECKPOINT_NAME = "checkpoint.safetensors"
SAVE_EVERY_SECONDS = 60.0
LOG_EVERY_STEPS = 10
TERMS = ("energy", "forces", "stress", "denoising")
Progress = Callable[[dict[str, float]], None]


class TrainingDivergedError(EsenFlowsError):
    """The loss became NaN or infinite."""

    final = True


class TrainingInterrupted(EsenFlowsError):
    """A training was asked to stop, or came to the end of its time; it has saved, and the same call goes on from there.

    Attributes
    ----------
    step
        optimiser steps done.
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
) -> Path:
    """Train one stage and return the path of its checkpoint (weights: the moving average).

    On SIGTERM, SIGINT or SIGUSR1, or after `max_seconds`, it saves and leaves; called again with the same folder it
    goes on, batch for batch as if it had never stopped.

    Parameters
    ----------
    training, validation
        labelled structures.
    initial
        start from this network, with its scale and element references, instead of random weights.
    folder
        receives steps.csv, history.csv, the state and checkpoint.safetensors; shared by all processes.
    provenance
        goes into the checkpoint's header, not into its key.
    progress
        called after every step with epoch, step, total_steps (an estimate), loss, learning_rate, seconds.
    world
        the processes that share the work, see `distributed.joined`.
    max_seconds
        of this call.

    Raises
    ------
    InputError
        no such device, a folder of another training, or an initial network that does not fit.
    TrainingDivergedError
        NaN loss, with the step and the structures.
    TrainingInterrupted
        it was stopped, and has saved.
    """
    check_device(str(world.device))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    identity = {
        "config": config.to_dict(),
        "training": training.key,
        "validation": validation.key,
        "initial": initial.model_key if initial else None,
    }
    state = _state(folder, identity, config, training, initial, world)
    run = TrainingRun(config, training, training.edge_counts(config.network.cutoff_angstrom), world, state)
    header = {
        "config": config.to_dict(),
        "initial_model_key": identity["initial"],
        "provenance": dict(provenance or {}),
    }
    deadline = None if max_seconds is None else time.monotonic() + max_seconds
    metrics = Metrics(folder, state.step, state.epoch) if world.leads else None
    with _StopRequest(deadline) as stop, closing(metrics) if metrics else nullcontext():
        while state.epoch < config.epochs:
            plan = plan_epoch(training, run.edges, config, state.epoch)
            _run_epoch(run, plan, stop, metrics, progress, partial(state.save, folder, identity))
            state.epoch, state.batch = state.epoch + 1, 0
            if state.epoch % config.validate_every_epochs == 0 or state.epoch == config.epochs:
                _validate(run, validation, folder, metrics, header)
            if world.leads:
                state.save(folder, identity)
    world.wait()
    return folder / CHECKPOINT_NAME


@dataclass(frozen=True)
class TrainingRun:
    """What all steps of a call share."""

    config: TrainingConfig
    training: Dataset
    edges: Any  # (n,) directed edges of each structure
    world: World
    state: TrainingState


def _state(
    folder: Path,
    identity: Mapping[str, Any],
    config: TrainingConfig,
    training: Dataset,
    initial: Checkpoint | None,
    world: World,
) -> TrainingState:
    """Where the folder's training is, or before its first step."""
    saved = world.share_object(newest_state(folder, identity) if world.leads else None)
    if saved is None:
        start = starting_point(config, training, initial)
    else:  # what is fitted to the data is in the file
        start = InitialNetwork(prepared(ESEN(config.network), config), saved["scale_ev"], saved["references_ev"])
    network = start.network.to(world.device)
    world.share(list(network.state_dict().values()))
    state = TrainingState.fresh(network, start.scale_ev, start.references_ev, config)
    if saved is not None:
        state.restore(saved)
    return state


def _run_epoch(
    run: TrainingRun,
    plan: Epoch,
    stop: "_StopRequest",
    metrics: Metrics | None,
    progress: Progress | None,
    save_state: Callable[[], None],
) -> None:
    """The rest of an epoch."""
    state, config = run.state, run.config
    saved = time.monotonic()
    numbers = range(state.batch, len(plan))
    for number, parts in zip(numbers, ahead(partial(load_batch, run, plan, state.epoch), numbers), strict=True):
        started, cpu_started = time.monotonic(), time.process_time()
        done = (state.epoch + number / len(plan)) / config.epochs
        rate = config.learning_rate * learning_rate_factor(state.step, done, len(plan), config)
        terms, norm, stopping = training_step(run, parts, rate, stop.requested, plan.batch(number))
        state.batch, state.step = number + 1, state.step + 1
        state.seconds += time.monotonic() - started
        state.cpu_seconds += time.process_time() - cpu_started
        row = {"step": state.step, "epoch": state.epoch, "loss": sum(terms.values()), **terms,
               "learning_rate": rate, "gradient_norm": norm, "seconds": round(state.seconds, 2),
               "cpu_seconds": round(state.cpu_seconds, 2)}  # fmt: skip
        if metrics is not None and (state.step % LOG_EVERY_STEPS == 0 or number + 1 == len(plan)):
            metrics.write(STEPS_NAME, row)
        if progress and run.world.leads:
            later = len(plan) - state.batch + (config.epochs - state.epoch - 1) * len(plan)
            progress({**row, "total_steps": state.step + later})
        if run.world.leads and (stopping or time.monotonic() - saved > SAVE_EVERY_SECONDS):
            save_state()
            saved = time.monotonic()
        if stopping:
            run.world.wait()
            raise TrainingInterrupted(state.step, max(state.step, config.epochs * len(plan)))


def load_batch(run: TrainingRun, plan: Epoch, epoch: int, number: int) -> list[LabelledBatch]:
    """This process's part of a batch, in as many passes as its memory asks for."""
    config, state = run.config, run.state
    noised = is_noised(config, epoch, number)

    def frame(pick: Pick) -> Frame:
        item = run.training[pick.index]
        noise = draw_noise(config, epoch, number, pick.place, len(item.atoms)) if noised else None
        made = make_frame(item, config.network, state.references_ev, noise)
        return made.inverted() if pick.mirrored else made

    mine = share_of(plan.batch(number), run.world.rank, run.world.size)
    return [
        collate([frame(pick) for pick in part], getattr(torch, config.dtype), run.world.device)
        for part in passes(mine, config.edges_per_pass)
    ]


def training_step(
    run: TrainingRun, parts: Sequence[LabelledBatch], rate: float, stop: bool, picks: Sequence[Pick]
) -> tuple[dict[str, float], float, bool]:
    """One optimiser step; returns the terms of the loss before it, the gradient's norm, and whether any one stops."""
    state, config, world = run.state, run.config, run.world
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    local = sum((Counts.of(part) for part in parts), start=Counts(0, 0, 0, 0))
    *counted, stops = world.sum([local.systems, local.atoms, local.stresses, local.moved, float(stop)])
    sums = dict.fromkeys(TERMS, 0.0)
    for part in parts:
        for name, value in _backward(run, part, Counts(*counted)).items():
            sums[name] += value
    values = dict(zip(TERMS, world.sum(list(sums.values())), strict=True))
    if not all(map(math.isfinite, values.values())):
        raise TrainingDivergedError(_report(run, values, rate, picks))
    trained = [parameter for parameter in state.network.parameters() if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:  # of no part: its message must still have the size that the others expect
            parameter.grad = torch.zeros_like(parameter)
    world.sum_tensors([parameter.grad for parameter in trained if parameter.grad is not None])
    norm = float(torch.nn.utils.clip_grad_norm_(trained, config.clip_norm))
    state.optimizer.step()
    state.average.update(state.network.parameters())
    return values, norm, stops > 0


def _backward(run: TrainingRun, part: LabelledBatch, counts: Counts) -> dict[str, float]:
    """Add the gradient of one part of a batch, and return its terms of the loss."""
    network, config = run.state.network, run.config
    with torch.autocast(run.world.device.type, torch.bfloat16, enabled=config.autocast == "bfloat16"):
        prediction = energy_forces_stress(network, part.graph, create_graph=True, noised_forces=part.noised_forces)
    terms = training_loss(prediction, part, config, run.state.scale_ev, counts)
    torch.stack(list(terms.values())).sum().backward()
    return {name: float(value.detach()) for name, value in terms.items()}


def _report(run: TrainingRun, values: Mapping[str, float], rate: float, picks: Sequence[Pick]) -> str:
    """What to say of a loss that is not a number: where, and of which structures."""
    forces = [(float(abs(run.training[pick.index].forces).max()), pick.index) for pick in picks]
    worst = ", ".join(f"{index} ({force:.3g} eV/Angstrom)" for force, index in sorted(forces, reverse=True)[:3])
    return (
        f"the loss is not finite at step {run.state.step} (epoch {run.state.epoch}, batch {run.state.batch}): "
        f"{values}; learning rate {rate:.2g}, {len(picks)} structures, largest forces in structures {worst} of the "
        "training data. Look at their labels, or lower learning_rate or clip_norm; what was saved is from before"
    )


def _validate(
    run: TrainingRun, validation: Dataset, folder: Path, metrics: Metrics | None, header: Mapping[str, Any]
) -> None:
    """Errors of the moving average on held-out structures, into the history and a checkpoint."""
    state, config = run.state, run.config
    averaged = ESEN(config.network).to(getattr(torch, config.dtype))
    averaged.load_state_dict(state.network.state_dict())
    state.average.copy_to(averaged.parameters())
    elements = sorted(state.references_ev)
    checkpoint = Checkpoint(averaged.float(), state.scale_ev, state.references_ev, tuple(elements))
    force_field = EsenForceField(checkpoint, device=str(run.world.device), dtype=config.dtype)
    errors = evaluate_dataset(force_field, validation, world=run.world)
    if metrics is None:
        return
    row = {
        "step": state.step,
        "epoch": state.epoch,
        "seconds": round(state.seconds, 1),
        "cpu_seconds": round(state.cpu_seconds, 1),
        **errors["all"],
    }
    metrics.write(HISTORY_NAME, row)
    training = {**header, "epoch": state.epoch, "steps": state.step, "seconds": state.seconds, "validation": errors}
    save(
        folder / CHECKPOINT_NAME,
        Checkpoint(checkpoint.network, state.scale_ev, state.references_ev, tuple(elements), training),
    )


class _StopRequest:
    """Turns signals and the end of the time into a request that the loop answers between two steps."""

    def __init__(self, deadline: float | None) -> None:
        self._asked = False
        self._deadline = deadline

    @property
    def requested(self) -> bool:
        """Whether to save and leave."""
        return self._asked or (self._deadline is not None and time.monotonic() > self._deadline)

    def __enter__(self) -> "_StopRequest":
        self._previous: dict[int, Any] = {}
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            try:
                self._previous[number] = signal.signal(number, self._ask)
            except ValueError:  # not in the main thread: whoever runs us there handles signals
                break
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def __exit__(self, *details: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

"""The training loop: one stage, on one process or many, from data to a checkpoint.

The file reads top to bottom. For each epoch `_run_epochs`

1. plans the batches: a random order of the structures, cut into batches by their edges (`plan_epoch`);
2. goes through the batches (`_run_epoch`): `load_batch` makes the graphs of a later batch in a thread, while
   `training_step` computes the loss of this one, sums its gradient over all processes, clips it, takes a step of AdamW
   and moves the average of the weights;
3. validates the average on held-out structures, and writes a checkpoint of it (`_validate`);
4. saves its state, as it does every minute.

Every batch is a function of seed, epoch and its number alone, so that a training that was stopped and resumed on CPUs
ends with the same bits as one that was not. On GPUs the batches are the same, but the terms of sums over edges
(`index_add`) are added in an order that changes from run to run, and so do the last digits.
"""

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from esen_flows.data.dataset import Dataset
from esen_flows.errors import EsenFlowsError
from esen_flows.forcefield.batching import unless_out_of_memory
from esen_flows.forcefield.checkpoint import Checkpoint, save
from esen_flows.forcefield.families import make_network
from esen_flows.forcefield.load import check_device
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.forcefield.precision import tensor_float_32
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.stopping import SIGNALS, Allocation, handling
from esen_flows.training.asymmetry import asymmetry_term, draw_directions
from esen_flows.training.augmentation import random_orthogonal
from esen_flows.training.batches import Epoch, Pick, passes, plan_epoch, prefetched, share_of
from esen_flows.training.config import TrainingConfig
from esen_flows.training.curvature import Curvature, ForceConstants
from esen_flows.training.denoising import draw_noise, is_noised
from esen_flows.training.distributed import ALONE, World
from esen_flows.training.divergence import TrainingDivergedError, blamed
from esen_flows.training.evaluate import evaluate_dataset
from esen_flows.training.frames import Frame, LabelledBatch, collate, make_frame
from esen_flows.training.initial import prepared, starting_point
from esen_flows.training.loss import Counts, training_loss
from esen_flows.training.memory import within_memory
from esen_flows.training.metrics import HISTORY_NAME, STEPS_NAME, Metrics
from esen_flows.training.schedule import learning_rate_factor
from esen_flows.training.state import TrainingState, newest_state

CHECKPOINT_NAME = "checkpoint.safetensors"
SAVE_EVERY_SECONDS = 60.0
LOG_EVERY_STEPS = 10
LOADER_THREADS = 4  # that make batches for a GPU
TERMS = ("energy", "forces", "stress", "denoising")
DIRECT_TERMS = ("direct_forces", "direct_stress")  # of networks with both kinds of forces
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
    state = _state(folder, identity, config, training, initial, world)
    if curvature is not None:
        curvature.check_elements(state.references_ev)
    edges = training.edge_counts(config.network.cutoff_angstrom)
    run = TrainingRun(config, training, edges, world, state, curvature)
    time_of_call = Allocation(None if max_seconds is None else time.monotonic() + max_seconds)
    _run_epochs(run, validation, folder, identity, provenance or {}, progress, time_of_call)
    world.wait()
    return folder / CHECKPOINT_NAME


def _run_epochs(
    run: "TrainingRun",
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


@dataclass(frozen=True)
class TrainingRun:
    """What all steps of one call of `train` share.

    Attributes
    ----------
    config
        Settings of the stage.
    training
        Structures to train on.
    edges
        (n,) directed edges of each of these structures.
    world
        The processes that share the work.
    state
        Network, optimiser and position; every step changes it.
    curvature
        Force constants to train on, or None.
    """

    config: TrainingConfig
    training: Dataset
    edges: np.ndarray
    world: World
    state: TrainingState
    curvature: Curvature | None = None

    def steps(self, batches: int) -> int:
        """Optimiser steps of this many batches from the start of the training.

        Parameters
        ----------
        batches
            Number of batches.

        Returns
        -------
        int
            One step for each, and those on the curvature between them. They are counted over all epochs: an epoch may
            have fewer batches than there are between two of them.
        """
        every = self.config.curvature_every
        return batches if self.curvature is None or every is None else batches + batches // every

    @property
    def batches_done(self) -> int:
        """Batches since the start of the training, the inverse of `steps`."""
        step, every = self.state.step, self.config.curvature_every
        return step if self.curvature is None or every is None else step - step // (every + 1)


def _state(
    folder: Path,
    identity: Mapping[str, Any],
    config: TrainingConfig,
    training: Dataset,
    initial: Checkpoint | None,
    world: World,
) -> TrainingState:
    """The saved state of the folder's training, or a state before the first step; the same in all processes."""
    folder.mkdir(parents=True, exist_ok=True)
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


def load_batch(run: TrainingRun, plan: Epoch, epoch: int, number: int) -> list[LabelledBatch]:
    """Make this process's share of a batch, as tensors.

    Parameters
    ----------
    run
        The training.
    plan
        The batches of the epoch.
    epoch, number
        Numbers of the epoch, and of the batch in it.

    Returns
    -------
    list[LabelledBatch]
        Parts of at most `edges_per_pass` edges, to be computed one after the other.
    """
    mine = share_of(plan.batch(number), run.world.rank, run.world.size)
    return [_collated(run, part, epoch, number) for part in passes(mine, run.config.edges_per_pass)]


def _collated(run: TrainingRun, picks: Sequence[Pick], epoch: int, number: int) -> LabelledBatch:
    """Structures of a batch, with their noise, as tensors."""
    config = run.config
    noised = is_noised(config, epoch, number)

    def frame(pick: Pick) -> Frame:
        item = run.training[pick.index]
        noise = draw_noise(config, epoch, number, pick.place, len(item.atoms)) if noised else None
        made = make_frame(item, config.network, run.state.references_ev, noise)
        if config.network.augmentation == "O3":
            made = made.turned(random_orthogonal(config.seed, epoch, number, pick.place))
        if config.asymmetry_weight and noise is None:
            made = replace(made, directions=draw_directions(config, epoch, number, pick.place, len(item.atoms)))
        return made.inverted() if pick.mirrored else made

    return collate([frame(pick) for pick in picks], getattr(torch, config.dtype), run.world.device)


def training_step(
    run: TrainingRun, parts: Sequence[LabelledBatch], rate: float, stop: bool, picks: Sequence[Pick]
) -> tuple[dict[str, float], float, bool]:
    """Take one optimiser step.

    Parameters
    ----------
    run
        The training; its state is changed.
    parts
        This process's share of the batch.
    rate
        Learning rate of this step.
    stop
        Whether this process was asked to stop.
    picks
        The whole batch, for the message about a loss that is not finite.

    Returns
    -------
    tuple[dict[str, float], float, bool]
        Terms of the loss before the step, norm of its gradient, and whether any process was asked to stop. All
        processes get the same.

    Raises
    ------
    InsufficientMemoryError
        A single structure does not fit into memory, not even in the smallest chunks.
    TrainingDivergedError
        The loss or its gradient is NaN or infinite; the message names the records for which it is.
    """
    state, config, world = run.state, run.config, run.world
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    # Terms of the loss are means over the whole batch, so its size is known before any part is computed. The request to
    # stop travels with the same message: all processes stop after the same step.
    *counted, stops = world.sum([*astuple(Counts.of(parts)), float(stop)])
    with tensor_float_32(config.tf32):
        sums = within_memory(partial(_gradient, run, Counts(*counted)), parts, state.limits, state.network)
    values = dict(zip(sums, world.sum(list(sums.values())), strict=True))
    if not all(map(math.isfinite, values.values())):
        raise _diverged(run, f"the loss is not finite ({values})", rate, picks)
    norm = _descend(run)
    if not math.isfinite(norm):
        raise _diverged(run, "the gradient of the loss is not finite", rate, picks)
    return values, norm, stops > 0


def curvature_step(run: TrainingRun, rate: float) -> float:
    """Take one optimiser step on the loss on curvature alone.

    Parameters
    ----------
    run
        The training; its state is changed.
    rate
        Learning rate of this step.

    Returns
    -------
    float
        The loss before the step, of all processes.

    Raises
    ------
    InsufficientMemoryError
        A supercell does not fit into memory.
    TrainingDivergedError
        The loss or its gradient is NaN or infinite.
    """
    for group in run.state.optimizer.param_groups:
        group["lr"] = rate
    run.state.optimizer.zero_grad(set_to_none=True)
    with tensor_float_32(run.config.tf32):
        (loss,) = run.world.sum([_curvature_gradient(run)])
    norm = _descend(run) if math.isfinite(loss) else math.nan
    if not math.isfinite(norm):
        raise TrainingDivergedError(
            f"the loss on force constants ({loss:g}) or its gradient is not finite at step {run.state.step}, learning "
            f"rate {rate:.2g}; lower learning_rate or clip_norm. The saved state is from before"
        )
    return loss


def _descend(run: TrainingRun) -> float:
    """Sum the gradient over all processes, clip it and take a step along it; the norm of the gradient.

    Without a step where the norm is not finite: it would make all weights NaN, and the next batch look like the reason.
    """
    state, world = run.state, run.world
    trained = [parameter for parameter in state.network.parameters() if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:  # a process without a part still sends a message of the size that the others expect
            parameter.grad = torch.zeros_like(parameter)
    world.sum_tensors([parameter.grad for parameter in trained if parameter.grad is not None])
    norm = float(torch.nn.utils.clip_grad_norm_(trained, run.config.clip_norm))
    if math.isfinite(norm):
        state.optimizer.step()
        state.average.update(state.network.parameters())
    return norm


def _gradient(run: TrainingRun, counts: Counts, parts: Sequence[LabelledBatch]) -> dict[str, float]:
    """Compute the gradient of all parts of a batch, and return their terms of the loss together."""
    run.state.optimizer.zero_grad(set_to_none=True)
    config = run.config
    names = [*TERMS, *(DIRECT_TERMS if config.network.has_both_forces else ())]
    sums = dict.fromkeys([*names, "asymmetry"] if config.asymmetry_weight else names, 0.0)
    for part in parts:
        for name, value in _backward(run, part, counts).items():
            sums[name] += value
    if run.curvature is not None and run.config.curvature_every is None:
        sums["curvature"] = _curvature_gradient(run)
    return sums


def _curvature_gradient(run: TrainingRun) -> float:
    """Add the gradient of this process's share of the loss on curvature, and return the share."""
    assert run.curvature is not None
    curvature, state, world = run.curvature, run.state, run.world

    def added() -> float:
        found = 0.0
        for term in curvature.terms(state.network, state.scale_ev, state.step, world.rank):
            share = term / world.size  # each process has supercells and directions of its own
            share.backward()
            found += float(share.detach())
        return found

    share = unless_out_of_memory(added)
    if share is None:
        raise curvature.too_large()
    return share


def _backward(run: TrainingRun, part: LabelledBatch, counts: Counts) -> dict[str, float]:
    """Add the gradient of one part of a batch to the parameters', and return its terms of the loss."""
    network, config = run.state.network, run.config
    vectors = None if part.directions is None else part.graph.vectors.detach().requires_grad_(True)
    with torch.autocast(run.world.device.type, torch.bfloat16, enabled=config.autocast == "bfloat16"):
        prediction = energy_forces_stress(
            network, part.graph, create_graph=True, noised_forces=part.noised_forces, vectors=vectors
        )
    terms = training_loss(prediction, part, config, run.state.scale_ev, counts)
    if vectors is not None:
        forces = prediction.forces if prediction.direct is None else prediction.direct.forces
        terms["asymmetry"] = config.asymmetry_weight * asymmetry_term(forces, vectors, part, counts.systems)
    torch.stack(list(terms.values())).sum().backward()
    return {name: float(value.detach()) for name, value in terms.items()}


def _diverged(run: TrainingRun, what: str, rate: float, picks: Sequence[Pick]) -> TrainingDivergedError:
    """Where the loss is not finite, and for which records."""
    state = run.state

    def is_finite(pick: Pick) -> bool:
        state.optimizer.zero_grad(set_to_none=True)
        part = _collated(run, [pick], state.epoch, state.batch)
        terms = _backward(run, part, Counts.of([part]))
        gradients = [p.grad for p in state.network.parameters() if p.grad is not None]
        return all(map(math.isfinite, terms.values())) and all(bool(g.isfinite().all()) for g in gradients)

    return TrainingDivergedError(
        f"{what} at step {state.step} (epoch {state.epoch}, batch {state.batch}, learning rate {rate:.2g}); "
        f"{blamed(run.training, picks, is_finite, state.scale_ev)}. The saved state is from before"
    )


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

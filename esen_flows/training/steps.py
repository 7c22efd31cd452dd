"""One optimiser step of a training: the tensors of a batch, the gradient of its loss, and the step along it.

Where a batch does not fit into memory it is computed in smaller passes.
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial

import numpy as np
import torch

from esen_flows.data.dataset import Dataset
from esen_flows.forcefield.batching import unless_out_of_memory
from esen_flows.forcefield.precision import tensor_float_32
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.training.asymmetry import asymmetry_term, draw_directions
from esen_flows.training.augmentation import random_orthogonal
from esen_flows.training.batches import Epoch, Pick, passes, share_of
from esen_flows.training.config import TrainingConfig
from esen_flows.training.curvature import Curvature
from esen_flows.training.denoising import draw_noise, is_noised
from esen_flows.training.distributed import World
from esen_flows.training.divergence import TrainingDivergedError, blamed
from esen_flows.training.frames import Frame, LabelledBatch, collate, make_frame
from esen_flows.training.loss import Counts, training_loss
from esen_flows.training.memory import within_memory
from esen_flows.training.state import TrainingState

TERMS = ("energy", "forces", "stress", "denoising")
DIRECT_TERMS = ("direct_forces", "direct_stress")  # of networks with both kinds of forces


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

"""What a stage will cost, from a few steps that are measured here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

import numpy as np
import torch

from esen_flows.data.dataset import Dataset, subset
from esen_flows.forcefield.load import check_device
from esen_flows.training.batches import plan_epoch
from esen_flows.training.config import TrainingConfig
from esen_flows.training.curvature import Curvature, ForceConstants
from esen_flows.training.distributed import World
from esen_flows.training.initial import starting_point
from esen_flows.training.state import TrainingState
from esen_flows.training.steps import TrainingRun, curvature_step, load_batch, training_step

EDGES_MEASURED = {"cpu": 3_000, "cuda": 200_000}  # enough to fill the device
STEPS_MEASURED = 3


@dataclass(frozen=True)
class Estimate:
    """The size of a stage.

    Parameters
    ----------
    parameters
        Parameters of the network.
    structures, edges
        Structures and directed edges that the stage sees, over all its epochs.
    steps
        Optimiser steps.
    seconds_per_edge
        Measured seconds of a training step per edge.
    device_hours
        Edges times seconds per edge, and steps on the curvature alone times their seconds, in hours of one device of
        the kind that was measured.
    """

    parameters: int
    structures: int
    edges: int
    steps: int
    seconds_per_edge: float
    device_hours: float


def estimate(
    config: TrainingConfig, training: Dataset, device: str = "cpu", force_constants: Sequence[ForceConstants] = ()
) -> Estimate:
    """Measure a few steps on some of the data, and multiply.

    Parameters
    ----------
    config
        Settings of the stage.
    training
        Structures to train on.
    device
        A torch device.
    force_constants
        As in `train`.

    Returns
    -------
    Estimate
        Counts of the stage and its time.

    Raises
    ------
    InputError
        There is no such device, or the stage and the force constants do not go together.
    """
    check_device(device)
    edges = training.edge_counts(config.network.cutoff_angstrom)
    plan = plan_epoch(training, edges, config, 0)
    run = _measured_run(config, training, edges, torch.device(device), Curvature.of(config, force_constants))
    seconds = _seconds_per_edge(run)
    total, batches = config.epochs * int(plan.edges.sum()), config.epochs * len(plan)
    alone = run.steps(batches) - batches
    seconds_alone = _seconds_of_curvature(run) if alone else 0.0
    return Estimate(
        parameters=sum(parameter.numel() for parameter in run.state.network.parameters()),
        structures=config.epochs * len(plan.order),
        edges=total,
        steps=batches + alone,
        seconds_per_edge=seconds,
        device_hours=(total * seconds + alone * seconds_alone) / 3600,
    )


def _measured_run(
    config: TrainingConfig, training: Dataset, edges: np.ndarray, device: torch.device, curvature: Curvature | None
) -> TrainingRun:
    """A training on structures drawn at random, with about as many edges as are measured on this device."""
    order = np.random.default_rng(0).permutation(len(training))
    last = int(np.searchsorted(np.cumsum(edges[order]), EDGES_MEASURED[device.type])) + 1
    some = subset(training, order[:last])
    start = starting_point(config, some, None)
    start.network.to(device)
    state = TrainingState.fresh(start, config)
    return TrainingRun(config, some, edges[order[:last]], World(device=device), state, curvature)


def _seconds_of_curvature(run: TrainingRun) -> float:
    """Mean over the measured steps on the curvature alone, whose supercells differ in size."""
    seconds = []
    for number in range(STEPS_MEASURED + 1):
        run.state.step = number  # decides the supercells
        began = time.perf_counter()
        curvature_step(run, 0.0)
        if run.world.device.type == "cuda":
            torch.cuda.synchronize(run.world.device)
        seconds.append(time.perf_counter() - began)
    return mean(seconds[1:])


def _seconds_per_edge(run: TrainingRun) -> float:
    """Median over the measured steps."""
    plan = plan_epoch(run.training, run.edges, run.config, 0)
    per_edge = []
    for number in range(STEPS_MEASURED + 1):
        batch = number % len(plan)
        picks = plan.batch(batch)
        parts = load_batch(run, plan, 0, batch)
        began = time.perf_counter()
        training_step(run, parts, 0.0, False, picks)
        if run.world.device.type == "cuda":
            torch.cuda.synchronize(run.world.device)
        per_edge.append((time.perf_counter() - began) / sum(pick.edges for pick in picks))
    return median(per_edge[1:])  # the first step is slower: it warms up the device

"""What a stage will cost, from steps that are measured here."""

import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from esen_flows.data.dataset import Dataset, subset
from esen_flows.forcefield.load import check_device
from esen_flows.training.batches import plan_epoch
from esen_flows.training.config import TrainingConfig
from esen_flows.training.distributed import World
from esen_flows.training.initial import starting_point
from esen_flows.training.state import TrainingState
from esen_flows.training.train import TrainingRun, load_batch, training_step

EDGES_MEASURED = {"cpu": 3_000, "cuda": 200_000}  # enough to fill the device
STEPS_MEASURED = 3


@dataclass(frozen=True)
class Estimate:
    """The size of a stage.

    Attributes
    ----------
    parameters
        of the network.
    structures, edges
        that the stage sees, over all its epochs.
    steps
        of the optimiser.
    seconds_per_edge
        measured, of a training step.
    device_hours
        edges times seconds per edge, of one device of the kind that was measured.
    """

    parameters: int
    structures: int
    edges: int
    steps: int
    seconds_per_edge: float
    device_hours: float


def estimate(config: TrainingConfig, training: Dataset, device: str = "cpu") -> Estimate:
    """Measure a few steps on some of the data, and multiply.

    Raises
    ------
    InputError
        no such device.
    """
    check_device(device)
    edges = training.edge_counts(config.network.cutoff_angstrom)
    plan = plan_epoch(training, edges, config, 0)
    some = _some(training, edges, EDGES_MEASURED[torch.device(device).type])
    seconds = _seconds_per_edge(config, some, device)
    total = config.epochs * int(plan.edges.sum())
    return Estimate(
        parameters=sum(p.numel() for p in starting_point(config, some, None).network.parameters()),
        structures=config.epochs * len(plan.order),
        edges=total,
        steps=config.epochs * len(plan),
        seconds_per_edge=seconds,
        device_hours=total * seconds / 3600,
    )


def _some(dataset: Dataset, edges: np.ndarray, wanted: int) -> Dataset:
    """Structures drawn at random, of about so many edges together."""
    order = np.random.default_rng(0).permutation(len(dataset))
    last = int(np.searchsorted(np.cumsum(edges[order]), wanted)) + 1
    return subset(dataset, order[:last])


def _seconds_per_edge(config: TrainingConfig, some: Dataset, device: str) -> float:
    start = starting_point(config, some, None)
    world = World(device=torch.device(device))
    state = TrainingState.fresh(start.network.to(world.device), start.scale_ev, start.references_ev, config)
    run = TrainingRun(config, some, some.edge_counts(config.network.cutoff_angstrom), world, state)
    plan = plan_epoch(some, run.edges, config, 0)
    per_edge = []
    for number in range(STEPS_MEASURED + 1):  # the first one is slower, and not counted
        batch = number % len(plan)
        picks = plan.batch(batch)
        parts = load_batch(run, plan, 0, batch)
        began = time.perf_counter()
        training_step(run, parts, 0.0, False, picks)
        if world.device.type == "cuda":
            torch.cuda.synchronize(world.device)
        per_edge.append((time.perf_counter() - began) / sum(pick.edges for pick in picks))
    return median(per_edge[1:])

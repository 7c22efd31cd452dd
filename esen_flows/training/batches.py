"""Which structures make a batch, and on which process: functions of seed and epoch alone, so that it can be resumed."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from esen_flows.data.dataset import Dataset
from esen_flows.training.config import TrainingConfig

Value = TypeVar("Value")


@dataclass(frozen=True)
class Pick:
    """A structure in a batch: its index in the dataset, its place in the batch, whether its mirror image is fed."""

    index: int
    place: int
    mirrored: bool
    edges: int


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch.

    Attributes
    ----------
    order
        (n,) dataset indices in the order in which they are seen.
    mirrored
        (n,) bool.
    edges
        (n,) directed edges of each.
    starts
        (batches + 1,) where batches begin in `order`.
    """

    order: np.ndarray
    mirrored: np.ndarray
    edges: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def batch(self, number: int) -> list[Pick]:
        """The structures of a batch, over all processes."""
        first, last = self.starts[number : number + 2]
        columns = zip(self.order[first:last], self.mirrored[first:last], self.edges[first:last], strict=True)
        return [Pick(int(i), place, bool(m), int(e)) for place, (i, m, e) in enumerate(columns)]


def plan_epoch(dataset: Dataset, edges: np.ndarray, config: TrainingConfig, epoch: int) -> Epoch:
    """A random order of what the epoch sees, cut into batches of at most `edges_per_batch` directed edges.

    Parameters
    ----------
    edges
        (n,) directed edges of each structure of the dataset.
    """
    random = np.random.default_rng([config.seed, epoch])
    shares = config.group_share or {}
    share = np.array([shares.get(name, 1.0) for name in dataset.group_names])[dataset.group]
    chosen = np.flatnonzero(random.random(len(dataset)) < share)
    order = random.permutation(chosen)
    mirrored = (random.random(len(dataset)) < 0.5)[order] & config.random_inversion
    sizes = edges[order]
    limits = (config.edges_per_batch, config.structures_per_batch or len(dataset))
    starts = list(_cut(sizes.tolist(), *limits))
    return Epoch(order, mirrored, sizes, np.array([*starts, len(order)]))


def _cut(sizes: Sequence[int], most_edges: int, most_structures: int) -> Iterator[int]:
    """Where batches begin: each holds at least one structure and at most so many edges and structures."""
    filled = count = 0
    for place, size in enumerate(sizes):
        if place == 0 or filled + size > most_edges or count == most_structures:
            yield place
            filled = count = 0
        filled, count = filled + size, count + 1


def share_of(picks: Sequence[Pick], rank: int, size: int) -> list[Pick]:
    """The part of a batch that one of `size` processes computes, such that all have about as many edges."""
    if size == 1:
        return list(picks)
    loads = [0] * size
    mine = []
    for pick in sorted(picks, key=lambda pick: (-pick.edges, pick.place)):
        least = loads.index(min(loads))
        loads[least] += pick.edges
        if least == rank:
            mine.append(pick)
    return sorted(mine, key=lambda pick: pick.place)


def passes(picks: Sequence[Pick], edges_per_pass: int | None) -> list[list[Pick]]:
    """Consecutive parts of at most so many edges (at least one structure each); one part if there is no limit."""
    if not picks:
        return []
    sizes = [pick.edges for pick in picks]
    starts = list(_cut(sizes, edges_per_pass or sum(sizes), len(picks)))
    return [list(picks[first:last]) for first, last in zip(starts, [*starts[1:], len(picks)], strict=True)]


def ahead(make: Callable[[int], Value], numbers: Sequence[int], depth: int = 2) -> Iterator[Value]:
    """`make` of each number in order, the next `depth` of them made in a thread while the caller computes."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: list[Future[Value]] = []
        try:
            for number in numbers:
                waiting.append(pool.submit(make, number))
                if len(waiting) > depth:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()

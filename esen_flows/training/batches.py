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
    """A structure in a batch.

    Attributes
    ----------
    index
        Index in the dataset.
    place
        Place in the batch; noise depends on it.
    mirrored
        Whether the mirror image takes the structure's place.
    edges
        Directed edges of its graph.
    """

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
        (n,) bool, whether the mirror image takes the structure's place.
    edges
        (n,) directed edges of each structure.
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
        """The structures of a batch, over all processes.

        Parameters
        ----------
        number
            Number of the batch in the epoch.

        Returns
        -------
        list[Pick]
            The structures in their order.
        """
        first, last = self.starts[number : number + 2]
        columns = zip(self.order[first:last], self.mirrored[first:last], self.edges[first:last], strict=True)
        return [Pick(int(i), place, bool(m), int(e)) for place, (i, m, e) in enumerate(columns)]


def plan_epoch(dataset: Dataset, edges: np.ndarray, config: TrainingConfig, epoch: int) -> Epoch:
    """Put an epoch's structures in a random order, and cut it into batches.

    Parameters
    ----------
    dataset
        Structures to train on.
    edges
        (n,) directed edges of each of them.
    config
        Settings of the stage: seed, limits of a batch, shares of groups.
    epoch
        Number of the epoch.

    Returns
    -------
    Epoch
        Batches of at most `edges_per_batch` edges, or of one larger structure.
    """
    random = np.random.default_rng([config.seed, epoch])
    shares = config.group_share or {}
    share = np.array([shares.get(name, 1.0) for name in dataset.group_names])[dataset.group]
    chosen = np.flatnonzero(random.random(len(dataset)) < share)
    order = random.permutation(chosen)
    # Drawn for the whole dataset: the order of the draws is part of what a resumed training has to repeat.
    mirrored = (random.random(len(dataset)) < 0.5)[order] & config.random_inversion
    sizes = edges[order]
    starts = list(cut(sizes.tolist(), config.edges_per_batch, config.structures_per_batch or len(dataset)))
    return Epoch(order, mirrored, sizes, np.array([*starts, len(order)]))


def cut(sizes: Sequence[int], most_edges: int, most_structures: int) -> Iterator[int]:
    """Where batches begin: each holds at least one structure, and at most this many edges and structures.

    Parameters
    ----------
    sizes
        Edges of the structures, in their order.
    most_edges, most_structures
        Limits of a batch.

    Yields
    ------
    int
        Place of the first structure of each batch.
    """
    filled = count = 0
    for place, size in enumerate(sizes):
        if place == 0 or filled + size > most_edges or count == most_structures:
            yield place
            filled = count = 0
        filled, count = filled + size, count + 1


def share_of(picks: Sequence[Pick], rank: int, size: int) -> list[Pick]:
    """One process's share of a batch, such that all processes have about as many edges.

    Parameters
    ----------
    picks
        The batch.
    rank, size
        Which of how many processes.

    Returns
    -------
    list[Pick]
        The share, in the order of the batch.
    """
    if size == 1:
        return list(picks)
    loads = [0] * size
    mine = []
    # Largest first, each to the process that has least: the usual bound is 4/3 of the best possible.
    for pick in sorted(picks, key=lambda pick: (-pick.edges, pick.place)):
        least = loads.index(min(loads))
        loads[least] += pick.edges
        if least == rank:
            mine.append(pick)
    return sorted(mine, key=lambda pick: pick.place)


def passes(picks: Sequence[Pick], edges_per_pass: int | None) -> list[list[Pick]]:
    """Cut a share of a batch into parts that are computed one after the other, to save memory.

    Parameters
    ----------
    picks
        The share.
    edges_per_pass
        Most edges of a part, which has at least one structure; None: no limit.

    Returns
    -------
    list[list[Pick]]
        Consecutive parts.
    """
    if not picks:
        return []
    sizes = [pick.edges for pick in picks]
    starts = list(cut(sizes, edges_per_pass or sum(sizes), len(picks)))
    return [list(picks[first:last]) for first, last in zip(starts, [*starts[1:], len(picks)], strict=True)]


def prefetched(make: Callable[[int], Value], numbers: Sequence[int], threads: int = 1) -> Iterator[Value]:
    """Make values in threads, while the caller computes with earlier ones.

    Parameters
    ----------
    make
        Makes the value of a number.
    numbers
        Numbers in the order of their values.
    threads
        Number of threads; one more value than that is made ahead. Values come in the order of their numbers.

    Yields
    ------
    Value
        The value of each number.
    """
    with ThreadPoolExecutor(max_workers=threads) as pool:
        waiting: list[Future[Value]] = []
        try:
            for number in numbers:
                waiting.append(pool.submit(make, number))
                if len(waiting) > threads + 1:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()

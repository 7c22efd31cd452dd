"""Batches of many structures: which go together, and what happens when a batch does not fit into memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import numpy as np
import torch

from esen_flows.errors import InsufficientMemoryError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Smaller chunks save nothing: parameters and data that do not depend on the chunk fill the memory then.
MINIMUM_EDGES = 64
# Items of at most one part in this many of a group leave little of it empty in whatever order they come.
SMALL = 16
# Full groups without a fault after which a budget that was lowered is raised, and by which factor.
FULL_GROUPS_BEFORE_RAISING, RAISED_BY = 16, 1.5
# Words of the plain RuntimeErrors by which PyTorch reports that memory ran out.
_OUT_OF_MEMORY_WORDS = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")


def packed(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Distribute items over few groups, each as full as possible.

    Items that all fit into one group keep their order, and so do items that are small beside a group, which are taken
    one after the other. Otherwise the method is first-fit decreasing, which needs at most 11/9 of the smallest number
    of groups (Dosa, ESCAPE 2007).

    Parameters
    ----------
    sizes
        Sizes of the items.
    capacity
        Largest sum of sizes in a group; an item that is larger is a group of its own.

    Returns
    -------
    list[list[int]]
        Indices of the items of each group.
    """
    if sum(sizes) <= capacity:
        return [list(range(len(sizes)))] if len(sizes) else []
    if SMALL * max(sizes) <= capacity:
        return _in_order(sizes, capacity)
    groups: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        place = next((k for k, left in enumerate(free) if sizes[index] <= left), len(groups))
        if place == len(groups):
            groups.append([])
            free.append(capacity)
        groups[place].append(index)
        free[place] -= sizes[index]
    return groups


def _in_order(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    ends = np.cumsum(sizes)
    groups, first = [], 0
    while first < len(sizes):
        before = ends[first] - sizes[first]
        last = int(np.searchsorted(ends, before + capacity, side="right"))
        groups.append(list(range(first, last)))
        first = last
    return groups


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or on the CPU.

    Parameters
    ----------
    error
        Error that PyTorch or Python raised.

    Returns
    -------
    bool
        True if less at a time may succeed.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY_WORDS)


@dataclass
class EdgeBudget:
    """Number of edges that are computed together; it is lowered when memory runs out, and raised again later.

    Memory may run out because of something that is gone later: another process on the same GPU, or another model. After
    some full groups without a fault a larger group is tried, up to the number at the start. Each time that this fails,
    the next trial comes later by a factor of two.

    Attributes
    ----------
    max_edges
        Largest number of edges of a batch, and of a chunk of a structure that is larger.
    """

    max_edges: int

    def __post_init__(self) -> None:
        self._at_start, self._raised_from = self.max_edges, cast(int | None, None)
        self._full_groups, self._wait = 0, FULL_GROUPS_BEFORE_RAISING

    def run(
        self,
        compute: Callable[[list[Item]], list[Result]],
        items: Sequence[Item],
        edges: Sequence[int],
        give_back: Callable[[], bool] | None = None,
    ) -> list[Result]:
        """Compute a result for each item, in groups.

        Parameters
        ----------
        compute
            Function of a list of items that gives a result for each. Where it runs out of memory, it is called again
            with smaller groups. An item of more than `max_edges` it has to cut into chunks itself.
        items
            Items to compute.
        edges
            Number of edges of each item.
        give_back
            Called when memory runs out: gives back memory that is only kept for speed, and says whether there was any.
            The same group is then tried once more before smaller ones.

        Returns
        -------
        list[Result]
            Results in the order of the items.

        Raises
        ------
        InsufficientMemoryError
            The smallest chunks do not fit; the budget is then the one before the call.
        """
        before = self.max_edges
        results: dict[int, Result] = {}
        waiting = packed(edges, self.max_edges)
        while waiting:
            group = waiting.pop(0)
            found = unless_out_of_memory(partial(compute, [items[index] for index in group]))
            together = sum(edges[index] for index in group)
            tried = min(together, self.max_edges)
            if found is not None:
                results.update(zip(group, found, strict=True))
                self._note_success(tried)
                continue
            if give_back is not None and give_back():
                waiting.insert(0, group)
                continue
            if tried <= MINIMUM_EDGES:
                self.max_edges = before
                raise InsufficientMemoryError(
                    f"a structure does not fit into memory: {len(group)} with {together} edges together were tried, "
                    f"{tried} edges at a time; use a device with more memory, a smaller structure, or float32"
                )
            self._lower(tried)
            left = sorted(index for one in (group, *waiting) for index in one)
            waiting = [[left[k] for k in one] for one in packed([edges[index] for index in left], self.max_edges)]
        return [results[index] for index in range(len(items))]

    def _lower(self, tried: int) -> None:
        """Take back a trial of more, or halve the number that did not fit."""
        if self._raised_from is not None and tried > self._raised_from:
            self.max_edges, self._wait = self._raised_from, 2 * self._wait
        else:
            self.max_edges = max(MINIMUM_EDGES, tried // 2)
        self._full_groups, self._raised_from = 0, None

    def _note_success(self, edges: int) -> None:
        """Count groups that filled the budget, and raise it after some of them."""
        if self.max_edges >= self._at_start or edges <= self.max_edges / RAISED_BY:
            return
        self._full_groups += 1
        if self._full_groups >= self._wait:
            self._full_groups, self._raised_from = 0, self.max_edges
            self.max_edges = min(self._at_start, int(RAISED_BY * self.max_edges))


def unless_out_of_memory(compute: Callable[[], Result]) -> Result | None:
    """Result of a function, or None where memory runs out in it.

    Parameters
    ----------
    compute
        Function without arguments.

    Returns
    -------
    Result | None
        Its result; None after memory ran out, when all that the function held has been given back.
    """
    try:
        return compute()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # The error is gone here, and with it its traceback, which held tensors: only now can their memory be given back.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None

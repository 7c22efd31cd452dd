"""Batches of many structures: which go together, and what happens when a batch does not fit into memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from esen_flows.errors import InsufficientMemoryError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Smaller chunks save nothing: parameters and data that do not depend on the chunk fill the memory then.
MINIMUM_EDGES = 64
# Words of the plain RuntimeErrors by which PyTorch reports that memory ran out.
_OUT_OF_MEMORY_WORDS = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")


def packed(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Distribute items over few groups, each as full as possible.

    Items that all fit into one group keep their order. Otherwise the method is first-fit decreasing, which needs at
    most 11/9 of the smallest number of groups (Dosa, ESCAPE 2007).

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
    """Number of edges that are computed together; it is lowered when memory runs out, and never raised again.

    Attributes
    ----------
    max_edges
        Largest number of edges of a batch, and of a chunk of a structure that is larger.
    """

    max_edges: int

    def run(
        self, compute: Callable[[list[Item]], list[Result]], items: Sequence[Item], edges: Sequence[int]
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
            found = _unless_out_of_memory(compute, [items[index] for index in group])
            if found is not None:
                results.update(zip(group, found, strict=True))
                continue
            together = sum(edges[index] for index in group)
            tried = min(together, self.max_edges)
            if tried <= MINIMUM_EDGES:
                self.max_edges = before
                raise InsufficientMemoryError(
                    f"a structure does not fit into memory: {len(group)} with {together} edges together were tried, "
                    f"{tried} edges at a time; use a device with more memory, a smaller structure, or float32"
                )
            self.max_edges = max(MINIMUM_EDGES, tried // 2)
            left = sorted(index for one in (group, *waiting) for index in one)
            waiting = [[left[k] for k in one] for one in packed([edges[index] for index in left], self.max_edges)]
        return [results[index] for index in range(len(items))]


def _unless_out_of_memory(compute: Callable[[list[Item]], list[Result]], items: list[Item]) -> list[Result] | None:
    try:
        return compute(items)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # The error is gone here, and with it its traceback, which held tensors: only now can their memory be given back.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None

"""Many structures through one network: which go together, and what happens when they do not fit into memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from esen_flows.errors import InsufficientMemoryError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Below so many edges nothing is gained by fewer: parameters and what does not depend on the chunk fill the memory.
MINIMUM_EDGES = 64
# How PyTorch says that memory ran out where it does not raise a type of its own.
_WORDS = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")


def packed(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices in groups of at most `capacity` (what is larger goes alone): few groups, each as full as may be.

    All that fits together stays in its order; otherwise first-fit decreasing, at most 11/9 of the fewest groups (Dosa,
    ESCAPE 2007).
    """
    if sum(sizes) <= capacity:
        return [list(range(len(sizes)))] if len(sizes) else []
    groups: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = sizes[index]
        place = next((k for k, left in enumerate(room) if size <= left), None)
        if place is None:
            groups.append([index])
            room.append(capacity - size)
        else:
            groups[place].append(index)
            room[place] -= size
    return groups


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


@dataclass
class EdgeBudget:
    """How many edges are computed together: lowered, and never raised again, when memory runs out.

    Attributes
    ----------
    max_edges
        of a batch, and of a chunk of a structure that is larger.
    """

    max_edges: int

    def run(
        self, compute: Callable[[list[Item]], list[Result]], items: Sequence[Item], edges: Sequence[int]
    ) -> list[Result]:
        """One result per item, in order, from `compute` on groups of them.

        Parameters
        ----------
        compute
            items -> one result each; may run out of memory, and is then asked for smaller groups. It is to cut
            an item of more than `max_edges` into chunks itself.
        edges
            of each item.

        Raises
        ------
        InsufficientMemoryError
            not even the smallest chunks fit; the budget is then what it was before.
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
    # Only here, with the error and the tensors that its traceback held gone, can their memory be handed back.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None

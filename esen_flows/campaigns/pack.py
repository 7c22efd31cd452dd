"""Pending members in chunks of about the same duration, each with large and small ones."""

import heapq
from collections.abc import Sequence
from math import ceil

from esen_flows.store.database import Row

MOST_MEMBERS = 2000  # of a chunk, whose keys travel in its firework: 70 bytes each
MEMBERS_UNMEASURED = 200  # of a chunk, as long as it was not measured how long a member takes


def pack(members: Sequence[Row], seconds_per_cost: float | None, target_seconds: float) -> list[list[Row]]:
    """Distribute members of one force field over chunks.

    The costly ones are dealt out first, each to the chunk that has the least (longest processing time first: Graham,
    SIAM J. Appl. Math. 17, 416 (1969)), so that every chunk holds large and small ones and all take similar times.

    Parameters
    ----------
    members
        Rows with `key` and `cost`.
    seconds_per_cost
        Measured seconds per edge evaluation; None: all chunks get the same number of members.
    target_seconds
        Wanted duration of a chunk.

    Returns
    -------
    list[list[Row]]
        The members of each chunk, the costliest first.

    Examples
    --------
    >>> rows = [{"key": name, "cost": cost} for name, cost in (("a", 4.0), ("b", 3.0), ("c", 2.0), ("d", 1.0))]
    >>> [[row["key"] for row in chunk] for chunk in pack(rows, seconds_per_cost=1.0, target_seconds=5.0)]
    [['a', 'd'], ['b', 'c']]
    """
    if not members:
        return []
    if seconds_per_cost is None:
        wanted = ceil(len(members) / MEMBERS_UNMEASURED)
    else:
        wanted = ceil(sum(row["cost"] for row in members) * seconds_per_cost / target_seconds)
    number = min(max(ceil(len(members) / MOST_MEMBERS), wanted), len(members))
    chunks: list[list[Row]] = [[] for _ in range(number)]
    heap = [(0.0, index) for index in range(number)]
    for row in sorted(members, key=lambda row: (-row["cost"], row["key"])):
        load, index = heapq.heappop(heap)
        chunks[index].append(row)
        if len(chunks[index]) < MOST_MEMBERS:
            heapq.heappush(heap, (load + row["cost"], index))
        elif not heap:
            chunks.append([])
            heap.append((0.0, len(chunks) - 1))
    return [chunk for chunk in chunks if chunk]  # members without any cost all go to the first

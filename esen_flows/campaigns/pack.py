"""Pending members into chunks of about the same duration, sizes mixed."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

# The keys of a chunk travel in its firework: 70 bytes each.
MOST_MEMBERS = 2000
# Of a chunk, as long as nobody has measured how long a member takes.
MEMBERS_UNMEASURED = 200


@dataclass
class Packed:
    """A chunk to be.

    Attributes
    ----------
    keys
        of its members, the costly ones first.
    costs
        predicted, in edge evaluations.
    """

    keys: list[str] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    @property
    def cost(self) -> float:
        """Of all members."""
        return sum(self.costs)


def pack(members: Sequence[dict[str, Any]], seconds_per_cost: float | None, target_seconds: float) -> list[Packed]:
    """Members of one force field in chunks.

    The costly ones are dealt out first, each to the chunk that has the least (longest processing time first: Graham,
    SIAM J. Appl. Math. 17, 416 (1969)), so that every chunk holds large and small ones and all end at about one time.

    Parameters
    ----------
    members
        rows with key and cost.
    seconds_per_cost
        measured; None: chunks get the same number of members.
    target_seconds
        of a chunk.
    """
    if not members:
        return []
    total = sum(row["cost"] for row in members)
    fewest = ceil(len(members) / MOST_MEMBERS)
    if seconds_per_cost is None:
        wanted = ceil(len(members) / MEMBERS_UNMEASURED)
    else:
        wanted = ceil(total * seconds_per_cost / target_seconds)
    number = min(max(fewest, wanted, 1), len(members))
    chunks = [Packed() for _ in range(number)]
    heap = [(0.0, index) for index in range(number)]
    for row in sorted(members, key=lambda row: (-row["cost"], row["key"])):
        load, index = heapq.heappop(heap)
        chunk = chunks[index]
        chunk.keys.append(row["key"])
        chunk.costs.append(row["cost"])
        if len(chunk.keys) < MOST_MEMBERS:
            heapq.heappush(heap, (load + row["cost"], index))
        elif not heap:
            chunks.append(Packed())
            heap.append((0.0, len(chunks) - 1))
    return [chunk for chunk in chunks if chunk.keys]

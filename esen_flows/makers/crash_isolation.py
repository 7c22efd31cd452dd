"""Isolation of members that crash their process, such as a structure with which a library has a segmentation fault.

Members that were in flight when a process died are evaluated in ever smaller groups, each time by the process that
takes over the chunk, until the member that causes the crash is in flight alone. In the database, `suspect` is the size
of the group that was lost with a member, and `deaths` counts the processes that died with this member alone.
"""

import logging
import os
import signal
from collections.abc import Sequence
from math import ceil

from esen_flows.errors import ProcessDiedError
from esen_flows.makers.chunk_run import ChunkRun
from esen_flows.makers.compute import failure_of, result_document
from esen_flows.store.bulk import commit_many
from esen_flows.store.campaigns import update_members
from esen_flows.store.database import Row

logger = logging.getLogger(__name__)

# A queue or an operator may have killed one process. Two processes that died with one member alone are no coincidence.
DEATHS_ALONE = 2


def isolation_groups(run: ChunkRun, rows: Sequence[Row]) -> list[list[Row]]:
    """Divide members into groups that may be in flight together.

    Each half of a group that was lost with its process is a group. A member that was alone too often is recorded as a
    failure instead.

    Parameters
    ----------
    run
        The work on the chunk, which knows what was lost with earlier processes.
    rows
        Members that have something to compute.

    Returns
    -------
    list[list[Row]]
        First the members that were in flight in no dead process, then parts of the lost groups, large groups first.
    """
    _record_losses(run, rows)
    for row in rows:
        if row["suspect"] == 1 and row["deaths"] >= DEATHS_ALONE:
            _mark_as_crashing(run, row)
    free = [row for row in rows if row["suspect"] == 0]
    groups = [free] if free else []
    for size in sorted({row["suspect"] for row in rows} - {0}, reverse=True):
        lost = [row for row in rows if row["suspect"] == size and row["deaths"] < DEATHS_ALONE]
        half = ceil(size / 2)
        groups += [lost[begin : begin + half] for begin in range(0, len(lost), half)]
    return groups


def _record_losses(run: ChunkRun, rows: Sequence[Row]) -> None:
    """Note in the members, here and in the database, with how many others they were lost."""
    by_key = {row["key"]: row for row in rows}
    for keys in run.lost:
        changes = {"suspect": len(keys)}
        for row in (by_key[key] for key in keys if key in by_key):
            row["suspect"] = len(keys)
            if len(keys) == 1:
                row["deaths"] = changes["deaths"] = row["deaths"] + 1
        update_members(run.store, run.campaign, keys, changes)
    run.lost.clear()


def _mark_as_crashing(run: ChunkRun, row: Row) -> None:
    """Record a failure for a member that ends every process that evaluates it."""
    request = run.requests(row)[0]
    error = ProcessDiedError(
        f"{row['deaths']} processes died while they evaluated {row['label']} ({row['formula']}, {row['nsites']} "
        "atoms) and nothing else: out of memory, or a crash; try it on a machine with more memory or with another "
        f"force field: esen-flows campaign retry {run.campaign} --failed ProcessDiedError"
    )
    claimed = run.store.claim_many([request.key])
    if claimed.leftovers:  # a living process computes it
        return
    document = result_document(request, run.context(row), seconds=0.0, evaluations=0, failure=failure_of(error))
    commit_many(run.store, [(claim, document) for claim in claimed.claims])
    run.settle(row, "ProcessDiedError")


def require_working_gpu(error: Exception) -> None:
    """Kill this process if an error says that its GPU is lost to it.

    Every later evaluation in this process would fail. The next process finds the structure that did it.

    Parameters
    ----------
    error
        What an evaluation raised.
    """
    if "CUDA error" in str(error) or "device-side assert" in str(error):
        logger.error("the GPU is lost to this process, which ends: %s", error)
        os.kill(os.getpid(), signal.SIGKILL)

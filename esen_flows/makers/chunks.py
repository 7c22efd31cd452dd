"""A chunk of a campaign as one job: members by their keys, computed in batches, each committed by itself.

A chunk is only transport. Claims and results decide what is computed once: a chunk that is run again, or twice at a
time, finds what is there. What it cannot finish in its time it hands back as another job.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobflow import Flow, Job, Response, job

from esen_flows.errors import InputError
from esen_flows.makers.chunk_batch import MANY, batch_group, in_batches
from esen_flows.makers.chunk_run import CAUTION, HALTED, ChunkRun
from esen_flows.makers.chunk_steps import all_steps, force_steps, force_steps_needed, lattice_steps
from esen_flows.makers.crash_isolation import isolation_groups
from esen_flows.makers.force_fields import keeping_force_field
from esen_flows.schemas.property_lookup import offered_entry
from esen_flows.stopping import is_stopping
from esen_flows.store.campaign_progress import settled_steps
from esen_flows.store.campaigns import campaign_of, update_members
from esen_flows.store.connection import open_store
from esen_flows.store.database import Row

# A property of one step has one stage, called as its kind: its members are computed in batches where structures share
# force calls. Other properties have two: forces, all steps with force calls, and lattice, the steps after them.
Stage = str
FORCES, LATTICE = "forces", "lattice"
# How long to wait for members that other processes are computing, before they are handed back.
WAIT_SECONDS = 60.0
# A prediction may be wrong: none keeps a chunk from workers that have this much time left.
MOST_LEAST_SECONDS = 1200.0


@dataclass(frozen=True)
class ChunkWork:
    """One stage of a chunk.

    Parameters
    ----------
    campaign, chunk
        Names of the campaign and the chunk.
    stage
        What is computed.
    keys
        Keys of the members.
    expected_seconds, least_seconds
        Predicted time of all members, and of the shortest one; None: nothing was measured yet.
    """

    campaign: str
    chunk: str
    stage: Stage
    keys: tuple[str, ...]
    expected_seconds: float | None = None
    least_seconds: float | None = None

    def job(self, after: Any = None) -> Job:
        """The job, with the fields that workers and `campaign status` look for in its firework.

        Parameters
        ----------
        after
            Output of a job that has to run before.

        Returns
        -------
        Job
            A job of `chunk_job`.
        """
        made = job(chunk_job)(self.campaign, self.chunk, self.stage, list(self.keys), after=after)
        made.name = f"{self.campaign} {self.stage} {self.chunk[:8]}"
        made.config.manager_config = {
            "_category": "cpu" if self.stage == LATTICE else "gpu",
            "campaign": self.campaign,
            "chunk": self.chunk,
            "stage": self.stage,
            "members": len(self.keys),
            "expected_seconds": self.expected_seconds,
            "least_seconds": min(self.least_seconds or 0.0, MOST_LEAST_SECONDS),
        }
        return made


def stages_of(kind: str) -> tuple[Stage, ...]:
    """The stages of a chunk, one after the other.

    Parameters
    ----------
    kind
        Property of the campaign.

    Returns
    -------
    tuple[Stage, ...]
        Their names.

    Raises
    ------
    InputError
        There is no such property.
    """
    return (kind,) if offered_entry(kind).category == "gpu" else (FORCES, LATTICE)


def chunk_job(campaign: str, chunk: str, stage: Stage, keys: list[str], after: Any = None) -> Response:
    """Compute the pending members of a chunk.

    Parameters
    ----------
    campaign, chunk, stage, keys
        As in `ChunkWork`.
    after
        Output of a job that had to run before.

    Returns
    -------
    Response
        Numbers of members done, failed and left. Members that are left are handed back as a job that runs before the
        children of this one.
    """
    store = open_store()
    device = _device(stage)
    with keeping_force_field(), ChunkRun(store, campaign, chunk, keys, device) as run:
        leftovers = _compute(run, stage)
        if leftovers and not run.ends:
            _wait_for_others(run, leftovers)
        run.flush()
    left = _members(run, stage)
    output = {"campaign": campaign, "chunk": chunk, "stage": stage, "left": len(left), **vars(run.total)}
    if not left or (run.halted and _freed(run, left)):
        return Response(output=output)
    rest = _rest(run, stage, left).job()
    return Response(output=output, detour=Flow([rest], output=rest.output, name=rest.name))


def _compute(run: ChunkRun, stage: Stage) -> list[Row]:
    """Compute the stage, and return the members that other processes are computing."""
    if stage not in stages_of(run.spec.property):
        raise InputError(f"{run.spec.property} has no stage {stage!r}; there are {stages_of(run.spec.property)}")
    leftovers: list[Row] = []
    for group in isolation_groups(run, _members(run, stage)):
        if run.ends:
            break
        if stage == FORCES:
            force_steps(run, group)
        elif stage == LATTICE:
            lattice_steps(run, group)
        elif stage not in MANY or not in_batches(run, group):
            all_steps(run, group)
        else:
            leftovers += batch_group(run, group)
    return leftovers


def _wait_for_others(run: ChunkRun, rows: Sequence[Row]) -> None:
    """Wait for results that other processes are computing, and compute those that they give up."""
    until = time.monotonic() + WAIT_SECONDS
    left = list(rows)
    while left and time.monotonic() < until and not is_stopping():
        pending = {row["key"] for row in run.pending()}
        left = batch_group(run, [row for row in left if row["key"] in pending])
        if left:
            time.sleep(1.0)


def _members(run: ChunkRun, stage: Stage) -> list[Row]:
    """Members that have something to compute at this stage."""
    rows = run.pending()
    if stage not in (FORCES, LATTICE):
        return rows
    needed = force_steps_needed(run)
    keys = {row["key"]: {row["steps"][number] for number in needed} for row in rows}
    known = settled_steps(run.store, set().union(*keys.values()), run.value_field)
    finished = {key for key, step in known.items() if step.state == "finished"}
    # After a pause some members have no forces yet: these come with another chunk.
    return [row for row in rows if (keys[row["key"]] <= finished) == (stage == LATTICE)]


def _freed(run: ChunkRun, rows: Sequence[Row]) -> bool:
    """Free members of a halted campaign, so that its resumption packs them anew.

    They are freed before the campaign's state is read again, so that a resumption after that finds them free. False if
    the campaign was resumed before it: then its new chunks do not have them, and this chunk keeps them.
    """
    keys = [row["key"] for row in rows]
    update_members(run.store, run.campaign, keys, {"chunk": None})
    if campaign_of(run.store, run.campaign)["state"] in HALTED:
        return True
    update_members(run.store, run.campaign, keys, {"chunk": run.chunk})
    return False


def _rest(run: ChunkRun, stage: Stage, rows: Sequence[Row]) -> ChunkWork:
    """The members that are handed back, with their time as predicted by the members that are done."""
    keys, rate = tuple(row["key"] for row in rows), run.seconds_per_cost
    if rate is None:
        return ChunkWork(run.campaign, run.chunk, stage, keys)
    costs = [row["cost"] for row in rows]
    return ChunkWork(run.campaign, run.chunk, stage, keys, rate * sum(costs), CAUTION * rate * min(costs))


def _device(stage: Stage) -> str:
    """Where force calls run: on the GPU that this process sees, if it sees one."""
    if stage == LATTICE:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"

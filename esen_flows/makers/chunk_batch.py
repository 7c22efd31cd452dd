"""Properties of one step, of a chunk: many structures share their force calls, and results are committed in bulk."""

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from esen_flows.errors import ClaimedElsewhereError, EsenFlowsError, ServerUnavailableError
from esen_flows.forcefield.contract import ForceField
from esen_flows.makers.chunk_run import ChunkRun
from esen_flows.makers.compute import Context, Summary, failure_of, result_document
from esen_flows.makers.crash_isolation import require_working_gpu
from esen_flows.makers.domains import measured_domain
from esen_flows.makers.force_fields import requested_force_field
from esen_flows.makers.summaries import relax_summary, static_summary
from esen_flows.physics.md.dynamics import molecular_dynamics_many
from esen_flows.physics.relax import relax_many
from esen_flows.physics.static import static_many
from esen_flows.schemas.documents import Document, ResultDocument
from esen_flows.schemas.md_output import MDOutput
from esen_flows.schemas.requests import ResultRequest
from esen_flows.stopping import Stopped, raise_if_stopping
from esen_flows.store.claims import Claim
from esen_flows.store.database import Row
from esen_flows.store.partial_results import PartialSeries
from esen_flows.store.queries.query import fetch, read_structure

logger = logging.getLogger(__name__)

CLAIMED_AT_ONCE = 32
# A step of this many atoms takes seconds at most: a signal has to be answered before the queue kills the process.
ATOMS_AT_ONCE = {"cpu": 256, "cuda": 4000}


@dataclass
class _Member:
    """A member in the batch."""

    row: Row
    request: ResultRequest
    context: Context
    steps: int = 0


# What computes many structures at once, by kind, and summarises a result.
Many = Callable[..., Iterator[tuple[int, Any]]]
MANY: dict[str, tuple[Many, Callable[[Any], Summary]]] = {
    "relax": (relax_many, relax_summary),
    "static": (static_many, static_summary),
    "md": (molecular_dynamics_many, MDOutput.summary),
}
# Kinds that keep unfinished results.
KEPT = ("md",)


def in_batches(run: ChunkRun, rows: Sequence[Row]) -> bool:
    """Whether members can share their force calls.

    Parameters
    ----------
    run
        The work on the chunk.
    rows
        Members that have one protocol.

    Returns
    -------
    bool
        False for relaxations that explore, whose steps are results of their own.
    """
    return all(getattr(run.requests(row)[0].protocol, "symmetry", None) != "explore" for row in rows[:1])


def batch_group(run: ChunkRun, rows: Sequence[Row]) -> list[Row]:
    """Compute members that have one force field together, and commit the result of each.

    A structure that makes the program fail (with an error that is not one of ours) is found by halving the batch, as
    `crash_isolation` finds one that kills the process.

    Parameters
    ----------
    run
        The work on the chunk.
    rows
        The members.

    Returns
    -------
    list[Row]
        Members that other processes are computing.
    """
    if not rows:
        return []
    request = run.requests(rows[0])[0]
    force_field = requested_force_field(run.model(rows[0]), request)
    return _compute(run, rows, force_field, request)


def _compute(run: ChunkRun, rows: Sequence[Row], force_field: ForceField, request: ResultRequest) -> list[Row]:
    """Compute members in one batch, and after a defect of the program in smaller ones."""
    many, summarise = MANY[request.kind]
    batch = _Batch(run, rows, summarise, force_field)
    at_once = ATOMS_AT_ONCE.get(run.device.partition(":")[0], ATOMS_AT_ONCE["cpu"])
    try:
        keeping = {"checkpoints": batch.checkpoint} if request.kind in KEPT else {}
        for index, outcome in many(
            batch.structures(), force_field, request.protocol, atoms_at_once=at_once, watch=batch.watch, **keeping
        ):
            run.add(batch.members[index].row, batch.document(batch.members[index], outcome))
            batch.forget(index)
    except Stopped:
        return batch.leftovers
    except EsenFlowsError:
        raise
    except Exception as error:
        run.flush()  # before anything else fails
        require_working_gpu(error)
        return batch.leftovers + _compute_parts(run, rows, force_field, request, error)
    run.flush()
    return batch.leftovers


def _compute_parts(
    run: ChunkRun, rows: Sequence[Row], force_field: ForceField, of_all: ResultRequest, error: Exception
) -> list[Row]:
    """Go on after a defect of the program: first each half of the members in flight, then those that were not begun."""
    if not run.in_flight:  # the error is not one of a structure, and would come again
        raise error
    if len(run.in_flight) == 1:
        (row,) = run.in_flight.values()
        logger.exception("%s (%s) cannot be computed", row["label"], row["formula"], exc_info=error)
        request, failure = run.requests(row)[0], failure_of(error)
        run.add(row, result_document(request, run.context(row), seconds=0.0, evaluations=0, failure=failure))
        run.flush()
    begun = run.abandon()
    keys = {row["key"] for row in rows} - {row["key"] for row in begun}
    not_begun = [row for row in run.pending() if row["key"] in keys]
    half = (len(begun) + 1) // 2
    leftovers: list[Row] = []
    for part in (begun[:half], begun[half:], not_begun):
        if part and not run.ends:
            leftovers += _compute(run, part, force_field, of_all)
    return leftovers


class _Batch:
    """Gives structures to the batch as it has room for them: each is claimed and noted as in flight before.

    Wall time is shared out by atoms times steps.
    """

    def __init__(
        self, run: ChunkRun, rows: Sequence[Row], summarise: Callable[[Any], Summary], force_field: ForceField
    ) -> None:
        self._run, self._rows, self._summarise, self._force_field = run, rows, summarise, force_field
        self.members: list[_Member] = []
        self.leftovers: list[Row] = []
        # All structures are read now: after this the work can go on without a server.
        keys = list({row["structure_key"] for row in rows})
        self._stored = {row["_id"]: row for row in fetch(run.store, "structures", keys, {})}
        self._began = time.perf_counter()
        self._atom_steps = 0
        self._series: dict[int, PartialSeries] = {}

    def structures(self) -> Iterator[Atoms]:
        """The structures, for as long as there is time for them."""
        run = self._run
        for begin in range(0, len(self._rows), CLAIMED_AT_ONCE):
            part = [row for row in self._rows[begin : begin + CLAIMED_AT_ONCE] if run.fits(row)]
            if run.ends:
                return
            claims = self._claims(part) if part else {}  # later members cost less, and may fit
            rows = [row for row in part if row["key"] in claims]
            if not rows:
                continue
            run.claim(rows, list(claims.values()))
            for row in rows:
                if run.ends:  # the end of the run gives back the claims of members that were not begun
                    return
                structure = self._stored[row["structure_key"]]
                self.members.append(_Member(row, run.requests(row)[0], run.context(row, structure)))
                yield read_structure(structure).atoms

    def checkpoint(self, index: int) -> PartialSeries:
        """Where the unfinished result of a member is kept."""
        member = self.members[index]
        self._series[index] = PartialSeries(self._run.store, member.request.key, member.row["structure_key"])
        return self._series[index]

    def forget(self, index: int) -> None:
        """Delete what was kept of a result that is finished."""
        if index in self._series:
            self._series.pop(index).delete()

    def watch(self, index: int, steps: int, fmax: float) -> None:
        """Count an evaluation of a structure."""
        raise_if_stopping()
        self.members[index].steps += 1
        self._atom_steps += self.members[index].row["nsites"]

    def document(self, member: _Member, outcome: Document | EsenFlowsError) -> ResultDocument:
        """The result of a member, with its share of the time."""
        elapsed = time.perf_counter() - self._began
        content: dict[str, Any]
        if isinstance(outcome, EsenFlowsError):
            content = {"failure": failure_of(outcome)}
        else:
            content = {"output": outcome, "summary": self._summarise(outcome) | self._domain(member, outcome)}
        return result_document(
            member.request,
            member.context,
            seconds=elapsed * member.steps * member.row["nsites"] / max(self._atom_steps, 1),
            evaluations=member.steps,
            **content,
        )

    def _domain(self, member: _Member, output: Document) -> Summary:
        """Whether the structure is like those that the force field was trained on, if it is calibrated."""
        if self._force_field.calibration is None:
            return {}
        start = read_structure(self._stored[member.row["structure_key"]]).atoms
        return measured_domain(self._force_field, self._run.model(member.row)["location"], start, output)

    def _claims(self, rows: Sequence[Row]) -> dict[str, Claim]:
        """Claims by key. Members that others are computing are left over; `pending` settles those that are finished.

        While the server is away every member gets a claim: merging the spool later keeps the first of two results.
        """
        run = self._run
        if run.away:
            return {row["key"]: Claim(row["key"], uuid.uuid4().hex, forced=row["force"]) for row in rows}
        try:
            claims: list[Claim | ResultDocument] = list(
                run.store.claim_many([row["key"] for row in rows if not row["force"]]).claims
            )
            for row in rows:
                if row["force"]:
                    with suppress(ClaimedElsewhereError):
                        claims.append(run.store.get_or_claim(row["key"], wait_seconds=0.0, force=True))
        except ServerUnavailableError:
            run.away = True
            return self._claims(rows)
        claimed = {claim.key: claim for claim in claims if isinstance(claim, Claim)}
        self.leftovers += [row for row in rows if row["key"] not in claimed]
        return claimed

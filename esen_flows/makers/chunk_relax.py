"""Relaxations of a chunk: many structures share their force calls, and results are committed in bulk."""

import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ase import Atoms

from esen_flows.errors import ClaimedElsewhereError, EsenFlowsError, ServerUnavailableError
from esen_flows.forcefield.contract import ForceField
from esen_flows.makers.chunk_run import ChunkRun, require_sound_device
from esen_flows.makers.compute import Context, failure_of, result_document
from esen_flows.makers.force_fields import requested_force_field
from esen_flows.makers.jobs import protocol_of
from esen_flows.makers.summaries import relax_summary
from esen_flows.physics.relax import relax_many
from esen_flows.schemas.documents import RelaxOutput, ResultDocument
from esen_flows.schemas.protocols import RelaxProtocol
from esen_flows.schemas.requests import ResultRequest
from esen_flows.stopping import Stopped, raise_if_stopping
from esen_flows.store.claims import Claim
from esen_flows.store.database import Row
from esen_flows.store.queries.query import fetch, read_structure

logger = logging.getLogger(__name__)

CLAIMED_AT_ONCE = 32
# A step of these takes seconds at most, so that a signal is answered before the queue kills.
ATOMS_AT_ONCE = {"cpu": 256, "cuda": 4000}


@dataclass
class _Member:
    """A member on its way."""

    row: Row
    request: ResultRequest
    context: Context
    steps: int = 0


def relax_group(run: ChunkRun, rows: Sequence[Row]) -> list[Row]:
    """Relax members of one force field together, and commit what comes of each; those that others are at.

    What a structure does to the program (an error that is not one of ours) is found by halving, as what it does to the
    process is by whoever takes over from it.
    """
    if not rows:
        return []
    request = run.requests(rows[0])[0]
    force_field = requested_force_field(run.model(rows[0]), request)
    return _relax(run, rows, force_field, protocol_of(request, RelaxProtocol))


def _relax(run: ChunkRun, rows: Sequence[Row], force_field: ForceField, protocol: RelaxProtocol) -> list[Row]:
    drawing = _Drawing(run, rows)
    clock = _Clock(drawing.members)
    at_once = ATOMS_AT_ONCE.get(run.device.partition(":")[0], ATOMS_AT_ONCE["cpu"])
    try:
        for index, outcome in relax_many(
            drawing.structures(), force_field, protocol, atoms_at_once=at_once, watch=clock.tick
        ):
            member = drawing.members[index]
            run.add(member.row, _document(member, outcome, clock.seconds_of(member)))
    except Stopped:
        return drawing.leftovers
    except EsenFlowsError:
        raise
    except Exception as error:
        run.flush()  # what is done stays done, however this goes on
        require_sound_device(error)
        return drawing.leftovers + _apart(run, rows, force_field, protocol, error)
    run.flush()
    return drawing.leftovers


def _apart(
    run: ChunkRun, rows: Sequence[Row], force_field: ForceField, protocol: RelaxProtocol, error: Exception
) -> list[Row]:
    """What is left of a group that a defect broke: what was in flight in halves, then what had not been begun."""
    flying = list(run.in_flight.values())
    if not flying:  # it is nobody's, and would be there again
        raise error
    if len(flying) == 1:
        row = flying[0]
        logger.exception("%s (%s) cannot be relaxed", row["label"], row["formula"], exc_info=error)
        request = run.requests(row)[0]
        document = result_document(request, run.context(row), seconds=0.0, evaluations=0, failure=failure_of(error))
        run.add(row, document)
        run.flush()
        flying = []
    waiting = _forget_flight(run)
    begun = {row["key"] for row in waiting}
    ours = {row["key"] for row in rows} - begun
    rest = [row for row in run.pending() if row["key"] in ours]
    half = (len(waiting) + 1) // 2
    leftovers: list[Row] = []
    for part in (waiting[:half], waiting[half:], rest):
        if part and not run.ends:
            leftovers += _relax(run, part, force_field, protocol)
    return leftovers


def _forget_flight(run: ChunkRun) -> list[Row]:
    """Give back what is in flight; its rows."""
    rows = list(run.in_flight.values())
    run.store.release_many(list(run.claims.values()))
    run.claims.clear()
    run.in_flight.clear()
    return rows


class _Drawing:
    """Gives structures to the batch as there is room for them, each claimed and written down before."""

    def __init__(self, run: ChunkRun, rows: Sequence[Row]) -> None:
        self._run, self._rows = run, rows
        self.members: list[_Member] = []
        self.leftovers: list[Row] = []
        # All at once: from here on the work goes on without a server.
        keys = list({row["structure_key"] for row in rows})
        self._stored = {row["_id"]: row for row in fetch(run.store, "structures", keys, {})}

    def structures(self) -> Iterator[Atoms]:
        """The structures, for as long as there is time for them."""
        run = self._run
        for begin in range(0, len(self._rows), CLAIMED_AT_ONCE):
            part = [row for row in self._rows[begin : begin + CLAIMED_AT_ONCE] if run.fits(row)]
            if run.ends:
                return
            if not part:  # later ones cost less
                continue
            claims = self._claimed(part)
            rows = [row for row in part if row["key"] in claims]
            if not rows:
                continue
            run.claim(rows, list(claims.values()))
            for row in rows:
                if run.ends:  # claims of what was not begun end with the run
                    return
                structure = self._stored[row["structure_key"]]
                context = run.context_of(row, structure)
                self.members.append(_Member(row, run.requests(row)[0], context))
                yield read_structure(structure).atoms

    def _claimed(self, rows: Sequence[Row]) -> dict[str, Claim]:
        """Claims by key; what others are at is left over, and what is there meanwhile is noted at the end.

        While the server is away nobody can be asked; merging the spool later keeps the first of two results.
        """
        run = self._run
        if not run.away:
            try:
                claims = self._asked_for(rows)
            except ServerUnavailableError:
                run.away = True
            else:
                self.leftovers += [row for row in rows if row["key"] not in claims]
                return claims
        return {row["key"]: Claim(row["key"], uuid.uuid4().hex, forced=row["force"]) for row in rows}

    def _asked_for(self, rows: Sequence[Row]) -> dict[str, Claim]:
        store = self._run.store
        claims = store.claim_many([row["key"] for row in rows if not row["force"]]).claims
        forced = []
        for row in rows:
            if row["force"]:
                with suppress(ClaimedElsewhereError):
                    forced.append(store.get_or_claim(row["key"], wait_seconds=0.0, force=True))
        return {claim.key: claim for claim in (*claims, *forced) if isinstance(claim, Claim)}


class _Clock:
    """What each structure costs: its share of the time of the batch, by atoms times steps."""

    def __init__(self, members: Sequence[_Member]) -> None:
        self._members = members
        self._began = time.perf_counter()
        self._atom_steps = 0

    def tick(self, index: int, steps: int, fmax: float) -> None:
        """A structure has been evaluated once more."""
        raise_if_stopping()
        member = self._members[index]
        member.steps += 1
        self._atom_steps += member.row["nsites"]

    def seconds_of(self, member: _Member) -> float:
        """Of wall time."""
        elapsed = time.perf_counter() - self._began
        return elapsed * member.steps * member.row["nsites"] / max(self._atom_steps, 1)


def _document(member: _Member, outcome: RelaxOutput | EsenFlowsError, seconds: float) -> ResultDocument:
    said = {"seconds": seconds, "evaluations": member.steps}
    if isinstance(outcome, EsenFlowsError):
        return result_document(member.request, member.context, failure=failure_of(outcome), **said)  # type: ignore[arg-type]
    return result_document(
        member.request,
        member.context,
        output=outcome,
        summary=relax_summary(outcome),
        seconds=seconds,
        evaluations=member.steps,
    )

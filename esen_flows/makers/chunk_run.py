"""One process at work on a chunk of a campaign: what it is about to do, what it has done, what is left.

Before something is evaluated it is written down as in flight. Whoever takes over a chunk from a dead process therefore
knows what may have killed it, and evaluates that in ever smaller groups until only the culprit is left.
"""

import logging
import os
import platform
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from esen_flows import progress, stopping
from esen_flows.errors import ProcessDiedError, ServerUnavailableError
from esen_flows.makers.compute import Context, failure_of, result_document
from esen_flows.schemas.campaign import CampaignSpec, answer_summary_field, member_requests
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.requests import ResultRequest
from esen_flows.store.bulk import commit_many
from esen_flows.store.campaign_runs import begin_run, end_run, note_run
from esen_flows.store.campaigns import (
    Outcome,
    campaign_of,
    members_of,
    number,
    record_outcomes,
    settled_members,
    update_members,
)
from esen_flows.store.claims import Claim
from esen_flows.store.database import Row
from esen_flows.store.results import Store
from esen_flows.store.structures import structure_row

logger = logging.getLogger(__name__)

IDENTITY = ("formula", "chemsys", "elements", "nsites", "space_group_number", "space_group_symbol")
HALTED = ("paused", "cancelled")
FLUSH_RESULTS, FLUSH_SECONDS = 200, 5.0
FLUSH_SECONDS_AWAY = 60.0  # each look for a server that is away takes its time
# One death may be anybody's doing (a queue, an operator); twice alone in a process that died is no coincidence.
DEATHS_ALONE = 2
# Taken on only if it fits this many times into what is left of the allocation: predictions are rough.
CAUTION = 2.0


@dataclass
class Done:
    """What a process has done of a chunk, in total."""

    done: int = 0
    failed: int = 0
    atoms: int = 0
    cost: float = 0.0


class ChunkRun:
    """The work of this process on one chunk; a context, at whose end nothing is in flight and all is committed.

    Parameters
    ----------
    campaign, chunk
        their names.
    keys
        of the chunk's members.
    device
        where force calls run.
    """

    def __init__(self, store: Store, campaign: str, chunk: str, keys: Sequence[str], device: str) -> None:
        self.store, self.campaign, self.chunk = store, campaign, chunk
        document = campaign_of(store, campaign)
        self.spec = CampaignSpec.model_validate(document["spec"])
        self.locations = {model["key"]: model["location"] for model in document["models"]}
        self.device = device
        self.keys = list(keys)
        self.total = Done()
        self.value_field = answer_summary_field(self.spec)
        self.in_flight: dict[str, Row] = {}
        self.claims: dict[str, Claim] = {}
        self.away = False  # the server is; results go into the spool
        self.halted = document["state"] in HALTED  # somebody paused or cancelled the campaign
        self._results: list[tuple[Claim, ResultDocument]] = []
        self._outcomes: list[Outcome] = []
        self._flushed_at = self._began_at = time.monotonic()
        self._run = ""
        self._lost: list[list[str]] = []

    def __enter__(self) -> "ChunkRun":
        facts = {"worker": f"{platform.node()}:{os.getpid()}", "device": self.device}
        self._run, self._lost = begin_run(self.store, self.campaign, self.chunk, facts)
        return self

    def __exit__(self, *error: object) -> None:
        self.store.release_many(list(self.claims.values()))
        self.claims.clear()
        self.in_flight.clear()
        self.flush()
        self._even_without_server(lambda: end_run(self.store, self._run))

    @property
    def ends(self) -> bool:
        """Whether nothing more is to be taken on."""
        return self.halted or stopping.is_stopping()

    def pending(self) -> list[Row]:
        """Members that have something to compute, after those whose results are there were noted."""
        rows = [row for row in members_of(self.store, self.campaign, self.keys) if row["state"] == "pending"]
        settled = settled_members(self.store, [row for row in rows if not row["force"]], self.value_field)
        record_outcomes(self.store, self.campaign, settled)
        known = {outcome.key for outcome in settled}
        return [row for row in rows if row["key"] not in known]

    def groups(self, rows: Sequence[Row]) -> list[list[Row]]:
        """What may be in flight together: all that is above suspicion, then the suspects in parts.

        Of a group that died with its process each half is a group, and so on to the one that does it.
        """
        for lost in self._lost:
            alone = len(lost) == 1
            for row in rows:
                if row["key"] in lost:
                    row["suspect"] = len(lost)
                    row["deaths"] += alone
            changes = {"suspect": len(lost)}
            update_members(self.store, self.campaign, lost, changes)
        self._lost.clear()
        died = [row for row in rows if row["suspect"] == 1]
        for row in died:
            update_members(self.store, self.campaign, [row["key"]], {"deaths": row["deaths"]})
        for row in [row for row in died if row["deaths"] >= DEATHS_ALONE]:
            self._mark_as_crashing(row)
        free = [row for row in rows if row["suspect"] == 0]
        groups = [free] if free else []
        for size in sorted({row["suspect"] for row in rows} - {0}, reverse=True):
            suspects = [row for row in rows if row["suspect"] == size and row["deaths"] < DEATHS_ALONE]
            half = ceil(size / 2)
            groups += [suspects[begin : begin + half] for begin in range(0, len(suspects), half)]
        return groups

    def requests(self, row: Row) -> tuple[ResultRequest, ...]:
        """What a member asks for, step by step."""
        return member_requests(self.spec, row["structure_key"], row["model_key"], row["info"])

    def model(self, row: Row) -> dict[str, Any]:
        """The force field of a member as jobs take it, without what the structure is called."""
        return {
            "location": self.locations[row["model_key"]],
            "label": row["model_label"],
            "device": self.device,
            "material_ids": [],
            "tags": list(self.spec.all_tags),
        }

    def fits(self, row: Row) -> bool:
        """Whether a member can be expected to end within the allocation, by what this process took for the others."""
        return stopping.seconds_left() > CAUTION * row["cost"] * (self.seconds_per_cost or 0.0)

    @property
    def seconds_per_cost(self) -> float | None:
        """What this process took for a unit of predicted cost; None before the first member is done."""
        return (time.monotonic() - self._began_at) / self.total.cost if self.total.cost else None

    def claim(self, rows: Sequence[Row], claims: Sequence[Claim]) -> None:
        """Write down that these are about to be evaluated."""
        if not self.total.done and not self.in_flight:
            self._began_at = time.monotonic()  # loading the force field is nobody's cost
        self.in_flight |= {row["key"]: row for row in rows}
        self.claims |= {claim.key: claim for claim in claims}
        if not self.away:
            self._even_without_server(lambda: note_run(self.store, self._run, list(self.in_flight)))

    def add(self, row: Row, document: ResultDocument) -> None:
        """A result, to be committed with others soon."""
        self._results.append((self.claims.pop(row["key"]), document))
        failure = None if document.failure is None else document.failure.error
        self.settle(
            row, failure, document.provenance.seconds, number(document.summary.get(self.value_field)), flush=False
        )
        pause = FLUSH_SECONDS_AWAY if self.away else FLUSH_SECONDS
        if len(self._results) >= FLUSH_RESULTS or time.monotonic() - self._flushed_at > pause:
            self.flush()

    def settle(
        self, row: Row, failure: str | None, seconds: float | None, value: float | None, *, flush: bool = True
    ) -> None:
        """Note what became of a member whose result, or that of one of its steps, is or will be committed."""
        self._outcomes.append(Outcome(row["key"], "failed" if failure else "finished", failure, seconds, value))
        self.total.done += 1
        self.total.failed += failure is not None
        self.total.atoms += row["nsites"]
        self.total.cost += row["cost"]
        if flush:
            self.flush()

    def flush(self) -> None:
        """Commit what was computed: results first, then what members say of them."""
        results, self._results = self._results, []
        outcomes, self._outcomes = self._outcomes, []
        spooled = commit_many(self.store, results)
        for outcome in outcomes:
            self.in_flight.pop(outcome.key, None)
        # What is in the spool alone stays pending until it is merged, also if the server is back at this moment.
        known = [outcome for outcome in outcomes if outcome.key not in spooled]

        def note() -> None:
            record_outcomes(self.store, self.campaign, known)
            note_run(self.store, self._run, list(self.in_flight), vars(self.total))
            self.halted = campaign_of(self.store, self.campaign)["state"] in HALTED

        self._even_without_server(note)
        self._flushed_at = time.monotonic()
        progress.report("campaign", self.total.done, len(self.keys), f"{self.total.failed} failed")

    def _mark_as_crashing(self, row: Row) -> None:
        """Record what ends every process that evaluates it; it is not tried again unless somebody asks."""
        request = self.requests(row)[0]
        error = ProcessDiedError(
            f"{row['deaths']} processes died while they evaluated {row['label']} ({row['formula']}, {row['nsites']} "
            "atoms) and nothing else: out of memory, or a crash; try it on a machine with more memory or with another "
            f"force field: esen-flows campaign retry {self.campaign} --failed ProcessDiedError"
        )
        chunk = self.store.claim_many([request.key])
        if chunk.leftovers:  # a living process is at it
            return
        document = result_document(request, self.context(row), seconds=0.0, evaluations=0, failure=failure_of(error))
        commit_many(self.store, [(claim, document) for claim in chunk.claims])
        self.settle(row, "ProcessDiedError", None, None)

    def context(self, row: Row) -> Context:
        """What a member's document repeats."""
        return self.context_of(row, structure_row(self.store, row["structure_key"], with_atoms=False))

    def context_of(self, row: Row, structure: Row) -> Context:
        """The same, with the stored structure at hand."""
        return Context(
            identity={name: structure[name] for name in IDENTITY},
            model_label=row["model_label"],
            device=self.device,
            material_ids=tuple(structure["material_ids"]),
            tags=self.spec.all_tags,
        )

    def _even_without_server(self, note: Callable[[], None]) -> None:
        """Results go into the spool while the server is away; what is noted about them, the results say as well."""
        try:
            note()
        except ServerUnavailableError:
            self.away = True
        else:
            self.away = False


def require_sound_device(error: Exception) -> None:
    """End the process where its GPU is lost: every later evaluation would fail, and the next process finds out why."""
    if "CUDA error" in str(error) or "device-side assert" in str(error):
        logger.error("the GPU is lost to this process, which ends: %s", error)
        os.kill(os.getpid(), signal.SIGKILL)

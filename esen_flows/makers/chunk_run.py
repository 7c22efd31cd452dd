"""One process at work on a chunk of a campaign: what it is about to do, what it has done, what is left.

Members are written down as in flight before they are evaluated. A process that takes over the chunk of a dead one
therefore knows which members may have killed it, see `crash_isolation`.
"""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from esen_flows import progress, stopping
from esen_flows.errors import ServerUnavailableError
from esen_flows.makers.compute import Context
from esen_flows.makers.step_inputs import context_of, structure_context
from esen_flows.schemas.campaign import CampaignSpec, answer_summary_field, member_requests
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.requests import ResultRequest
from esen_flows.store.bulk import commit_many
from esen_flows.store.campaign_progress import Outcome, number, record_outcomes, settled_members
from esen_flows.store.campaign_runs import begin_run, end_run, note_run
from esen_flows.store.campaigns import campaign_of, members_of
from esen_flows.store.claims import Claim
from esen_flows.store.database import Row
from esen_flows.store.results import Store
from esen_flows.store.structures import structure_row

IDENTITY = ("formula", "chemsys", "elements", "nsites", "space_group_number", "space_group_symbol")
HALTED = ("paused", "cancelled")
FLUSH_RESULTS, FLUSH_SECONDS = 200, 5.0
FLUSH_SECONDS_AWAY = 60.0  # longer: to look for a server that is away takes time
# A member is begun only if it fits this many times into the rest of the allocation: predictions are rough.
CAUTION = 2.0


@dataclass
class Done:
    """What a process has done of a chunk, in total.

    Attributes
    ----------
    done
        Members that are settled.
    failed
        Members of these that failed.
    atoms
        Atoms of these members.
    cost
        Predicted cost of these members.
    """

    done: int = 0
    failed: int = 0
    atoms: int = 0
    cost: float = 0.0


class ChunkRun:
    """The work of this process on one chunk. After its `with` block nothing is in flight, and all is committed.

    Parameters
    ----------
    store
        Store of the campaign.
    campaign, chunk
        Names of the campaign and the chunk.
    keys
        Keys of the chunk's members.
    device
        Device of the force calls.
    """

    def __init__(self, store: Store, campaign: str, chunk: str, keys: Sequence[str], device: str) -> None:
        self.store, self.campaign, self.chunk = store, campaign, chunk
        document = campaign_of(store, campaign)
        self.spec = CampaignSpec.model_validate(document["spec"])
        self.device = device
        self.keys = list(keys)
        self.total = Done()
        self.value_field = answer_summary_field(self.spec)
        self.in_flight: dict[str, Row] = {}
        self.claims: dict[str, Claim] = {}
        self.lost: list[list[str]] = []  # members that were in flight in each process that died with this chunk
        self.away = False  # the server cannot be reached: results go into the spool
        self.halted = document["state"] in HALTED
        self._locations = {model["key"]: model["location"] for model in document["models"]}
        self._results: list[tuple[Claim, ResultDocument]] = []
        self._outcomes: list[Outcome] = []
        self._flushed_at = self._began_at = time.monotonic()
        self._run = ""

    def __enter__(self) -> "ChunkRun":
        facts = {"worker": f"{platform.node()}:{os.getpid()}", "device": self.device}
        self._run, self.lost = begin_run(self.store, self.campaign, self.chunk, facts)
        return self

    def __exit__(self, *error: object) -> None:
        self.abandon()
        self.flush()
        self._unless_away(lambda: end_run(self.store, self._run))

    @property
    def ends(self) -> bool:
        """Whether no member is to be begun any more: the campaign is halted, or the process has to end."""
        return self.halted or stopping.is_stopping()

    @property
    def seconds_per_cost(self) -> float | None:
        """Seconds that this process took for a unit of predicted cost; None before the first member is done."""
        return (time.monotonic() - self._began_at) / self.total.cost if self.total.cost else None

    def pending(self) -> list[Row]:
        """Members that have something to compute. Members whose results are in the store are settled first.

        Returns
        -------
        list[Row]
            Members, in the order of `members_of`.
        """
        rows = [row for row in members_of(self.store, self.campaign, self.keys) if row["state"] == "pending"]
        settled = settled_members(self.store, [row for row in rows if not row["force"]], self.value_field)
        record_outcomes(self.store, self.campaign, settled)
        known = {outcome.key for outcome in settled}
        return [row for row in rows if row["key"] not in known]

    def requests(self, row: Row) -> tuple[ResultRequest, ...]:
        """The requests of a member's steps.

        Parameters
        ----------
        row
            The member.

        Returns
        -------
        tuple[ResultRequest, ...]
            One request a step, the last one with the member's key.
        """
        return member_requests(self.spec, row["structure_key"], row["model_key"], row["info"])

    def model(self, row: Row, material_ids: Sequence[str] = ()) -> dict[str, Any]:
        """The force field of a member, as the jobs' argument `model`.

        Parameters
        ----------
        row
            The member.
        material_ids
            Ids of its structure.

        Returns
        -------
        dict[str, Any]
            Location, label, device, material ids and tags.
        """
        return {
            "location": self._locations[row["model_key"]],
            "label": row["model_label"],
            "device": self.device,
            "material_ids": list(material_ids),
            "tags": list(self.spec.all_tags),
        }

    def context(self, row: Row, structure: Row | None = None) -> Context:
        """What a member's result document repeats of its structure and force field.

        Parameters
        ----------
        row
            The member.
        structure
            Its stored structure; None: it is read.

        Returns
        -------
        Context
            The context of its results.
        """
        if self.spec.of_models:
            return context_of({}, self.model(row))
        if structure is None:
            structure = structure_row(self.store, row["structure_key"], with_atoms=False)
        identity = {name: structure[name] for name in IDENTITY}
        return structure_context(identity, self.model(row, structure["material_ids"]))

    def fits(self, row: Row) -> bool:
        """Whether a member can be expected to end within the allocation, judged by the members that are done.

        Parameters
        ----------
        row
            The member.

        Returns
        -------
        bool
            True as long as nothing is known about the time that members take.
        """
        return stopping.seconds_left() > CAUTION * row["cost"] * (self.seconds_per_cost or 0.0)

    def claim(self, rows: Sequence[Row], claims: Sequence[Claim]) -> None:
        """Write down that members are about to be evaluated.

        Parameters
        ----------
        rows
            The members.
        claims
            Claims of their keys, which `add` or the end of the run gives back.
        """
        if not self.total.done and not self.in_flight:
            self._began_at = time.monotonic()  # the time to load the force field does not count
        self.in_flight |= {row["key"]: row for row in rows}
        self.claims |= {claim.key: claim for claim in claims}
        if not self.away:
            self._unless_away(lambda: note_run(self.store, self._run, list(self.in_flight)))

    def abandon(self) -> list[Row]:
        """Give back the claims of the members in flight.

        Returns
        -------
        list[Row]
            These members.
        """
        rows = list(self.in_flight.values())
        self.store.release_many(list(self.claims.values()))
        self.claims.clear()
        self.in_flight.clear()
        return rows

    def add(self, row: Row, document: ResultDocument) -> None:
        """Take the result of a member, to commit it with others soon.

        Parameters
        ----------
        row
            The member.
        document
            Its result.
        """
        self._results.append((self.claims.pop(row["key"]), document))
        failure = None if document.failure is None else document.failure.error
        self._count(row, failure, document.provenance.seconds, number(document.summary.get(self.value_field)))
        pause = FLUSH_SECONDS_AWAY if self.away else FLUSH_SECONDS
        if len(self._results) >= FLUSH_RESULTS or time.monotonic() - self._flushed_at > pause:
            self.flush()

    def settle(self, row: Row, failure: str | None, seconds: float | None = None, value: float | None = None) -> None:
        """Note the outcome of a member whose results are committed already.

        Parameters
        ----------
        row
            The member.
        failure
            Class of its error; None: it is finished.
        seconds
            Seconds that its steps took, in whichever process; None: unknown.
        value
            The property's principal number.
        """
        self._count(row, failure, seconds, value)
        self.flush()

    def _count(self, row: Row, failure: str | None, seconds: float | None, value: float | None) -> None:
        self._outcomes.append(Outcome(row["key"], "failed" if failure else "finished", failure, seconds, value))
        self.total.done += 1
        self.total.failed += failure is not None
        self.total.atoms += row["nsites"]
        self.total.cost += row["cost"]

    def flush(self) -> None:
        """Commit results, then note the outcomes of their members, and look whether the campaign was halted."""
        results, self._results = self._results, []
        outcomes, self._outcomes = self._outcomes, []
        spooled = commit_many(self.store, results)
        for outcome in outcomes:
            self.in_flight.pop(outcome.key, None)
        # A member whose result is only in the spool stays pending until the spool is merged, even with the server back.
        known = [outcome for outcome in outcomes if outcome.key not in spooled]

        def note() -> None:
            record_outcomes(self.store, self.campaign, known)
            note_run(self.store, self._run, list(self.in_flight), vars(self.total))
            self.halted = campaign_of(self.store, self.campaign)["state"] in HALTED

        self._unless_away(note)
        self._flushed_at = time.monotonic()
        progress.report("campaign", self.total.done, len(self.keys), f"{self.total.failed} failed")

    def _unless_away(self, note: Callable[[], None]) -> None:
        """Note something in the database. Nothing is lost if the server is away: results in the spool say the same."""
        try:
            note()
        except ServerUnavailableError:
            self.away = True
        else:
            self.away = False

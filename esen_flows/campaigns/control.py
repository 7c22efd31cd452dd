"""A campaign on the launchpad: pending members become fireworks, which are paused, resumed and cancelled together.

Adding is safe to repeat: only members that no living firework holds are packed. That is also the remedy for fireworks
that fizzled, were deleted, or handed back their members when the campaign was paused.
"""

import uuid
from collections import defaultdict
from dataclasses import dataclass

from jobflow import Flow

from esen_flows.campaigns.cost import seconds_per_unit
from esen_flows.campaigns.pack import Packed, pack
from esen_flows.errors import InputError
from esen_flows.makers.chunk_run import CAUTION
from esen_flows.makers.chunks import ChunkWork
from esen_flows.queue.fireworks_adapter import open_launchpad
from esen_flows.queue.submit import add_flow, make_launchpad
from esen_flows.schemas.campaign import CampaignSpec, answer_summary_field
from esen_flows.store.campaigns import (
    campaign_of,
    exclusive_lock,
    members,
    refresh_states,
    set_campaign_state,
    update_members,
)
from esen_flows.store.database import Row
from esen_flows.store.launchpad import campaign_fireworks, live_chunks
from esen_flows.store.results import Store

_NOT_BEGUN = ("READY", "WAITING", "RESERVED")
AT_ONCE = 5000


@dataclass(frozen=True)
class Submitted:
    """What `submit_campaign` did.

    Attributes
    ----------
    members
        that were packed now.
    fireworks
        ids that were added.
    on_their_way
        pending members that fireworks hold already.
    expected_seconds
        of what was packed, on one device; None: nothing was measured yet.
    """

    members: int
    fireworks: tuple[int, ...]
    on_their_way: int
    expected_seconds: float | None

    def __str__(self) -> str:
        if not self.members:
            held = f"{self.on_their_way} pending members are in fireworks already"
            return f"nothing added: {held if self.on_their_way else 'nothing is pending'}"
        time = (
            "not measured yet" if self.expected_seconds is None else f"{self.expected_seconds / 3600:.2g} device hours"
        )
        return f"submitted {self.members} members in {len(self.fireworks)} fireworks ({time})"


def submit_campaign(store: Store, name: str, device_kind: str = "cpu") -> Submitted:
    """Pack the pending members of a campaign into fireworks, unless they are in some.

    Parameters
    ----------
    device_kind
        what the workers have, "cpu" or "cuda"; what was measured on it says how much goes into a firework.

    Raises
    ------
    InputError
        no such campaign, one whose plan was interrupted, or a paused one: its fireworks would go on waiting.
    ClaimedElsewhereError
        somebody else is submitting it at this moment.
    """
    campaign = campaign_of(store, name)
    spec = CampaignSpec.model_validate(campaign["spec"])
    if campaign["state"] == "planning":
        raise InputError(f"the plan of {name!r} is not complete; finish it first: esen-flows campaign plan SPEC")
    if campaign["state"] == "paused":
        raise InputError(f"the campaign {name!r} is paused; go on with: esen-flows campaign resume {name}")
    complaint = f"another process is submitting the campaign {name!r}; wait for it"
    with exclusive_lock(store, f"campaign {name}", complaint):
        refresh_states(store, name, answer_summary_field(spec))
        make_launchpad(store.database)
        set_campaign_state(store, name, "submitted")
        alive = live_chunks(store.database, name)
        pending = list(members(store, name, {"state": "pending"}, ("key", "cost", "chunk", "model_key")))
        free = [row for row in pending if row["chunk"] not in alive]
        by_model: defaultdict[str, list[Row]] = defaultdict(list)
        for row in free:
            by_model[row["model_key"]].append(row)
        fireworks: list[int] = []
        expected: list[float | None] = []
        for model_key, rows in by_model.items():
            rate = seconds_per_unit(store, model_key, device_kind)
            for chunk in pack(rows, rate, 60.0 * spec.target_minutes):
                fireworks += _add(store, spec, chunk, rate)
                expected.append(None if rate is None else rate * chunk.cost)
    known = [seconds for seconds in expected if seconds is not None]
    total = sum(known) if len(known) == len(expected) and known else None
    return Submitted(len(free), tuple(fireworks), len(pending) - len(free), total)


def pause(store: Store, name: str) -> int:
    """Hold a campaign: fireworks that have not begun wait, running ones end what is in flight; how many wait."""
    campaign_of(store, name)
    set_campaign_state(store, name, "paused")
    numbers = campaign_fireworks(store.database, name, _NOT_BEGUN)
    with open_launchpad(store.database) as launchpad:
        for number in numbers:
            store.database.call(lambda: launchpad.pause_fw(number))  # noqa: B023
    return len(numbers)


def resume(store: Store, name: str, device_kind: str = "cpu") -> Submitted:
    """Go on with a paused or cancelled campaign: what waited is ready again, what was handed back is packed."""
    campaign_of(store, name)
    set_campaign_state(store, name, "submitted")
    with open_launchpad(store.database) as launchpad:
        for number in campaign_fireworks(store.database, name, ("PAUSED",)):
            store.database.call(lambda: launchpad.resume_fw(number))  # noqa: B023
    return submit_campaign(store, name, device_kind)


def cancel(store: Store, name: str) -> int:
    """Take back what has not begun, and end what runs after what is in flight; results stay. How many fireworks."""
    campaign_of(store, name)
    set_campaign_state(store, name, "cancelled")
    numbers = campaign_fireworks(store.database, name, (*_NOT_BEGUN, "PAUSED"))
    with open_launchpad(store.database) as launchpad:
        for number in numbers:
            store.database.call(lambda: launchpad.defuse_fw(number))  # noqa: B023
    return len(numbers)


def retry(store: Store, name: str, failure: str | None) -> int:
    """Make failed members pending again, to be computed anew whatever their failure said; how many.

    Parameters
    ----------
    failure
        class of the failures, such as "NotConvergedError"; None: all.

    Raises
    ------
    InputError
        no member has failed in that way; the classes that there are are listed.
    """
    campaign_of(store, name)
    failed = list(members(store, name, {"state": "failed"}, ("key", "failure")))
    chosen = [row["key"] for row in failed if failure in (None, row["failure"])]
    if failure is not None and not chosen:
        there = ", ".join(sorted({row["failure"] for row in failed})) or "none"
        raise InputError(f"no member of {name!r} failed with {failure}; failures that there are: {there}")
    again = {"state": "pending", "failure": None, "force": True, "chunk": None, "suspect": 0, "deaths": 0}
    for begin in range(0, len(chosen), AT_ONCE):
        update_members(store, name, chosen[begin : begin + AT_ONCE], again)
    return len(chosen)


def _add(store: Store, spec: CampaignSpec, chunk: Packed, rate: float | None) -> tuple[int, ...]:
    """Add the fireworks of a chunk; members know it before, so that nobody packs them a second time."""
    number = uuid.uuid4().hex
    for begin in range(0, len(chunk.keys), AT_ONCE):
        update_members(store, spec.name, chunk.keys[begin : begin + AT_ONCE], {"chunk": number})
    expected = None if rate is None else rate * chunk.cost
    least = None if rate is None else CAUTION * rate * min(chunk.costs)
    keys = tuple(chunk.keys)
    if spec.property == "relax":
        jobs = [ChunkWork(spec.name, number, "relax", keys, expected, least).job()]
    else:
        forces = ChunkWork(spec.name, number, "forces", keys, expected, least).job()
        jobs = [forces, ChunkWork(spec.name, number, "lattice", keys).job(after=forces.output)]
    return add_flow(store.database, Flow(jobs, output=jobs[-1].output, name=f"{spec.name} {number[:8]}"))

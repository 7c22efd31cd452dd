"""A campaign on the launchpad: pending members become fireworks, which are paused, resumed and cancelled together.

Submitting is safe to repeat: only members that no live firework holds are packed. It is also the remedy for fireworks
that fizzled, were deleted, or handed back their members when the campaign was paused.
"""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from jobflow import Flow, Job

from esen_flows.campaigns.audits import require_audits
from esen_flows.campaigns.cost import USUAL_CUTOFF_ANGSTROM, seconds_per_unit
from esen_flows.campaigns.pack import pack
from esen_flows.errors import InputError
from esen_flows.makers.chunk_run import CAUTION
from esen_flows.makers.chunks import ChunkWork, stages_of
from esen_flows.queue.fireworks_adapter import open_launchpad
from esen_flows.queue.submit import add_flow, make_launchpad
from esen_flows.schemas.campaign import CampaignSpec, answer_summary_field
from esen_flows.store.bulk import batches
from esen_flows.store.campaign_progress import refresh_states
from esen_flows.store.campaigns import (
    CampaignState,
    campaign_of,
    exclusive_lock,
    members,
    set_campaign_state,
    update_members,
)
from esen_flows.store.database import Row
from esen_flows.store.launchpad import campaign_fireworks, live_chunks
from esen_flows.store.results import Store

_NOT_BEGUN = ("READY", "WAITING", "RESERVED")


@dataclass(frozen=True)
class Submitted:
    """What `submit_campaign` has done; as a string, a sentence.

    Attributes
    ----------
    members
        Number of members that were packed now.
    fireworks
        Ids of the fireworks that were added.
    on_their_way
        Number of pending members that are in fireworks already.
    expected_seconds
        Predicted duration of the packed members on one device, in seconds; None: not measured yet.
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
    """Pack the pending members of a campaign into fireworks, except those that are in live fireworks already.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    device_kind
        Device of the workers, "cpu" or "cuda"; earlier timings on it tell how many members make a firework.

    Returns
    -------
    Submitted
        What was added.

    Raises
    ------
    InputError
        No such campaign, one whose plan was interrupted, a paused one, whose fireworks would go on waiting, or a force
        field without a passed audit (`require: audit`).
    ClaimedElsewhereError
        Another process is submitting the campaign at this moment.
    """
    campaign = campaign_of(store, name)
    spec = CampaignSpec.model_validate(campaign["spec"])
    if campaign["state"] == "planning":
        raise InputError(f"the plan of {name!r} is not complete; finish it first: esen-flows campaign plan SPEC")
    if campaign["state"] == "paused":
        raise InputError(f"the campaign {name!r} is paused; go on with: esen-flows campaign resume {name}")
    require_audits(store, spec, campaign["models"])
    complaint = f"another process is submitting the campaign {name!r}; wait for it"
    with exclusive_lock(store, f"campaign {name}", complaint):
        refresh_states(store, name, answer_summary_field(spec))
        make_launchpad(store.database)
        set_campaign_state(store, name, "submitted")
        live = live_chunks(store.database, name)
        pending = list(members(store, name, {"state": "pending"}, ("key", "cost", "chunk", "model_key")))
        free = [row for row in pending if row["chunk"] not in live]
        by_model: defaultdict[str, list[Row]] = defaultdict(list)
        for row in free:
            by_model[row["model_key"]].append(row)
        cutoffs = {model["key"]: model["cutoff_angstrom"] for model in campaign["models"]}
        fireworks: list[int] = []
        expected: float | None = 0.0
        for model_key, rows in by_model.items():
            rate = seconds_per_unit(
                store, model_key, device_kind, cutoffs.get(model_key, USUAL_CUTOFF_ANGSTROM), spec.dtype
            )
            for chunk in pack(rows, rate, 60.0 * spec.target_minutes):
                fireworks += _add(store, spec, chunk, rate)
            cost = sum(row["cost"] for row in rows)
            expected = None if rate is None or expected is None else expected + rate * cost
    return Submitted(len(free), tuple(fireworks), len(pending) - len(free), expected)


def pause(store: Store, name: str) -> int:
    """Hold a campaign: fireworks that have not begun wait, and running ones end after the members in flight.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.

    Returns
    -------
    int
        Number of fireworks that wait now.
    """
    return _change(store, name, "paused", _NOT_BEGUN, "pause_fw")


def resume(store: Store, name: str, device_kind: str = "cpu") -> Submitted:
    """Go on with a paused or cancelled campaign: waiting fireworks are READY again, returned members are packed.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    device_kind
        Device of the workers, as `submit_campaign` takes it.

    Returns
    -------
    Submitted
        What was added.
    """
    _change(store, name, "submitted", ("PAUSED",), "resume_fw")
    return submit_campaign(store, name, device_kind)


def cancel(store: Store, name: str) -> int:
    """Withdraw fireworks that have not begun, and end running ones after the members in flight; results stay.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.

    Returns
    -------
    int
        Number of fireworks that were withdrawn.
    """
    return _change(store, name, "cancelled", (*_NOT_BEGUN, "PAUSED"), "defuse_fw")


def retry(store: Store, name: str, failure: str | None) -> int:
    """Make failed members pending again, to be computed anew even if their failure is final.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    failure
        Class of the failures, such as "NotConvergedError"; None: all.

    Returns
    -------
    int
        Number of members.

    Raises
    ------
    InputError
        No member has failed in that way; the message lists the classes that occur.
    """
    campaign_of(store, name)
    failed = list(members(store, name, {"state": "failed"}, ("key", "failure")))
    chosen = [row["key"] for row in failed if failure in (None, row["failure"])]
    if failure is not None and not chosen:
        there = ", ".join(sorted({row["failure"] for row in failed})) or "none"
        raise InputError(f"no member of {name!r} failed with {failure}; failures that occur: {there}")
    again = {"state": "pending", "failure": None, "force": True, "chunk": None, "suspect": 0, "deaths": 0}
    for keys in batches(chosen):
        update_members(store, name, keys, again)
    return len(chosen)


def _change(store: Store, name: str, state: CampaignState, fireworks: Sequence[str], method: str) -> int:
    """Set the state of a campaign, and call a method of LaunchPad for each of its fireworks in some states."""
    campaign_of(store, name)
    set_campaign_state(store, name, state)
    numbers = campaign_fireworks(store.database, name, fireworks)
    with open_launchpad(store.database) as launchpad:
        for number in numbers:
            store.database.call(lambda: getattr(launchpad, method)(number))  # noqa: B023
    return len(numbers)


def _add(store: Store, spec: CampaignSpec, chunk: Sequence[Row], rate: float | None) -> tuple[int, ...]:
    """Add the fireworks of a chunk, after its members were told, so that no member is packed a second time."""
    name, keys, costs = uuid.uuid4().hex, tuple(row["key"] for row in chunk), [row["cost"] for row in chunk]
    update_members(store, spec.name, keys, {"chunk": name})
    # Later stages make no force calls, to which the rate belongs.
    seconds = (None, None) if rate is None else (rate * sum(costs), CAUTION * rate * min(costs))
    jobs: list[Job] = []
    for stage in stages_of(spec.property):
        work = ChunkWork(spec.name, name, stage, keys, *((None, None) if jobs else seconds))
        jobs.append(work.job(after=jobs[-1].output if jobs else None))
    return add_flow(store.database, Flow(jobs, output=jobs[-1].output, name=f"{spec.name} {name[:8]}"))

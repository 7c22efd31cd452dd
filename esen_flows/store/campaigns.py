"""Campaigns: what each is made of, and how far it is. Results are in `results`, as all others.

`campaigns` holds one document per campaign, under its name. `campaign_members` holds one per structure and force field:
where its result will be (`key`, and `steps` on the way to it), its predicted `cost`, its `state`, and what it did to
processes that died (`suspect`, `deaths`). Processes that work on chunks are in `esen_flows.store.campaign_runs`.

A member's state repeats what the results say, so that counting needs no join; `refresh_states` puts it right.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError

from esen_flows.errors import ClaimedElsewhereError, InputError
from esen_flows.store.claims import Claim
from esen_flows.store.database import Row
from esen_flows.store.queries.query import fetch
from esen_flows.store.results import Store
from esen_flows.store.writing import duplicates_of

# planning: not all members are there yet.
CampaignState = Literal["planning", "planned", "submitted", "paused", "cancelled"]
AT_ONCE = 5000  # keys to a question: a few hundred kB


@dataclass(frozen=True)
class Outcome:
    """What became of a member.

    Attributes
    ----------
    key
        of the member.
    state
        finished or failed.
    failure
        class of the error.
    seconds
        that its steps took, whoever computed them; None: unknown.
    value
        the property's principal number.
    """

    key: str
    state: Literal["finished", "failed"]
    failure: str | None = None
    seconds: float | None = None
    value: float | None = None


def create_campaign(store: Store, document: Row) -> bool:
    """Store a new campaign; whether it is new.

    Parameters
    ----------
    document
        `_id` (its name), `spec`, `spec_text`, `spec_sha256`, `models`; state and date are set here.

    Raises
    ------
    InputError
        another campaign has that name.
    """
    db = store.database
    new = {"state": "planned", "created_at": datetime.now(UTC), **document}
    try:
        db.call(lambda: db["campaigns"].insert_one(new))
    except DuplicateKeyError:
        known = campaign_of(store, document["_id"])
        if known["spec_sha256"] != document["spec_sha256"]:
            raise InputError(
                f"there is a campaign {document['_id']!r} with another spec (of {known['created_at']:%Y-%m-%d %H:%M}); "
                "give this one another name, or delete that one: esen-flows campaign delete "
                f"{document['_id']} (its results stay)"
            ) from None
        return False
    return True


def campaign_of(store: Store, name: str) -> Row:
    """The document of a campaign.

    Raises
    ------
    InputError
        no such campaign; those that exist are listed.
    """
    db = store.database
    found = db.call(lambda: db["campaigns"].find_one({"_id": name}))
    if found is None:
        names = ", ".join(campaign_names(store)) or "(none)"
        raise InputError(f"no campaign {name!r}; there are: {names}. Begin one with: esen-flows campaign plan SPEC")
    return found


def campaign_names(store: Store) -> list[str]:
    """All campaigns, in alphabetical order."""
    db = store.database
    return sorted(row["_id"] for row in db.call(lambda: list(db["campaigns"].find({}, {"_id": 1}))))


def set_campaign_state(store: Store, name: str, state: CampaignState) -> None:
    """Note what a campaign is to do; processes that work on it look now and then."""
    db = store.database
    db.call(lambda: db["campaigns"].update_one({"_id": name}, {"$set": {"state": state}}))


def delete_campaign(store: Store, name: str) -> None:
    """Forget a campaign; its results and structures stay."""
    db = store.database
    db.call(lambda: db["campaign_members"].delete_many({"campaign": name}))
    db.call(lambda: db["campaign_runs"].delete_many({"campaign": name}))
    db.call(lambda: db["campaigns"].delete_one({"_id": name}))


def forget_members(store: Store, name: str, plan: str) -> None:
    """Take back the members that a plan, noted in them, has added to a campaign."""
    db = store.database
    db.call(lambda: db["campaign_members"].delete_many({"campaign": name, "plan": plan}))


@contextmanager
def exclusive_lock(store: Store, task: str, complaint: str) -> Iterator[None]:
    """While it lasts, nobody else does the same.

    Parameters
    ----------
    task
        what is done, with the name of the campaign.
    complaint
        what to say where somebody does it already.

    Raises
    ------
    ClaimedElsewhereError
        somebody does.
    """
    try:
        claim = store.get_or_claim(task, wait_seconds=0.0)
    except ClaimedElsewhereError:
        raise ClaimedElsewhereError(complaint) from None
    assert isinstance(claim, Claim)  # no result has such a key
    try:
        yield
    finally:
        store.release(claim)


def insert_members(store: Store, name: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """Add members whose keys are new to the campaign; how many these were.

    Parameters
    ----------
    rows
        key, steps, label, structure_key, model_key, model_label, formula, nsites, info and cost of each; of a plan
        that may have to take them back, its name too (`plan`).
    """
    db = store.database
    fresh: Row = {
        "campaign": name, "state": "pending", "failure": None, "chunk": None, "force": False, "suspect": 0, "deaths": 0,
        "seconds": None, "value": None, "finished_at": None,
    }  # fmt: skip
    new = [{**fresh, **row} for row in rows]
    if not new:
        return 0
    met = db.call(lambda: duplicates_of(db["campaign_members"].insert_many, new))
    return len(new) - sum(not on_own_id for on_own_id in met.values())


def members(
    store: Store,
    name: str,
    query: Mapping[str, Any] | None = None,
    fields: Collection[str] | None = None,
    order: Sequence[tuple[str, int]] = (("cost", -1),),
) -> Iterator[Row]:
    """Members of a campaign, fetched a batch at a time.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    query
        Further conditions on the fields of members.
    fields
        Fields that are wanted; None: all.
    order
        Fields to sort by, each with 1 (ascending) or -1; default: the largest cost first.

    Yields
    ------
    Row
        One member.
    """
    db = store.database
    wanted = {"campaign": name, **(query or {})}
    ids: list[Any] = db.call(
        # MongoDB 5 sorts no more than 100 MB in memory, and refuses unless it may use its disk.
        lambda: [
            row["_id"] for row in db["campaign_members"].find(wanted, {"_id": 1}).sort(list(order)).allow_disk_use(True)
        ]
    )
    return fetch(store, "campaign_members", ids, {} if fields is None else dict.fromkeys(fields, True))


def member_count(store: Store, name: str, state: str | None = None) -> int:
    """Number of members of a campaign.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    state
        State that members have to be in; None: any.

    Returns
    -------
    int
        Number of members.
    """
    db = store.database
    query = {"campaign": name} if state is None else {"campaign": name, "state": state}
    return int(db.call(lambda: db["campaign_members"].count_documents(query)))


def members_of(store: Store, name: str, keys: Sequence[str]) -> list[Row]:
    """The members with these keys, in their order; unknown keys are left out."""
    db = store.database
    found = db.call(lambda: list(db["campaign_members"].find({"campaign": name, "key": {"$in": list(keys)}})))
    by_key = {row["key"]: row for row in found}
    return [by_key[key] for key in keys if key in by_key]


def step_results(store: Store, rows: Sequence[Row], fields: Collection[str]) -> list[tuple[Row, ...]]:
    """What is stored of the steps of some members.

    Parameters
    ----------
    store
        Store of the campaign.
    rows
        Members.
    fields
        Fields of the results that are wanted.

    Returns
    -------
    list[tuple[Row, ...]]
        For each member the current results of its steps, in the order of the steps; steps without one are left out.
    """
    db = store.database
    query = {"key": {"$in": [step for row in rows for step in row["steps"]]}, "current": True}
    found = db.call(lambda: list(db["results"].find(query, dict.fromkeys(["key", *fields], True))))
    by_key = {result["key"]: result for result in found}
    return [tuple(by_key[step] for step in row["steps"] if step in by_key) for row in rows]


def update_members(store: Store, name: str, keys: Sequence[str], changes: Mapping[str, Any]) -> int:
    """Set the same fields of some members; how many there were."""
    db = store.database
    query = {"campaign": name, "key": {"$in": list(keys)}}
    return int(db.call(lambda: db["campaign_members"].update_many(query, {"$set": dict(changes)})).matched_count)


def record_outcomes(store: Store, name: str, outcomes: Iterable[Outcome]) -> None:
    """Note what became of members, in one round trip."""
    db, now = store.database, datetime.now(UTC)
    writes = []
    for each in outcomes:
        fields = {"state": each.state, "failure": each.failure, "value": each.value, "finished_at": now, "force": False}
        if each.seconds is not None:
            fields["seconds"] = each.seconds
        writes.append(UpdateOne({"campaign": name, "key": each.key}, {"$set": fields}))
    if writes:
        db.call(lambda: db["campaign_members"].bulk_write(writes, ordered=False))


def settled_steps(store: Store, keys: Collection[str], value_field: str) -> dict[str, Outcome]:
    """What is stored of steps and would not change if they were asked for again: finished, or failed for good."""
    db = store.database
    query = {"key": {"$in": list(keys)}, "current": True, "$or": [{"failure": None}, {"failure.final": True}]}
    fields = {"key": 1, "failure": 1, "provenance.seconds": 1, f"summary.{value_field}": 1}
    rows = db.call(lambda: list(db["results"].find(query, fields))) if keys else []
    return {
        row["key"]: Outcome(
            row["key"],
            "failed" if row["failure"] else "finished",
            row["failure"]["error"] if row["failure"] else None,
            row["provenance"]["seconds"],
            number(row.get("summary", {}).get(value_field)),
        )
        for row in rows
    }


def settled_members(store: Store, rows: Sequence[Row], value_field: str) -> list[Outcome]:
    """Those of some members whose last step is there, or one of whose steps has failed for good."""
    wanted = {step for row in rows for step in row["steps"]}
    known = settled_steps(store, wanted, value_field)
    outcomes = []
    for row in rows:
        steps = [known[step] for step in row["steps"] if step in known]
        failed = next((step for step in steps if step.state == "failed"), None)
        last = failed or known.get(row["key"])
        if last is not None:
            seconds = sum(step.seconds or 0.0 for step in steps)
            outcomes.append(Outcome(row["key"], last.state, last.failure, seconds, last.value))
    return outcomes


def refresh_states(store: Store, name: str, value_field: str) -> int:
    """Look up members among the results, wherever these came from; of how many the state has changed.

    Failed ones too: another campaign or a command may have tried again what they share.
    """
    settled = 0
    waiting: list[Row] = []
    unfinished = {"state": {"$in": ["pending", "failed"]}, "force": False}
    for row in members(store, name, unfinished, ("key", "steps", "state", "failure")):
        waiting.append(row)
        if len(waiting) == AT_ONCE:
            settled += _settle(store, name, waiting, value_field)
            waiting = []
    return settled + _settle(store, name, waiting, value_field)


def _settle(store: Store, name: str, rows: list[Row], value_field: str) -> int:
    known = {row["key"]: (row["state"], row["failure"]) for row in rows}
    found = settled_members(store, rows, value_field)
    outcomes = [each for each in found if known[each.key] != (each.state, each.failure)]
    record_outcomes(store, name, outcomes)
    return len(outcomes)


def number(value: Any) -> float | None:
    """A summary's value where it is a number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def counts(store: Store, name: str) -> list[Row]:
    """How many members there are in each state, of each failure and force field; from one index alone.

    Returns
    -------
    list[Row]
        Rows with state, failure, model_label, members, cost, measured (how many have a value), mean and deviation of
        the value.
    """
    db = store.database
    pipeline: list[dict[str, Any]] = [
        {"$match": {"campaign": name}},
        {
            "$group": {
                "_id": {"state": "$state", "failure": "$failure", "model_label": "$model_label"},
                "members": {"$sum": 1},
                "cost": {"$sum": "$cost"},
                "measured": {"$sum": {"$cond": [{"$ne": ["$value", None]}, 1, 0]}},
                "mean": {"$avg": "$value"},
                "deviation": {"$stdDevSamp": "$value"},
            }
        },
    ]
    rows = db.call(lambda: list(db["campaign_members"].aggregate(pipeline, hint="status")))
    return [{**row.pop("_id"), **row} for row in rows]

"""Campaigns and their members. Results are in `results`, as all others.

`campaigns` holds one document per campaign, under its name. `campaign_members` holds one per structure and force field:
the keys of its result (`key`) and of the steps on the way to it (`steps`), its predicted `cost`, its `state`, and how
often it was evaluated by processes that died (`suspect`, `deaths`). The processes that work on chunks are in
`esen_flows.store.campaign_runs`, and the states of members in `esen_flows.store.campaign_progress`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from pymongo.errors import DuplicateKeyError

from esen_flows.errors import ClaimedElsewhereError, InputError
from esen_flows.store.claims import Claim
from esen_flows.store.database import Row
from esen_flows.store.queries.query import fetch
from esen_flows.store.reading import find_all, find_one
from esen_flows.store.results import Store
from esen_flows.store.writing import duplicates_of

# While a campaign is in the state "planning", some of its members are still missing.
CampaignState = Literal["planning", "planned", "submitted", "paused", "cancelled"]


def create_campaign(store: Store, document: Row) -> bool:
    """Store a new campaign.

    Parameters
    ----------
    store
        Open store.
    document
        `_id` (name of the campaign), `spec`, `spec_text`, `spec_sha256`, `models`, and `state` if it is not "planned".

    Returns
    -------
    bool
        False if the campaign exists already with the same specification.

    Raises
    ------
    InputError
        Another campaign has this name.
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

    Parameters
    ----------
    store
        Open store.
    name
        Name of the campaign.

    Returns
    -------
    Row
        The document.

    Raises
    ------
    InputError
        There is no such campaign; the message lists those that exist.
    """
    found = find_one(store.database, "campaigns", {"_id": name})
    if found is None:
        names = ", ".join(campaign_names(store)) or "(none)"
        raise InputError(f"no campaign {name!r}; there are: {names}. Begin one with: esen-flows campaign plan SPEC")
    return found


def campaign_names(store: Store) -> list[str]:
    """Names of all campaigns.

    Parameters
    ----------
    store
        Open store.

    Returns
    -------
    list of str
        Names in alphabetical order.
    """
    return sorted(row["_id"] for row in find_all(store.database, "campaigns", {}, {"_id": 1}))


def set_campaign_state(store: Store, name: str, state: CampaignState) -> None:
    """Set the state of a campaign, which the processes that work on it read from time to time.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    state
        The new state.
    """
    db = store.database
    db.call(lambda: db["campaigns"].update_one({"_id": name}, {"$set": {"state": state}}))


def note_warnings(store: Store, name: str, warnings: Sequence[str]) -> None:
    """Keep what the plan of a campaign warned of, so that a later submission can say it again.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    warnings
        Lines for people.
    """
    db = store.database
    db.call(lambda: db["campaigns"].update_one({"_id": name}, {"$set": {"warnings": list(warnings)}}))


def delete_campaign(store: Store, name: str) -> None:
    """Delete a campaign; its results and structures stay.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    """
    db = store.database
    db.call(lambda: db["campaign_members"].delete_many({"campaign": name}))
    db.call(lambda: db["campaign_runs"].delete_many({"campaign": name}))
    db.call(lambda: db["campaigns"].delete_one({"_id": name}))


@contextmanager
def exclusive_lock(store: Store, task: str, message: str) -> Iterator[None]:
    """Prevent all other processes from doing the same task while the block runs.

    Parameters
    ----------
    store
        Open store.
    task
        Name of the task, with the name of the campaign.
    message
        Error message if another process does the task.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    ClaimedElsewhereError
        Another process does the task.
    """
    try:
        claim = store.get_or_claim(task, wait_seconds=0.0)
    except ClaimedElsewhereError:
        raise ClaimedElsewhereError(message) from None
    assert isinstance(claim, Claim)  # no result has such a key
    try:
        yield
    finally:
        store.release(claim)


def insert_members(store: Store, name: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """Add members to a campaign, except those whose keys it has already.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    rows
        key, steps, label, structure_key, model_key, model_label, formula, nsites, info and cost of each; `plan`, the id
        of the plan, if `forget_members` may have to remove them.

    Returns
    -------
    int
        Number of members added.
    """
    db = store.database
    fresh: Row = {
        "campaign": name, "state": "pending", "failure": None, "chunk": None, "force": False, "suspect": 0, "deaths": 0,
        "seconds": None, "value": None, "finished_at": None,
    }  # fmt: skip
    new = [{**fresh, **row} for row in rows]
    if not new:
        return 0
    duplicates = db.call(lambda: duplicates_of(db["campaign_members"].insert_many, new))
    return len(new) - sum(not by_own_id for by_own_id in duplicates.values())


def forget_members(store: Store, name: str, plan: str) -> None:
    """Remove the members that a plan has added to a campaign.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    plan
        Id of the plan.
    """
    db = store.database
    db.call(lambda: db["campaign_members"].delete_many({"campaign": name, "plan": plan}))


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
    """The members with given keys.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    keys
        Result keys of members.

    Returns
    -------
    list of Row
        The members in the order of the keys; unknown keys are left out.
    """
    found = find_all(store.database, "campaign_members", {"campaign": name, "key": {"$in": list(keys)}})
    by_key = {row["key"]: row for row in found}
    return [by_key[key] for key in keys if key in by_key]


def step_results(store: Store, rows: Sequence[Row], fields: Collection[str]) -> list[tuple[Row, ...]]:
    """Stored results of the steps of some members.

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
    query = {"key": {"$in": [step for row in rows for step in row["steps"]]}, "current": True}
    found = find_all(store.database, "results", query, dict.fromkeys(["key", *fields], True))
    by_key = {result["key"]: result for result in found}
    return [tuple(by_key[step] for step in row["steps"] if step in by_key) for row in rows]


def material_ids(store: Store, rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Material ids of the structures of some members: several where a campaign merged repeated structures.

    Parameters
    ----------
    store
        Store of the campaign.
    rows
        Members.

    Returns
    -------
    list[tuple[str, ...]]
        Material ids of each member.
    """
    query = {"_id": {"$in": [row["structure_key"] for row in rows]}}
    found = find_all(store.database, "structures", query, {"material_ids": True})
    ids = {structure["_id"]: tuple(structure.get("material_ids", ())) for structure in found}
    return [ids.get(row["structure_key"], ()) for row in rows]


def update_members(store: Store, name: str, keys: Sequence[str], changes: Mapping[str, Any]) -> int:
    """Set the same fields in some members.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    keys
        Result keys of the members.
    changes
        New values by field.

    Returns
    -------
    int
        Number of members found.
    """
    db = store.database
    query = {"campaign": name, "key": {"$in": list(keys)}}
    return int(db.call(lambda: db["campaign_members"].update_many(query, {"$set": dict(changes)})).matched_count)

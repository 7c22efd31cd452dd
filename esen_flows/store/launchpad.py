"""FireWorks' launchpad as documents: its fireworks, and those of campaigns, without FireWorks itself.

FireWorks keeps its collections (`fireworks`, `launches`, `workflows`) in our database. What needs its `LaunchPad`
class is in `esen_flows.queue.fireworks_adapter`; repairs after a kill are in `esen_flows.store.launchpad_repair`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from esen_flows.store.claims import claims_of_process
from esen_flows.store.database import Database, Row
from esen_flows.store.host import ProcessId
from esen_flows.store.reading import find_all, find_one

# How often a firework has killed its process or lost a server, in its spec.
DEATHS, OUTAGES = "_esen_flows_deaths", "_esen_flows_outages"
_CLAIM_PREFIX = "firework:"
_WILL_RUN = ("WAITING", "READY", "RESERVED", "RUNNING", "PAUSED")
_WORKFLOW_ENDED = ("FIZZLED", "DEFUSED", "ARCHIVED")
# A chunk in one of these states has a firework that brings what is missing. WAITING fireworks wait for one of these.
LIVE_CHUNK = ("READY", "RESERVED", "RUNNING", "PAUSED")


def prepare_launchpad(database: Database) -> bool:
    """Create the indexes that our queries use, and on a new launchpad the counters of FireWorks.

    FireWorks' own command, `lpad reset`, would delete all fireworks.

    Parameters
    ----------
    database
        Database of the launchpad.

    Returns
    -------
    bool
        Whether the launchpad is new. FireWorks' own indexes are then missing as well.
    """
    by_campaign = [("spec.campaign", 1), ("state", 1), ("spec.chunk", 1)]
    for fields in ([("spec.result_key", 1)], by_campaign):
        database.call(lambda: database["fireworks"].create_index(fields))  # noqa: B023
    if find_one(database, "fw_id_assigner", {}) is not None:
        return False
    first = {"$setOnInsert": {"next_fw_id": 1, "next_launch_id": 1}}
    database.call(lambda: database["fw_id_assigner"].update_one({"_id": -1}, first, upsert=True))
    return True


def pending_fireworks(database: Database, result_keys: Sequence[str]) -> list[Row]:
    """Fireworks that will bring some results as soon as a worker runs them.

    Parameters
    ----------
    database
        Database of the launchpad.
    result_keys
        Keys of the results.

    Returns
    -------
    list[Row]
        fw_id, state and spec.result_key of each, in the order of the ids.
    """
    query = {"spec.result_key": {"$in": list(result_keys)}, "state": {"$in": list(_WILL_RUN)}}
    fields = {"fw_id": True, "state": True, "spec.result_key": True}
    found = find_all(database, "fireworks", query, fields, sort=[("fw_id", 1)])
    # A firework that waits for one that fizzled will never run.
    alive = {"nodes": {"$in": [row["fw_id"] for row in found]}, "state": {"$nin": list(_WORKFLOW_ENDED)}}
    nodes = _nodes(database, alive)
    return [row for row in found if row["fw_id"] in nodes]


def find_ready(database: Database, query: Mapping[str, Any], seconds_left: float, limit: int) -> list[Row]:
    """Fireworks to run next: READY, short enough, and in a workflow that no process is changing.

    Parameters
    ----------
    database
        Database of the launchpad.
    query
        Conditions on fireworks, as FireWorks' FWorker gives them.
    seconds_left
        Seconds until the worker has to end; may be infinite. Fireworks that need more (`least_seconds` of their spec)
        are left out.
    limit
        Largest number of fireworks.

    Returns
    -------
    list[Row]
        fw_id, name and created_on of each, highest priority first.
    """
    wanted = {**query, "state": "READY"}
    if seconds_left != float("inf"):
        wanted["spec.least_seconds"] = {"$not": {"$gt": seconds_left}}
    fields = {"fw_id": True, "name": True, "created_on": True}
    rows = database.call(
        lambda: list(database["fireworks"].find(wanted, fields).sort("spec._priority", -1).limit(limit))
    )
    free = {"nodes": {"$in": [row["fw_id"] for row in rows]}, "locked": {"$exists": False}}
    nodes = _nodes(database, free)
    return [row for row in rows if row["fw_id"] in nodes]


def ready_tasks(database: Database, query: Mapping[str, Any]) -> list[str]:
    """Names of what READY fireworks would run.

    Parameters
    ----------
    database
        Database of the launchpad.
    query
        Conditions on fireworks.

    Returns
    -------
    list[str]
        FireWorks' names of their tasks, background tasks and duplicate finders.
    """
    wanted = {**query, "state": "READY"}
    fields = ("spec._tasks._fw_name", "spec._background_tasks.tasks._fw_name", "spec._dupefinder._fw_name")
    found = {
        str(name)
        for field in fields
        for name in database.call(lambda: database["fireworks"].distinct(field, wanted))  # noqa: B023
    }
    return sorted(found)


def begun_fireworks(database: Database) -> list[Row]:
    """Fireworks that some process runs or is about to run.

    Parameters
    ----------
    database
        Database of the launchpad.

    Returns
    -------
    list[Row]
        Every firework that is RUNNING or RESERVED, without its job.
    """
    names = ("fw_id", "name", "state", "launches", "updated_on", "spec.campaign", "spec.chunk", "spec.result_key")
    query = {"state": {"$in": ["RUNNING", "RESERVED"]}}
    return find_all(database, "fireworks", query, dict.fromkeys(names, True))


def launches_of(database: Database, fireworks: Sequence[Row]) -> dict[int, Row]:
    """Launches of some fireworks.

    Parameters
    ----------
    database
        Database of the launchpad.
    fireworks
        Rows with `launches`.

    Returns
    -------
    dict[int, Row]
        State, place, history and environment of each launch, by its id.
    """
    query = {"launch_id": {"$in": [number for row in fireworks for number in row["launches"]]}}
    names = ("launch_id", "state", "host", "launch_dir", "state_history", "fworker.env")
    rows = find_all(database, "launches", query, dict.fromkeys(names, True))
    return {row["launch_id"]: row for row in rows}


def firework_row(database: Database, number: int) -> Row | None:
    """State, launches, campaign and deaths of a firework.

    Parameters
    ----------
    database
        Database of the launchpad.
    number
        Id of the firework.

    Returns
    -------
    Row | None
        fw_id, state, launches, and of its spec the campaign and `DEATHS`; None if there is no such firework.
    """
    fields = dict.fromkeys(("fw_id", "state", "launches", "spec.campaign", f"spec.{DEATHS}"), True)
    return find_one(database, "fireworks", {"fw_id": number}, fields)


def has_ended_launch(database: Database, firework: Mapping[str, Any]) -> bool:
    """Whether a launch of a firework is over, whatever the firework itself says.

    Parameters
    ----------
    database
        Database of the launchpad.
    firework
        Row with `launches`.

    Returns
    -------
    bool
        True if a launch is COMPLETED or FIZZLED.
    """
    query = {"launch_id": {"$in": firework["launches"]}, "state": {"$in": ["COMPLETED", "FIZZLED"]}}
    return find_one(database, "launches", query, {"_id": True}) is not None


def count_mishap(database: Database, number: int, mishap: str) -> int:
    """Add one to the mishaps of a kind that a firework has had; it must not be READY.

    Parameters
    ----------
    database
        Database of the launchpad.
    number
        Id of the firework.
    mishap
        `DEATHS` or `OUTAGES`.

    Returns
    -------
    int
        How many mishaps of this kind the firework has had by now; 0 if there is no such firework.
    """
    field = f"spec.{mishap}"
    database.call(lambda: database["fireworks"].update_one({"fw_id": number}, {"$inc": {field: 1}}))
    row = find_one(database, "fireworks", {"fw_id": number}, {field: True})
    return int(row["spec"][mishap]) if row else 0


def remove_fireworks(database: Database, ids: Sequence[int]) -> None:
    """Remove fireworks and their workflows.

    Parameters
    ----------
    database
        Database of the launchpad.
    ids
        Ids of the fireworks.
    """
    if ids:
        database.call(lambda: database["workflows"].delete_many({"nodes": {"$in": list(ids)}}))
        database.call(lambda: database["fireworks"].delete_many({"fw_id": {"$in": list(ids)}}))


def claim_key(number: int) -> str:
    """Key of the claim that a process holds while it runs a firework.

    Parameters
    ----------
    number
        Id of the firework.

    Returns
    -------
    str
        Key for `Claims.try_claim`.
    """
    return f"{_CLAIM_PREFIX}{number}"


def fireworks_claimed_by(database: Database, process: ProcessId) -> list[int]:
    """Fireworks on which a process holds claims.

    Parameters
    ----------
    database
        Database of the claims.
    process
        Process, which may have ended.

    Returns
    -------
    list[int]
        Ids of the fireworks.
    """
    return [int(key.removeprefix(_CLAIM_PREFIX)) for key in claims_of_process(database, process, _CLAIM_PREFIX)]


def live_chunks(database: Database, campaign: str) -> set[str]:
    """Chunks of a campaign that fireworks will compute as soon as workers run them.

    Parameters
    ----------
    database
        Database of the launchpad.
    campaign
        Name of the campaign.

    Returns
    -------
    set[str]
        Names of the chunks.
    """
    query = {"spec.campaign": campaign, "state": {"$in": list(LIVE_CHUNK)}}
    return set(database.call(lambda: database["fireworks"].distinct("spec.chunk", query)))


def campaign_fireworks(database: Database, campaign: str, states: Sequence[str]) -> list[int]:
    """Fireworks of a campaign in some states.

    Parameters
    ----------
    database
        Database of the launchpad.
    campaign
        Name of the campaign.
    states
        FireWorks' names of the states.

    Returns
    -------
    list[int]
        Ids of the fireworks, sorted.
    """
    query = {"spec.campaign": campaign, "state": {"$in": list(states)}}
    rows = find_all(database, "fireworks", query, {"fw_id": True})
    return sorted(row["fw_id"] for row in rows)


def campaign_firework_states(database: Database, campaign: str) -> dict[str, int]:
    """Number of fireworks of a campaign in each state.

    Parameters
    ----------
    database
        Database of the launchpad.
    campaign
        Name of the campaign.

    Returns
    -------
    dict[str, int]
        Number of fireworks by state, in alphabetical order.
    """
    pipeline: list[dict[str, Any]] = [
        {"$match": {"spec.campaign": campaign}},
        {"$group": {"_id": "$state", "fireworks": {"$sum": 1}}},
        {"$sort": {"_id": 1}},
    ]
    rows = database.call(lambda: list(database["fireworks"].aggregate(pipeline)))
    return {row["_id"]: row["fireworks"] for row in rows}


def _nodes(database: Database, query: Row) -> set[int]:
    """Ids of the fireworks in the workflows that a query finds."""
    rows = find_all(database, "workflows", query, {"nodes": True})
    return {number for row in rows for number in row["nodes"]}

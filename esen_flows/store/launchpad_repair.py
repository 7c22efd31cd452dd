"""Repairs of the launchpad after a process was killed between two of FireWorks' writes.

FireWorks writes the end of a step in several operations: first the launch, then new fireworks, then the state of the
firework, at last its workflow. The workflow therefore tells whether everything else was written. Whatever is newer than
the workflow is undone here and then written again by FireWorks.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from esen_flows.store.database import Database, Row
from esen_flows.store.reading import find_all, find_one

_LOCK_SECONDS = 5.0  # a living process holds the lock of a workflow for a fraction of a second
_LOCK_SIGNS = ("updated_on", "fw_states", "nodes")


def unlock(database: Database, number: int) -> None:
    """Wait until no process changes the workflow of a firework; a lock that a dead process left is removed.

    Parameters
    ----------
    database
        Database of the launchpad.
    number
        Id of the firework.
    """
    fields = {"locked": True, "updated_on": True, "fw_states": True}
    before, since = None, time.monotonic()
    while True:
        found = find_one(database, "workflows", {"nodes": number}, fields)
        if found is None or "locked" not in found:
            return
        if found != before:
            before, since = found, time.monotonic()
        elif time.monotonic() - since > _LOCK_SECONDS:
            database.call(lambda: database["workflows"].update_one({"nodes": number}, {"$unset": {"locked": True}}))
            return
        time.sleep(0.1)


def locked_workflows(database: Database) -> list[Row]:
    """Workflows that some process has locked to change them.

    Parameters
    ----------
    database
        Database of the launchpad.

    Returns
    -------
    list[Row]
        _id, updated_on, fw_states and nodes of each workflow.
    """
    query = {"locked": {"$exists": True}}
    return find_all(database, "workflows", query, dict.fromkeys(_LOCK_SIGNS, True))


def break_lock(database: Database, workflow: Row) -> None:
    """Remove the lock of a workflow, unless the workflow was changed since it was read.

    Parameters
    ----------
    database
        Database of the launchpad.
    workflow
        Row as `locked_workflows` gives it.
    """
    unchanged = {"_id": workflow["_id"], **{name: workflow[name] for name in _LOCK_SIGNS}}
    database.call(lambda: database["workflows"].update_one(unchanged, {"$unset": {"locked": True}}))


def half_ended_fireworks(database: Database) -> list[Row]:
    """Fireworks that have ended although their workflow says that they run, so that nothing after them starts.

    Parameters
    ----------
    database
        Database of the launchpad.

    Returns
    -------
    list[Row]
        fw_id, state and launches of each firework.
    """
    running = find_all(database, "workflows", {"state": "RUNNING"}, {"fw_states": True})
    unended = [int(number) for row in running for number, state in row["fw_states"].items() if state == "RUNNING"]
    query = {"fw_id": {"$in": unended}, "state": {"$in": ["COMPLETED", "FIZZLED"]}}
    fields = {"fw_id": True, "state": True, "launches": True}
    return find_all(database, "fireworks", query, fields)


def undo_half_written_end(database: Database, number: int) -> bool:
    """Remove what was written of the end of a firework before its workflow was written.

    The caller holds the claim on the firework, or runs it.

    Parameters
    ----------
    database
        Database of the launchpad.
    number
        Id of the firework.

    Returns
    -------
    bool
        False if the workflow was written too, so that nothing is left to do.
    """
    unlock(database, number)
    workflow = find_one(database, "workflows", {"nodes": number}, {"fw_states": True})
    firework = find_one(database, "fireworks", {"fw_id": number}, {"state": True, "launches": True})
    if workflow is None or firework is None:
        return False
    if workflow["fw_states"][str(number)] == firework["state"] == "COMPLETED":
        return False
    of_firework = {"launch_id": {"$in": firework["launches"]}}
    for launch in find_all(database, "launches", of_firework, {"action": True}):
        _remove_orphans(database, launch.get("action") or {})
    database.call(lambda: database["fireworks"].update_one({"fw_id": number}, {"$set": {"state": "RUNNING"}}))
    states = {"$set": {f"fw_states.{number}": "RUNNING"}}
    database.call(lambda: database["workflows"].update_one({"nodes": number}, states))
    return True


def remove_orphaned_ready(database: Database, age_seconds: float) -> list[int]:
    """Remove READY fireworks without a workflow, which a kill has left; they would stop every worker that takes them.

    Parameters
    ----------
    database
        Database of the launchpad.
    age_seconds
        Age in seconds below which a firework stays, because it is written before its workflow.

    Returns
    -------
    list[int]
        Ids of the removed fireworks.
    """
    before = (datetime.now(UTC) - timedelta(seconds=age_seconds)).isoformat()
    pipeline: list[dict[str, Any]] = [
        {"$match": {"state": "READY", "created_on": {"$lt": before}}},
        {"$project": {"fw_id": 1}},
        {"$lookup": {"from": "workflows", "localField": "fw_id", "foreignField": "nodes", "as": "home"}},
        {"$match": {"home": []}},
    ]
    orphans = [int(row["fw_id"]) for row in database.call(lambda: list(database["fireworks"].aggregate(pipeline)))]
    query = {"fw_id": {"$in": orphans}, "state": "READY"}
    database.call(lambda: database["fireworks"].delete_many(query))
    return orphans


def _remove_orphans(database: Database, action: Mapping[str, Any]) -> None:
    """Remove fireworks that an action has added without their workflow; name and creation time identify them."""
    for workflow in (*action.get("detours", ()), *action.get("additions", ())):
        for firework in workflow["fws"]:
            alike = {"name": firework["name"], "created_on": firework["created_on"]}
            for row in find_all(database, "fireworks", alike, {"fw_id": True}):
                if find_one(database, "workflows", {"nodes": row["fw_id"]}, {"_id": True}) is None:
                    database.call(lambda: database["fireworks"].delete_one({"fw_id": row["fw_id"]}))  # noqa: B023

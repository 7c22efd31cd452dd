"""Runs: one document per process that has worked on a chunk of a campaign, in `campaign_runs`.

A run holds what its process evaluates (`in_flight`), and totals of what it has done. A run that began and has not ended
belongs to a living process, or to one that was killed; `lost` then says what it was evaluating.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from esen_flows.store.database import Row
from esen_flows.store.reading import find_all, find_one
from esen_flows.store.results import Store


def begin_run(store: Store, name: str, chunk: str, facts: Mapping[str, Any]) -> tuple[str, list[list[str]]]:
    """Note that a process begins with a chunk.

    FireWorks makes sure that no two processes work on one chunk: earlier runs that have not ended are dead.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    chunk
        Name of the chunk.
    facts
        What else the run is to say: worker, device.

    Returns
    -------
    tuple[str, list[list[str]]]
        Id of the run, and the keys that were in flight in each run of the chunk that died.
    """
    db = store.database
    alive = {"campaign": name, "chunk": chunk, "state": "running"}
    dead = find_all(db, "campaign_runs", alive)
    run, now = uuid.uuid4().hex, datetime.now(UTC)
    new = {
        "_id": run, "campaign": name, "chunk": chunk, "state": "running", "in_flight": [], "done": 0, "failed": 0,
        "atoms": 0, "cost": 0.0, "started_at": now, "updated_at": now, **facts,
    }  # fmt: skip
    db.call(lambda: db["campaign_runs"].replace_one({"_id": run}, new, upsert=True))
    ended = [{"$set": {"state": "died", "lost": "$in_flight", "in_flight": []}}]
    # If it is repeated, none of them is running any more and `lost` stays as it is.
    query = {"_id": {"$in": [row["_id"] for row in dead]}, "state": "running"}
    db.call(lambda: db["campaign_runs"].update_many(query, ended))
    return run, [row["in_flight"] for row in dead if row["in_flight"]]


def note_run(store: Store, run: str, in_flight: Sequence[str], done: Mapping[str, float] | None = None) -> None:
    """Write down what a process is about to evaluate, and what it has done.

    Parameters
    ----------
    store
        Store of the campaign.
    run
        Id of the run.
    in_flight
        Keys of the members that are evaluated now.
    done
        Totals since the begin of the run: done, failed, atoms, cost; None: as before.
    """
    db = store.database
    # Totals, not increments: an operation that is repeated after an outage changes nothing.
    changes = {"in_flight": list(in_flight), "updated_at": datetime.now(UTC), **(done or {})}
    db.call(lambda: db["campaign_runs"].update_one({"_id": run}, {"$set": changes}))


def end_run(store: Store, run: str) -> None:
    """Note that a process has ended its chunk in an orderly way.

    Parameters
    ----------
    store
        Store of the campaign.
    run
        Id of the run.
    """
    db = store.database
    ended = {"$set": {"state": "ended", "in_flight": [], "updated_at": datetime.now(UTC)}}
    db.call(lambda: db["campaign_runs"].update_one({"_id": run}, ended))


def runs(store: Store, name: str) -> list[Row]:
    """Runs of a campaign.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.

    Returns
    -------
    list[Row]
        All runs, the latest first.
    """
    return find_all(store.database, "campaign_runs", {"campaign": name}, sort=[("started_at", -1)])


def open_run(store: Store, name: str, chunk: str | None) -> Row | None:
    """The latest run of a chunk whose process has not said that it ended.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    chunk
        Name of the chunk.

    Returns
    -------
    Row | None
        The run; None if no process has begun with the chunk, or all have ended.
    """
    query = {"campaign": name, "chunk": chunk, "state": "running"}
    return find_one(store.database, "campaign_runs", query, sort=[("started_at", -1)])

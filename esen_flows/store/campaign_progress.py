"""States of the members of campaigns, as results come in.

The state of a member repeats what its results say, so that counting members needs no join with the results. Results may
come from elsewhere (another campaign, a command, an import); `refresh_states` then brings the states up to date.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pymongo import UpdateOne

from esen_flows.store.attempts import SETTLED
from esen_flows.store.bulk import batches
from esen_flows.store.campaigns import members
from esen_flows.store.database import Row
from esen_flows.store.reading import find_all
from esen_flows.store.results import Store

_BATCH = 5000  # keys in a query: a few hundred kB


@dataclass(frozen=True)
class Outcome:
    """Outcome of the computation of a member, or of one of its steps.

    Attributes
    ----------
    key
        Result key.
    state
        Whether the result is finished or has failed.
    failure
        Class of the error; None without one.
    seconds
        Computing time of the steps in seconds, whether this campaign or another one computed them; None: unknown.
    value
        Principal number of the property; None without one.
    """

    key: str
    state: Literal["finished", "failed"]
    failure: str | None = None
    seconds: float | None = None
    value: float | None = None


def record_outcomes(store: Store, name: str, outcomes: Iterable[Outcome]) -> None:
    """Write outcomes into the members of a campaign, in one round trip.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    outcomes
        Outcomes of members.
    """
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
    """Outcomes of steps that are finished or have failed for good.

    Parameters
    ----------
    store
        Open store.
    keys
        Result keys of the steps.
    value_field
        Field of the summary with the principal number of the property.

    Returns
    -------
    dict of str to Outcome
        Outcomes by key; steps that would be computed if they were requested are left out.
    """
    if not keys:
        return {}
    query = {"key": {"$in": list(keys)}, "current": True, **SETTLED}
    fields = {"key": 1, "failure": 1, "provenance.seconds": 1, f"summary.{value_field}": 1}
    return {
        row["key"]: Outcome(
            row["key"],
            "failed" if row["failure"] else "finished",
            row["failure"]["error"] if row["failure"] else None,
            row["provenance"]["seconds"],
            number(row.get("summary", {}).get(value_field)),
        )
        for row in find_all(store.database, "results", query, fields)
    }


def settled_members(store: Store, rows: Sequence[Row], value_field: str) -> list[Outcome]:
    """Outcomes of members whose last step is settled, or one of whose steps has failed for good.

    Parameters
    ----------
    store
        Open store.
    rows
        Members with key and steps.
    value_field
        Field of the summary with the principal number of the property.

    Returns
    -------
    list of Outcome
        Outcomes of these members; the others are left out.
    """
    known = settled_steps(store, {step for row in rows for step in row["steps"]}, value_field)
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
    """Bring the states of pending and failed members up to date with the results.

    Failed members are included, because another campaign or a command may have repeated a step that they share.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    value_field
        Field of the summary with the principal number of the property.

    Returns
    -------
    int
        Number of members whose state has changed.
    """
    unfinished = {"state": {"$in": ["pending", "failed"]}, "force": False}
    rows = members(store, name, unfinished, ("key", "steps", "state", "failure"))
    return sum(_refresh(store, name, batch, value_field) for batch in batches(rows, _BATCH))


def number(value: Any) -> float | None:
    """A value of a summary, if it is a number.

    Parameters
    ----------
    value
        Any value.

    Returns
    -------
    float | None
        The number; None for anything else, booleans included.
    """
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def counts(store: Store, name: str) -> list[Row]:
    """Number of members in each state, for each failure and force field; the server reads only the index `status`.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.

    Returns
    -------
    list[Row]
        Rows with state, failure, model_label, members, cost (total), measured (number of members that have a value),
        mean and deviation (sample standard deviation) of the value.
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


def _refresh(store: Store, name: str, rows: list[Row], value_field: str) -> int:
    known = {row["key"]: (row["state"], row["failure"]) for row in rows}
    found = settled_members(store, rows, value_field)
    outcomes = [each for each in found if known[each.key] != (each.state, each.failure)]
    record_outcomes(store, name, outcomes)
    return len(outcomes)

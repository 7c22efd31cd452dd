"""How long things took that are stored: what predictions of computing time are made from."""

from math import pi
from typing import Any

from esen_flows.store.database import Row
from esen_flows.store.results import Store

DEVICE_KINDS = ("cuda", "cpu")
_LATEST = 10_000  # relaxations; the last ones say how fast a machine is now


def seconds_per_cost(store: Store, model_key: str, device_kind: str) -> float | None:
    """Seconds by predicted cost of finished members of all campaigns, by a force field on a kind of device.

    What predictions get wrong on average is thereby put right. None: there are no such members.
    """
    db = store.database
    kind = {"device": {"$regex": f"^{device_kind}"}}
    there = db.call(lambda: set(db["campaign_runs"].distinct("campaign", kind)))
    elsewhere = db.call(lambda: set(db["campaign_runs"].distinct("campaign", {"device": {"$not": kind["device"]}})))
    query: Row = {
        "campaign": {"$in": sorted(there - elsewhere)}, "state": "finished", "model_key": model_key,
        "seconds": {"$gt": 0},
    }  # fmt: skip
    return _ratio(store, "campaign_members", [{"$match": query}], "$seconds", "$cost")


def seconds_per_edge(store: Store, model_key: str, device_kind: str) -> float | None:
    """Seconds by edge evaluation of the latest finished relaxations by a force field on a kind of device.

    Edges follow from the density and the cutoff that a planned campaign has noted, evaluations are counted. None: there
    are no such relaxations, or no campaign by this force field.
    """
    db = store.database
    named = db.call(lambda: db["campaigns"].find_one({"models.key": model_key}, {"models.$": 1}))
    if named is None:
        return None
    query: Row = {
        "model_key": model_key, "kind": "relax", "current": True, "state": "finished",
        "provenance.device": {"$regex": f"^{device_kind}"}, "provenance.force_evaluations": {"$gt": 0},
        "summary.volume_per_atom_angstrom3": {"$gt": 0},
    }  # fmt: skip
    sphere = 4.0 / 3.0 * pi * named["models"][0]["cutoff_angstrom"] ** 3
    edges: Row = {"$divide": [{"$multiply": ["$nsites", sphere]}, "$summary.volume_per_atom_angstrom3"]}
    stages: list[Row] = [{"$match": query}, {"$sort": {"_id": -1}}, {"$limit": _LATEST}]
    cost: Row = {"$multiply": [edges, "$provenance.force_evaluations"]}
    return _ratio(store, "results", stages, "$provenance.seconds", cost)


def _ratio(store: Store, collection: str, stages: list[Row], seconds: Any, cost: Any) -> float | None:
    db = store.database
    group: Row = {"_id": None, "seconds": {"$sum": seconds}, "cost": {"$sum": cost}}
    rows = db.call(lambda: list(db[collection].aggregate([*stages, {"$group": group}])))
    return rows[0]["seconds"] / rows[0]["cost"] if rows and rows[0]["cost"] else None

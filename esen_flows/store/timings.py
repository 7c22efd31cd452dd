"""Computing times of stored results and campaigns, from which the time of new ones is predicted."""

from math import pi
from typing import Any, Literal

from esen_flows.store.database import Row
from esen_flows.store.reading import distinct
from esen_flows.store.results import Store

DeviceKind = Literal["cuda", "cpu"]
DEVICE_KINDS: tuple[DeviceKind, ...] = ("cuda", "cpu")
_LATEST = 10_000  # relaxations; older ones may have run with a slower version of this package


def seconds_per_cost(store: Store, model_key: str, device_kind: str, dtype: str | None = None) -> float | None:
    """Computing time per predicted cost of finished members of all campaigns.

    A prediction that is multiplied by this value is right on average.

    Parameters
    ----------
    store
        Open store.
    model_key
        Key of the force field.
    device_kind
        One of DEVICE_KINDS: devices that count have names that begin with it.
    dtype
        Precision of the campaigns that count; None: any.

    Returns
    -------
    float | None
        Seconds per unit of cost; None if no campaign that ran only on such devices has finished members.
    """
    kind = {"$regex": f"^{device_kind}"}
    on_kind = distinct(store.database, "campaign_runs", "campaign", {"device": kind})
    on_others = distinct(store.database, "campaign_runs", "campaign", {"device": {"$not": kind}})
    if dtype is not None:
        on_kind &= distinct(store.database, "campaigns", "_id", {"spec.dtype": dtype})
    query: Row = {
        "campaign": {"$in": sorted(on_kind - on_others)}, "state": "finished", "model_key": model_key,
        "seconds": {"$gt": 0},
    }  # fmt: skip
    return _ratio(store, "campaign_members", [{"$match": query}], "$seconds", "$cost")


def seconds_per_edge(
    store: Store, model_key: str, device_kind: str, cutoff_angstrom: float, dtype: str | None = None
) -> float | None:
    """Computing time per evaluated edge of the latest finished relaxations.

    The number of edges follows from the density of the relaxed structure and from the cutoff. The number of force
    evaluations is part of each result.

    Parameters
    ----------
    store
        Open store.
    model_key
        Key of the force field.
    device_kind
        One of DEVICE_KINDS: devices that count have names that begin with it.
    cutoff_angstrom
        Cutoff radius of the force field in Angstrom.
    dtype
        Precision of the relaxations that count; None: any.

    Returns
    -------
    float | None
        Seconds per edge; None if there are no such relaxations.
    """
    query: Row = {
        "model_key": model_key, "kind": "relax", "current": True, "state": "finished",
        "provenance.device": {"$regex": f"^{device_kind}"}, "provenance.force_evaluations": {"$gt": 0},
        "summary.volume_per_atom_angstrom3": {"$gt": 0},
    }  # fmt: skip
    if dtype is not None:
        query["numeric.dtype"] = dtype
    sphere = 4.0 / 3.0 * pi * cutoff_angstrom**3
    # Every atom has an edge to each atom within the cutoff: the volume of the sphere over the volume per atom.
    edges: Row = {"$divide": [{"$multiply": ["$nsites", sphere]}, "$summary.volume_per_atom_angstrom3"]}
    stages: list[Row] = [{"$match": query}, {"$sort": {"_id": -1}}, {"$limit": _LATEST}]
    cost: Row = {"$multiply": [edges, "$provenance.force_evaluations"]}
    return _ratio(store, "results", stages, "$provenance.seconds", cost)


def _ratio(store: Store, collection: str, stages: list[Row], seconds: Any, cost: Any) -> float | None:
    db = store.database
    group: Row = {"_id": None, "seconds": {"$sum": seconds}, "cost": {"$sum": cost}}
    rows = db.call(lambda: list(db[collection].aggregate([*stages, {"$group": group}])))
    return rows[0]["seconds"] / rows[0]["cost"] if rows and rows[0]["cost"] else None

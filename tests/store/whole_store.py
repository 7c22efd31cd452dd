"""A small store in which every reference resolves, for the tests of maintenance and archives."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.build import bulk
from result_documents import commit, document, failed, key_of, large_array, result_of

from esen_flows.schemas.keys import result_key
from esen_flows.schemas.protocols import NumericSettings

if TYPE_CHECKING:
    from esen_flows.store.results import Store

COLLECTIONS = ("results", "structures", "models")


def fields_of(kind: str, parent: str, structure: str, name: str) -> dict[str, Any]:
    """The fields that decide a result key, and the key."""
    protocol_hash = key_of(name)
    numeric = NumericSettings()
    key = result_key(kind, protocol_hash, parent, key_of("model"), numeric.key_fields(), 1)
    return {
        "kind": kind,
        "key": key,
        "parent_key": parent,
        "structure_key": structure,
        "protocol_hash": protocol_hash,
        "numeric": numeric.model_dump(mode="json"),
    }


def wipe(store: "Store") -> None:
    """Remove everything from a store, which can be used again."""
    store.database.drop()
    store.database.make_indexes()


def put_relaxation(store: "Store", name: str, a: float = 5.4, **changes: Any) -> str:
    """A relaxation with its structure; its key."""
    structure = store.put_structure(bulk("Si", a=a), material_ids=[name], tags=["test"])
    fields = fields_of("relax", structure, structure, name) | {"created_at": datetime(2026, 11, 21, tzinfo=UTC)}
    return commit(store, document(**fields | changes)).key


def fill(store: "Store") -> dict[str, str]:
    """A chain of three steps, a result after a failed attempt, a pending failure, all with arrays; keys by name."""
    relax = put_relaxation(store, "relax", output={"energies_ev": np.array([np.nan, -0.0, 1e-300]), "n": 2**40})
    structure = result_of(store, relax).structure_key
    forces = fields_of("forces", relax, structure, "forces")
    commit(store, document(**forces, output={"forces_fc2": large_array(1), "forces_fc3": large_array(2)}))
    phonon = fields_of("phonon", forces["key"], structure, "phonon")
    commit(store, document(**phonon, output={"fc2": large_array(1), "words": np.array(["Γ", "X"])}))
    retried = put_relaxation(store, "retried", 5.5)
    again = fields_of("relax", structure, structure, "again")
    commit(store, failed(final=False, **again))
    commit(store, document(**again, output={"path": large_array(3)}))
    pending = fields_of("relax", structure, structure, "pending")
    commit(store, failed(final=False, **pending))
    return {
        "relax": relax, "forces": forces["key"], "phonon": phonon["key"], "retried": retried, "again": again["key"],
        "pending": pending["key"],
    }  # fmt: skip


def contents(store: "Store") -> dict[str, Any]:
    """Everything that an archive holds, for comparison; documents as text, because NaN does not equal NaN."""
    found: dict[str, Any] = {
        name: {str(row["_id"]): repr(sorted(row.items())) for row in store.database[name].find()}
        for name in COLLECTIONS
    }
    pieces = store.database["blob_chunks"].find().sort([("sha", 1), ("n", 1)])
    found["blobs"] = [(piece["sha"], piece["n"], piece["data"]) for piece in pieces]
    headers = store.database["blobs"].find({}, {"write": 0, "created_at": 0})
    found["headers"] = {header["_id"]: header for header in headers}
    return found

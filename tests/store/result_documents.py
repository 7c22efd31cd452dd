"""Invented results and members for the tests of the store."""

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from esen_flows.schemas.documents import Failure, Provenance, ResultDocument
from esen_flows.store.claims import Claim

if TYPE_CHECKING:
    from esen_flows.store.results import Store


def key_of(name: str) -> str:
    """A result key."""
    return hashlib.sha256(name.encode()).hexdigest()


KEY = key_of("one")


def claimed(store: "Store", key: str = KEY, force: bool = False) -> Claim:
    """A claim on a result that no other process computes."""
    claim = store.get_or_claim(key, wait_seconds=0, force=force)
    assert isinstance(claim, Claim)
    return claim


def commit(store: "Store", made: ResultDocument, force: bool = False) -> ResultDocument:
    """Claim and commit a result, and return the stored one."""
    return store.commit(claimed(store, made.key, force), made)


def result_of(store: "Store", key: str = KEY, load_arrays: bool = True) -> ResultDocument:
    """A result that is stored."""
    found = store.get(key, load_arrays)
    assert found is not None
    return found


def output_of(store: "Store", key: str = KEY, load_arrays: bool = True) -> dict[str, Any]:
    """The output of a result that is stored."""
    output = result_of(store, key, load_arrays).output
    assert output is not None
    return output


def document(key: str, **changes: Any) -> ResultDocument:
    """A finished relaxation of silicon."""
    fields: dict[str, Any] = {
        "kind": "relax",
        "key": key,
        "parent_key": key_of("silicon"),
        "structure_key": key_of("silicon"),
        "model_key": key_of("model"),
        "model_label": "esen_silicon",
        "protocol": {"fmax_ev_per_angstrom": 1e-3},
        "protocol_hash": key_of("protocol"),
        "numeric": {"dtype": "float64"},
        "numerics_revision": 1,
        "state": "finished",
        "formula": "Si",
        "chemsys": "Si",
        "elements": ["Si"],
        "nsites": 2,
        "space_group_number": 227,
        "space_group_symbol": "Fd-3m",
        "summary": {"energy_per_atom_ev": -5.42},
        "output": {"forces": np.zeros((2, 3))},
        "provenance": Provenance(
            package_version="0.1.0",
            git_revision=None,
            libraries={"numpy": "2"},
            python="3.11.7",
            device="cpu",
            host="laptop",
            threads=1,
            seconds=1.5,
            force_evaluations=12,
        ),
        "created_at": datetime.now(UTC),
    }
    return ResultDocument(**fields | changes)


def failed(key: str, *, final: bool, **changes: Any) -> ResultDocument:
    """A failed relaxation of silicon."""
    failure = Failure(error="NotConvergedError" if final else "MemoryError", message="no", final=final)
    return document(key, state="failed", failure=failure, output=None, **changes)


def large_array(seed: int, megabytes: float = 1.0) -> np.ndarray:
    """Random numbers from a fixed seed, too many to be stored inline."""
    return np.random.default_rng(seed).random(int(megabytes * 2**20 / 8))


def member_rows(count: int) -> list[dict[str, Any]]:
    """New members of a campaign, the last one with the largest cost."""
    return [
        {
            "key": f"k{i}", "steps": [f"k{i}"], "label": f"m{i}", "structure_key": f"s{i}", "model_key": "m",
            "model_label": "emt", "formula": "Cu", "nsites": i + 1, "info": {}, "cost": float(i),
        }
        for i in range(count)
    ]  # fmt: skip

"""Invented results and members for the tests of the store."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import numpy as np

from esen_flows.schemas.documents import Failure, Provenance, ResultDocument


def key_of(name: str) -> str:
    """A result key."""
    return hashlib.sha256(name.encode()).hexdigest()


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

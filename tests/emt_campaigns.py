"""Campaigns with EMT, planned and computed in a database of their own, for tests that need finished campaigns."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from esen_flows.campaigns.plan import campaign_document
from esen_flows.campaigns.reproduce import compute_here
from esen_flows.schemas.campaign import CampaignSpec, member_keys
from esen_flows.schemas.card import resolve_model
from esen_flows.settings import Settings, get_settings
from esen_flows.store import campaigns
from esen_flows.store.bulk import put_structures
from esen_flows.store.connection import open_store
from esen_flows.store.results import Store

METALS = ("Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al")
# What a user says for a submission to the leaderboard.
AUTHOR = """\
model_name: EMT
model_version: v1
authors:
- {name: Nobody, email: nobody@example.org}
license: {code: MIT, checkpoint: unreleased}
dates: {benchmark_added: 2026-11-29, paper_published: null}
doi: null
paper: null
repo: https://example.org/emt
pr_url: null
checkpoint_url: null
openness: OSOD
training_sets: [none]
train_task: S2EFS
model_params: 0
"""
SETTINGS = {"fmax_ev_per_angstrom": 0.2, "max_steps": 100}


@contextmanager
def empty_database(settings: Settings) -> Iterator[Store]:
    """An empty database that `open_store()` opens as long as the context lasts."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ESEN_FLOWS_MONGO_URI", raising=False)
        patch.setenv("ESEN_FLOWS_DATA_DIR", str(settings.data_dir))
        patch.setenv("ESEN_FLOWS_DATABASE", name)
        get_settings.cache_clear()
        store = open_store(settings.model_copy(update={"database": name}))
        try:
            yield store
        finally:
            store.database.drop()
            store.close()
            patch.undo()
            get_settings.cache_clear()


def crystals(count: int, *, iron: bool = True) -> list[Atoms]:
    """Strained and rattled metals; with `iron` every tenth one is of it, which EMT does not know."""
    rng = np.random.default_rng(5)
    found = []
    for i in range(count):
        name = "Fe" if iron and i % 10 == 9 else METALS[i % 7]
        atoms = bulk(name, cubic=True) if i % 3 else bulk(name)
        atoms.set_cell(atoms.cell * (1 + 0.01 * rng.standard_normal()), scale_atoms=True)
        atoms.rattle(0.02, rng=rng)
        found.append(atoms)
    return found


def plan(store: Store, structures: Sequence[Atoms], name: str = "c", **changes: Any) -> list[str]:
    """Plan a campaign of structures, labelled m0, m1, ..., with EMT; the keys of its members."""
    content = {"name": name, "property": "relax", "structures": {"file": "x"}, "models": "emt", "settings": SETTINGS}
    spec = CampaignSpec.model_validate({**content, **changes})
    model = resolve_model("emt")
    models = [{"label": "emt", "key": model.key, "location": "emt", "cutoff_angstrom": 6.0}]
    campaigns.create_campaign(store, campaign_document(spec, "", models) | {"state": "planned"})
    named = [(atoms, {"material_ids": [f"m{i}"], "tags": spec.all_tags}) for i, atoms in enumerate(structures)]
    rows: list[dict[str, Any]] = []
    for i, (key, atoms) in enumerate(zip(put_structures(store, named), structures, strict=True)):
        steps = member_keys(spec, key, model.key, {})
        rows.append(
            {
                "key": steps[-1], "steps": list(steps), "label": f"m{i}", "structure_key": key, "model_key": model.key,
                "model_label": "emt", "formula": atoms.get_chemical_formula(), "nsites": len(atoms), "info": {},
                "cost": float(len(atoms)),
            }
        )  # fmt: skip
    campaigns.insert_members(store, name, rows)
    return [row["key"] for row in rows]


def finish(store: Store, structures: Sequence[Atoms], name: str = "c", **changes: Any) -> list[str]:
    """Plan and compute a campaign; the keys of its members."""
    keys = plan(store, structures, name, **changes)
    compute_here(store, name)
    return keys

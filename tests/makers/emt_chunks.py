"""Chunks of campaigns with EMT, computed in this process, for the tests of chunks."""

from collections.abc import Callable, Sequence
from typing import Any

import emt_campaigns
import pytest
from ase import Atoms
from jobflow import Response

from esen_flows.forcefield import load
from esen_flows.forcefield.contract import Evaluation
from esen_flows.forcefield.third_party.any_ase import AseForceField
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.makers.chunks import Stage, chunk_job
from esen_flows.store import campaigns
from esen_flows.store.results import Store

SETTINGS = {"fmax_ev_per_angstrom": 0.05, "max_steps": 100}
CONDUCTIVITY = {
    "relax.fmax_ev_per_angstrom": 0.01, "displacement.fc2_supercell": [1, 1, 1], "mesh": [3, 3, 3],
    "displacement.fc3_supercell": [2, 2, 2], "temperatures_kelvin": [300.0],
}  # fmt: skip


def crystals(count: int) -> list[Atoms]:
    return emt_campaigns.crystals(count, iron=False)


def campaign(store: Store, structures: list[Atoms], **changes: Any) -> list[str]:
    """Plan a campaign "c" of structures; the keys of its members."""
    return emt_campaigns.plan(store, structures, **{"settings": SETTINGS, **changes})


def states(store: Store) -> dict[str, tuple[str, str | None]]:
    """State and failure of each member by its label."""
    return {row["label"]: (row["state"], row["failure"]) for row in campaigns.members(store, "c")}


def run(keys: list[str], stage: Stage = "relax") -> Response:
    """Compute members of the campaign "c" as one chunk."""
    return chunk_job("c", "chunk", stage, keys)


class HookedEmt(AseForceField):
    """EMT that calls a function with the structures of each evaluation."""

    def __init__(self, before: Callable[[Sequence[Atoms]], object]) -> None:
        inner = emt()
        super().__init__(inner.calculator, key=inner.key, label="emt", declaration=inner.declaration)
        self._before = before

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        """Call the function, then evaluate as EMT does."""
        self._before(structures)
        return super().evaluate(structures)


def hook(patch: pytest.MonkeyPatch, before: Callable[[Sequence[Atoms]], object]) -> None:
    """Have every chunk use a `HookedEmt`."""
    force_field = HookedEmt(before)
    patch.setattr(load, "load_force_field", lambda *arguments, **options: force_field)

"""Structures that break the program, the process or the GPU are isolated, and the other members are computed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from emt_chunks import CONDUCTIVITY, campaign, crystals, hook, run, states

from esen_flows.store import campaign_runs
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


def test_an_unexpected_error_fails_only_the_structure_that_causes_it(
    named_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(structures: Any) -> None:
        if any(atoms.get_chemical_formula() == "Pt" for atoms in structures):
            raise ZeroDivisionError("not one of ours")

    structures = [bulk("Cu", a=3.5 + 0.01 * i) for i in range(9)]
    structures.insert(5, bulk("Pt"))
    keys = campaign(named_store, structures)
    hook(monkeypatch, fail)
    response = run(keys)
    assert response.detour is None
    found = states(named_store)
    assert found.pop("m5") == ("failed", "ZeroDivisionError")
    assert set(found.values()) == {("finished", None)}
    stored = named_store.get(keys[5])
    assert stored is not None
    assert stored.failure is not None
    assert not stored.failure.final


def test_a_structure_that_kills_its_process_is_isolated_over_restarts(named_store: Store) -> None:
    structures = [bulk("Cu", a=3.5 + 0.01 * i) for i in range(6)]
    structures.insert(2, bulk("Pt"))
    keys = campaign(named_store, structures)
    script = Path(__file__).parent / "crashing_chunk.py"
    done = subprocess.run([sys.executable, script, *keys], capture_output=True, text=True, timeout=600, check=True)
    deaths = int(done.stdout)
    found = states(named_store)
    assert found.pop("m2") == ("failed", "ProcessDiedError")
    assert set(found.values()) == {("finished", None)}
    assert 2 <= deaths <= 5
    assert named_store.database["results"].count_documents({}) == 7
    died = [row for row in campaign_runs.runs(named_store, "c") if row["state"] == "died"]
    assert len(died) == deaths
    assert named_store.database["claims"].count_documents({}) == 0


@pytest.mark.parametrize("stage", ["relax", "forces"])
def test_a_lost_gpu_ends_the_process_and_fails_no_member(
    named_store: Store, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    class Killed(BaseException):
        pass

    def lose(structures: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def killed(process: int, number: int) -> None:
        raise Killed

    made: dict[str, Any] = {} if stage == "relax" else {"property": "conductivity", "settings": CONDUCTIVITY}
    keys = campaign(named_store, crystals(2), **made)
    hook(monkeypatch, lose)
    monkeypatch.setattr(os, "kill", killed)
    with pytest.raises(Killed):
        run(keys, stage)
    monkeypatch.undo()
    assert set(states(named_store).values()) == {("pending", None)}

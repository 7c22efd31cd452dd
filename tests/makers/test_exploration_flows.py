"""Explorations through the command and through a chunk: every structure is a result with its parents by role."""

import re
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write
from emt_chunks import campaign, run, states
from typer.testing import CliRunner

from esen_flows.cli.app import app
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.relax import relax
from esen_flows.schemas.protocols import RelaxProtocol
from esen_flows.store.queries.query import query
from esen_flows.store.results import Store
from esen_flows.store.upkeep.verify import verify

pytestmark = pytest.mark.mongod
SETTINGS = {"symmetry": "explore", "exploration.min_length_angstrom": 5.0, "exploration.max_directions": 1}


def command(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


def test_a_command_stores_all_structures_and_continues(
    named_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("Cu.cif", bulk("Cu", "bcc", a=2.87))
    options = ["relax", "Cu.cif", "-m", "emt", "--output", "out", *(f"--set={n}={v}" for n, v in SETTINGS.items())]
    report = command(*options)  # bcc copper becomes hcp along Burgers' path, which keeps Cmcm (63)
    assert re.search(r"\n0  Im-3m \(229\), 1 atom, .*; unstable", report)
    assert re.search(r"\n  1  P6_3/mmc \(194\), 2 atoms, 0.00 .*\(1/2, 1/2, 0\) in subgroup 63; stable.*<- low", report)
    assert Path("out/branches.png").stat().st_size > 5_000
    (branch,) = query(named_store, "branch", where="frequency_thz < -1")
    parents = {role: named_store.get(key) for role, key in branch.parents.items()}
    assert {role: one and one.kind for role, one in parents.items()} == {"structure": "relax", "forces": "forces"}
    locked = parents["structure"]
    assert locked is not None
    assert locked.protocol["symmetry"] == "lock"
    (answer,) = query(named_store, "relax", where="structures_found = 2")
    assert answer.summary["energy_per_atom_ev"] == branch.summary["energy_per_atom_ev"]
    hcp = relax(bulk("Cu", "hcp", a=2.55, c=4.16), load_force_field("emt"), RelaxProtocol(symmetry="lock"))
    assert answer.summary["energy_per_atom_ev"] == pytest.approx(hcp.energy_per_atom_ev, abs=1e-6)
    assert not verify(named_store).problems
    # What an interrupted exploration has stored is not computed again.
    named_store.database["results"].delete_one({"_id": answer.key})
    named_store.database["results"].delete_many({"key": answer.key})
    before = {one.key: one.created_at for kind in ("relax", "forces", "branch") for one in query(named_store, kind)}
    assert answer.key not in before
    command(*options)
    after = {one.key: one.created_at for kind in ("relax", "forces", "branch") for one in query(named_store, kind)}
    assert {key: after[key] for key in before} == before
    assert set(after) - set(before) == {answer.key}


def test_members_of_a_campaign_explore_one_by_one(named_store: Store) -> None:
    run(campaign(named_store, [bulk("Cu")], settings=SETTINGS))
    assert set(states(named_store).values()) == {("finished", None)}
    assert {one.summary.get("verdict") for one in query(named_store, "relax")} == {None, "stable"}

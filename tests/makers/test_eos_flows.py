"""Equations of state and elastic tensors through flows and chunks: several results are the parents of one."""

from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write
from emt_chunks import campaign, run, states
from typer.testing import CliRunner

from esen_flows.cli.app import app
from esen_flows.cli.commands.results import parents_of
from esen_flows.schemas.properties import PROPERTIES
from esen_flows.store.queries.query import query
from esen_flows.store.results import Store
from esen_flows.store.upkeep.verify import verify

pytestmark = pytest.mark.mongod
CALIBRATED = {"extrapolation", "extrapolation_limit"}  # of networks that are
SETTINGS = {"relax.fmax_ev_per_angstrom": 0.001, "number_of_frames": 6, "linear_strain": [-0.03, 0.03]}


def test_a_chunk_computes_all_volumes_and_then_the_fit(named_store: Store) -> None:
    keys = campaign(named_store, [bulk("Cu"), bulk("Al")], property="eos", settings=SETTINGS)
    assert run(keys, "lattice").output["done"] == 0  # nothing to fit yet
    run(keys, "forces")
    assert named_store.database["results"].count_documents({"kind": "relax"}) == 2 * 7
    assert run(keys, "lattice").output["done"] == 2
    assert set(states(named_store).values()) == {("finished", None)}
    for document in query(named_store, "eos"):
        assert set(document.summary) == {value.name for value in PROPERTIES["eos"].summary} - CALIBRATED
        assert len(document.parents) == 6
        before = [step.key for step in parents_of(named_store, document)]
        assert before[1:] == list(document.parents.values())  # after the relaxation that all of them started from
        assert named_store.get(before[1]).parent_key == before[0]  # type: ignore[union-attr]
    # EMT was fitted to the bulk modulus of copper, 134 GPa.
    moduli = {document.formula: document.summary["bulk_modulus_gpa"] for document in query(named_store, "eos")}
    assert moduli["Cu"] == pytest.approx(134, abs=2)
    assert not verify(named_store).problems


def test_a_chunk_computes_elastic_tensors(named_store: Store) -> None:
    keys = campaign(named_store, [bulk("Cu")], property="elastic", settings={"relax.fmax_ev_per_angstrom": 0.001})
    run(keys, "forces")
    assert run(keys, "lattice").output["done"] == 1
    (document,) = query(named_store, "elastic", where="stable and bulk_modulus > 100")
    assert set(document.summary) == {value.name for value in PROPERTIES["elastic"].summary} - CALIBRATED
    # EMT was fitted to the shear constant C44 of copper too, 88 to 91 GPa with this cutoff.
    assert document.summary["c44_gpa"] == pytest.approx(90, abs=3)
    (strains,) = query(named_store, "strains")
    assert set(strains.summary) == {value.name for value in PROPERTIES["strains"].summary} - CALIBRATED
    assert strains.provenance.force_evaluations == 9


def command(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "140"})
    assert done.exit_code == 0, done.output
    return done.output


def test_a_command_prints_and_draws_it(named_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("Cu.cif", bulk("Cu", a=3.6))
    options = [f"--set={name}={str(value).strip('[]')}" for name, value in SETTINGS.items()]
    assert "bulk modulus B0" in command("eos", "Cu.cif", "--model", "emt", "--output", "out", *options)
    assert Path("out/eos.png").stat().st_size > 5_000
    found = command("query", "eos", "--where", "bulk_modulus > 100", "--columns", "formula,bulk_modulus", "-f", "csv")
    assert found.splitlines()[-1].startswith("Cu,13")
    # A lost parent is found by the check of the store.
    named_store.database["results"].delete_one({"kind": "relax", "protocol.constant_volume": True})
    assert any("its parent" in problem for problem in verify(named_store).problems)

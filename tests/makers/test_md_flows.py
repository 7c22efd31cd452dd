"""Molecular dynamics through commands, flows and chunks: killed and resumed, exploded, and drawn."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write
from emt_chunks import campaign, run, states
from typer.testing import CliRunner

from esen_flows import progress
from esen_flows.campaigns.cost import CostModel, member_cost
from esen_flows.cli.app import app
from esen_flows.makers.md import MDMaker
from esen_flows.makers.steps import compute_step
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.md_output import MDOutput
from esen_flows.schemas.properties import PROPERTIES
from esen_flows.stopping import Allocation, allocated
from esen_flows.store import partial_results
from esen_flows.store.queries.query import query
from esen_flows.store.results import Store

ROOT = Path(__file__).resolve().parents[2]
# The command of a user, which loses its process after a step.
KILLED = """
import os, signal, sys
from esen_flows import progress
from esen_flows.cli.app import app
from esen_flows.store import partial_results

def report(kind, done, total, remark):
    if kind == "md" and done == 25:
        os.kill(os.getpid(), signal.SIGKILL)

partial_results.INTERVAL_SECONDS = 0.0
progress.report = report
app(sys.argv[1:])
"""
SETTINGS = {"n_steps": 60, "time_step": 2.0, "traj_interval": 5, "ensemble": "nve"}


@pytest.mark.mongod
def test_a_killed_job_continues_and_leaves_nothing_behind(named_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """esen_silicon is killed after 30 of 60 Langevin steps; the second job is of one piece with the first."""
    monkeypatch.setattr(partial_results, "INTERVAL_SECONDS", 0.0)
    protocol = MDProtocol.model_validate(SETTINGS | {"ensemble": "nvt", "n_steps": 40})
    job = MDMaker(protocol=protocol).make(bulk("Si"))
    arguments = dict(zip(("structure", "request", "model"), job.function_args, strict=False)) | job.function_kwargs
    reached: list[int] = []

    def kill(kind: str, done: int, total: int | None, remark: str) -> None:
        reached.append(done)
        if done == 20 and total == 40:
            raise KeyboardInterrupt

    with progress.listening(kill), pytest.raises(KeyboardInterrupt):
        compute_step(**arguments)
    kept = named_store.database[partial_results.COLLECTION]
    assert kept.count_documents({}) > 1
    resumed = compute_step(**arguments)
    assert kept.count_documents({}) == 0
    assert resumed.provenance.force_evaluations == 20
    named_store.database["results"].delete_many({})
    whole = compute_step(**arguments)
    assert whole.provenance.force_evaluations == 41
    one, other = (MDOutput.model_validate(document.output) for document in (resumed, whole))
    assert np.array_equal(one.positions_angstrom, other.positions_angstrom)
    assert np.array_equal(one.heat_ev, other.heat_ev)


@pytest.mark.mongod
def test_a_command_that_is_killed_and_typed_again_ends_with_the_same_bits(
    named_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("Si.extxyz", bulk("Si"))
    settings = SETTINGS | {"ensemble": "nvt", "n_steps": 40}
    # Not EMT: ASE's keeps a neighbour list from step to step, whose order changes the last bit.
    command = ["md", "Si.extxyz", "--model", "esen_silicon", "--json", *(f"--set={k}={v}" for k, v in settings.items())]

    def document() -> dict[str, Any]:
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = document()
    assert resumed["provenance"]["force_evaluations"] == 16  # of the killed process 24 steps were kept
    named_store.database["results"].delete_many({})
    whole = document()
    assert whole["provenance"]["force_evaluations"] == 41
    assert len(whole["output"]["positions_angstrom"]) == 9
    assert resumed["output"] == whole["output"]  # JSON keeps all bits
    assert resumed["summary"] == whole["summary"]


@pytest.mark.mongod
def test_a_chunk_shares_force_calls_and_refuses_what_explodes(
    named_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = bulk("Pt", cubic=True, a=2.2)
    dense.rattle(0.3, seed=0)
    structures = [bulk("Cu", cubic=True), bulk("Al", cubic=True), dense]
    keys = campaign(named_store, structures, property="md", settings=SETTINGS)
    with allocated(Allocation()) as allocation, monkeypatch.context() as patch:
        patch.setattr(partial_results.PartialSeries, "due", lambda self, n_bytes: allocation.request_stop() or True)
        run(keys, "md")  # asked to stop after the first step
    assert named_store.database[partial_results.COLLECTION].count_documents({}) >= 2
    run(keys, "md")
    assert sorted(states(named_store).values(), key=str) == [("failed", "ExplosionError"), *2 * [("finished", None)]]
    assert named_store.database[partial_results.COLLECTION].count_documents({}) == 0
    for document in query(named_store, "md"):
        known = {value.name for value in PROPERTIES["md"].summary}
        assert set(document.summary) == known - {"extrapolation", "extrapolation_limit"}  # which EMT has not
    model = CostModel(6.0, mirrored=False)
    short, long = (MDProtocol.model_validate(SETTINGS | {"n_steps": n}) for n in (60, 600))
    assert member_cost(structures[0], long, model) > 9 * member_cost(structures[0], short, model)


@pytest.mark.mongod
def test_a_command_prints_draws_and_writes_it(
    named_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("Cu.extxyz", bulk("Cu", cubic=True))
    options = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    command = ["md", "Cu.extxyz", "--model", "emt", "--output", "out"]
    done = CliRunner().invoke(app, [*command, *options], env={"COLUMNS": "140"})
    assert done.exit_code == 0, done.output
    assert "mean temperature" in done.output
    assert Path("out/md.png").stat().st_size > 5_000
    assert len(read("out/trajectory.extxyz", ":")) == 13
    refused = CliRunner().invoke(app, [*command, "--protocol", "dynamat-v1"])
    assert "no temperature is given" in refused.output + str(refused.exception)

"""`esen-flows query` and `show` of labellings and evaluations: they are results like all others."""

import json
from typing import Any

import pytest
from ase.build import bulk
from command_line import run
from jobflow import run_locally

from esen_flows.makers.training import EvaluateMaker, LabelMaker
from esen_flows.store.jobflow_store import job_store

pytestmark = pytest.mark.mongod


def test_labellings_and_evaluations_are_listed_and_shown(
    copper: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    structures = [bulk("Cu", "fcc", a=3.5 + 0.05 * number) for number in range(4)]
    options = {"force_field_name": str(copper.checkpoint)}
    store = job_store(copper.store)
    labelling = LabelMaker(dataset_name="copper", **options).make(structures)
    label = run_locally(labelling, log=False, store=store, raise_immediately=True)[labelling.uuid][1].output
    judging = EvaluateMaker(**options).make(label["summary"]["dataset_key"])
    evaluation = run_locally(judging, log=False, store=store, raise_immediately=True)[judging.uuid][1].output
    capsys.readouterr()

    for kind, key in (("labelling", label["key"]), ("evaluation", evaluation["key"])):
        assert run("query", kind) == 0
        assert key[:12] in capsys.readouterr().out
        assert run("show", key) == 0
        shown = capsys.readouterr().out
        assert "copper" in shown
        assert key in shown
    columns = "dataset_name,structures,energy_mae,force_mae_mev_per_angstrom"
    assert run("query", "evaluation", "--columns", columns, "--where", "force_mae < 1", "--format", "jsonl") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["dataset_name"], row["structures"]) == ("copper", 4)
    assert row["energy_mae"] == pytest.approx(0.0, abs=1e-4)
    assert run("query", "training") == 0
    assert "nothing found" in capsys.readouterr().out

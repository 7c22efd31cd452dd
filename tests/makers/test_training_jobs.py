"""Jobs of labelling, training and evaluation: stored once, resumed to the same bits, and chained."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from copper_stages import DENS, crystals, stage
from fireworks import FWorker, LaunchPad
from fireworks.core.rocket_launcher import rapidfire
from jobflow import SETTINGS, Flow, run_locally
from jobflow.managers.fireworks import flow_to_workflow
from running import run

from esen_flows.errors import EsenFlowsError, InputError
from esen_flows.forcefield import load
from esen_flows.forcefield.load import load_force_field
from esen_flows.makers.audit import AuditMaker
from esen_flows.makers.relax import RelaxMaker
from esen_flows.makers.training import EvaluateMaker, LabelMaker, TrainMaker, trained_force_field
from esen_flows.makers.training_flows import PretrainFinetuneFlow
from esen_flows.progress import listening
from esen_flows.schemas.audit import AuditProtocol, MeasurementsProtocol
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.schemas.protocols import RelaxProtocol
from esen_flows.schemas.training import RANDOM_WEIGHTS, EvaluationOutput, Split, TrainingOutput
from esen_flows.settings import get_settings
from esen_flows.store.datasets import dataset_document, fetch_dataset
from esen_flows.store.jobflow_files import launchpad_spec
from esen_flows.store.jobflow_store import job_store
from esen_flows.store.models import stored_model
from esen_flows.store.queries.crystals import stream_atoms
from esen_flows.store.queries.query import query
from esen_flows.store.trained_models import trained_model_path
from esen_flows.store.upkeep.verify import verify
from esen_flows.training.divergence import TrainingDivergedError
from esen_flows.training.train import TrainingInterrupted

pytestmark = pytest.mark.mongod
WORKER = Path(__file__).with_name("train_worker.py")
SPLIT = Split(fraction=0.25)
RECIPE = {
    "seed": 1,
    "groups": [{"name": "fcc", "prototype": "fcc", "species": "Cu", "lattice_angstrom": [3.5, 3.7], "count": 4}],
}


@pytest.fixture
def lab(copper: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Copper's store. EMT replaces only the force field of its checkpoint; other checkpoints are loaded."""

    def chosen(location: Any, **options: Any) -> Any:
        return copper.force_field if str(location) == str(copper.checkpoint) else load_force_field(location, **options)

    monkeypatch.setattr(load, "load_force_field", chosen)
    return copper


def labelled(lab: Any, **changes: Any) -> str:
    """The key of a small labelled dataset."""
    output = run(LabelMaker(force_field_name=str(lab.checkpoint), **changes).make(crystals()), lab)
    return str(output["summary"]["dataset_key"])


def trained(lab: Any, data: str, seed: int, **changes: Any) -> ResultDocument:
    """The stored training of a stage."""
    maker = TrainMaker(config=stage(seed=seed), split=SPLIT)
    return lab.store.get(run(TrainMaker(**(vars(maker) | changes)).make(data), lab)["key"])


def environment() -> dict[str, str]:
    """Environment of another process that uses the same store."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(WORKER.parent), str(WORKER.parents[2])])}


def forget(lab: Any) -> None:
    """Remove all trainings, so that the next request trains."""
    lab.store.database["results"].delete_many({"kind": "training"})


def test_labels_are_those_of_the_labeller(lab: Any, tmp_path: Path) -> None:
    maker = LabelMaker(force_field_name=str(lab.checkpoint), dataset_name="rattled copper", tags=("test",))
    job = maker.make(crystals())
    output = run(job, lab)
    stored = lab.store.get(output["key"])
    assert output["key"] == job.metadata["result_key"]
    assert (stored.formula, stored.nsites, stored.elements, stored.tags) == (None, None, ["Cu"], ["test"])
    assert stored.subject_name == stored.summary["dataset_name"]
    assert stored.provenance.force_evaluations == lab.force_field.force_evaluations == 12
    dataset = fetch_dataset(lab.store, output["summary"]["dataset_key"], tmp_path / "data")
    assert dataset_document(lab.store, dataset.key).names == ["rattled copper"]
    for item, atoms in zip(dataset, crystals(), strict=True):
        (result,) = lab.force_field.evaluate([atoms])
        assert item.energy == pytest.approx(result.energy, abs=1e-6)
        np.testing.assert_allclose(item.forces, result.forces, atol=1e-6)
        assert (item.group, item.material) == (atoms.info["group"], atoms.info["material"])
    assert dataset.provenance["labeller"]["key"] == lab.force_field.key
    assert not (get_settings().data_dir / "labelling" / output["key"]).exists()


def test_a_labelling_is_computed_once_and_resumed_after_an_interruption(lab: Any) -> None:
    maker = LabelMaker(force_field_name=str(lab.checkpoint), average_inversion=False)

    def interrupt(kind: str, done: int, total: int | None, words: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with listening(interrupt), pytest.raises(KeyboardInterrupt):
        run(maker.make(crystals()), lab)
    assert lab.force_field.force_evaluations == 5
    first = run(maker.make(crystals()), lab)
    assert lab.force_field.force_evaluations == 12
    assert run(maker.make(crystals()), lab) == first
    assert lab.force_field.force_evaluations == 12
    other = maker.make(crystals()[:11])
    assert other.metadata["result_key"] != first["key"]


def test_a_recipe_is_labelled(lab: Any) -> None:
    output = run(LabelMaker(force_field_name=str(lab.checkpoint)).make(RECIPE), lab)
    document = dataset_document(lab.store, output["summary"]["dataset_key"])
    assert (document.count, document.elements) == (4, ["Cu"])
    assert [row["group"] for row in document.groups] == ["fcc"]
    assert len(document.provenance["recipe_hash"]) == 64
    with pytest.raises(InputError, match="no structures to label"):
        LabelMaker(force_field_name=str(lab.checkpoint)).make([])


def test_a_training_is_stored_once_with_its_force_field(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = labelled(lab)
    maker = TrainMaker(name="tiny", config=stage(), split=SPLIT, tags=("test",))
    job = maker.make(data)
    output = run(job, lab)
    stored = lab.store.get(output["key"])
    result = TrainingOutput.model_validate(stored.output)
    assert output["key"] == job.metadata["result_key"]
    assert (stored.parent_key, stored.structure_key, stored.model_key) == (data, data, RANDOM_WEIGHTS)
    assert [row["epoch"] for row in result.history] == [1.0, 2.0, 3.0]
    assert {row["group"] for row in result.errors} == {"all", "fcc", "other"}
    assert stored.summary["force_mae_mev_per_angstrom"] == result.history[-1]["force_mae_mev_per_angstrom"]
    assert (result.training_structures, result.validation_structures) == (9, 3)
    assert result.record["config"]["epochs"] == 3
    assert result.record["provenance"]["result_key"] == output["key"]
    assert set(stored.summary) == {value.name for value in entry_of("training").summary}
    assert not (get_settings().data_dir / "training" / output["key"]).exists()
    found = stored_model(lab.store.database, result.model_key)
    assert found is not None
    assert found["labels"] == ["tiny"]
    assert query(lab.store, "training", where="force_mae > 0", campaign="test")[0].key == output["key"]
    assert verify(lab.store).problems == []
    with pytest.raises(InputError, match="training results are about datasets"):
        stream_atoms(lab.store, "training", which="input")

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("esen_flows.training.train.train", refuse)
    assert run(maker.make(data), lab) == output


def test_other_makers_use_the_trained_force_field(lab: Any) -> None:
    key = trained(lab, labelled(lab), seed=1).key
    location = trained_force_field(key)
    loose = RelaxProtocol(fmax_ev_per_angstrom=50.0)
    relax = RelaxMaker(force_field_name=location, protocol=loose).make(bulk("Cu", "fcc", a=3.6, cubic=True))
    Path(location).unlink()  # a worker elsewhere does not have it
    stored = lab.store.get(run(relax, lab)["key"])
    assert stored.model_key == lab.store.get(key).summary["model_key"]
    assert Path(location) == trained_model_path(stored.model_key)
    assert Path(location).is_file()


def test_a_training_starts_from_a_checkpoint(lab: Any) -> None:
    data = labelled(lab)
    first = trained(lab, data, seed=10)
    location = trained_force_field(first.key)
    second = trained(lab, data, seed=10, initial=location, config=stage(seed=10, epochs=1))
    assert (second.parent_key, second.model_key) == (data, first.summary["model_key"])
    output = TrainingOutput.model_validate(second.output)
    assert output.parent_training is None
    assert output.record["initial_model_key"] == first.summary["model_key"]
    assert output.errors != TrainingOutput.model_validate(first.output).errors


def test_a_dataset_missing_on_this_machine_is_not_stored_as_a_failure(lab: Any) -> None:
    data = labelled(lab)
    folder = get_settings().data_dir / "datasets" / data
    whole = trained(lab, data, seed=11)
    forget(lab)
    (folder / "atoms.npy").rename(folder / "elsewhere")
    with pytest.raises(InputError, match=r"atoms\.npy"):
        trained(lab, data, seed=11)
    (folder / "elsewhere").rename(folder / "atoms.npy")
    assert query(lab.store, "training", failed=True) == []
    assert trained(lab, data, seed=11).summary["model_key"] == whole.summary["model_key"]
    lab.store.database["datasets"].delete_many({})
    assert any(f"its dataset {data} is not stored" in problem for problem in verify(lab.store).problems)


def test_a_training_that_runs_out_of_time_replaces_its_job(lab: Any) -> None:
    data = labelled(lab)
    whole = trained(lab, data, seed=2)
    forget(lab)
    maker = TrainMaker(config=stage(seed=2), split=SPLIT, max_seconds=0.0)
    training = maker.make(data)
    follower = EvaluateMaker(held_out=SPLIT).make(data, training=training.output)
    responses = run_locally(Flow([training, follower]), log=False, store=job_store(lab.store), raise_immediately=True)
    parts = responses[training.uuid]
    assert len(parts) == whole.summary["steps"] + 1 > 8  # one step a job, and the end
    for index in list(parts)[:-1]:
        (again,) = parts[index].replace.jobs
        assert (again.metadata["result_key"], again.name) == (whole.key, "train")
    last = parts[max(parts)].output
    assert last["key"] == whole.key
    assert last["summary"]["model_key"] == whole.summary["model_key"]
    attempts = list(lab.store.database["results"].find({"key": whole.key}).sort("attempt", 1))
    assert [row["state"] for row in attempts] == ["failed"] * (len(parts) - 1) + ["finished"]
    assert attempts[0]["failure"]["message"].startswith("stopped after step 1 of")
    assert not attempts[0]["failure"]["final"]
    evaluated = lab.store.get(responses[follower.uuid][1].output["key"])
    assert evaluated.model_key == whole.summary["model_key"]


def test_a_training_stopped_by_a_signal_is_resumed_by_the_next_request(lab: Any) -> None:
    data = labelled(lab)
    whole = trained(lab, data, seed=3)
    forget(lab)

    def interrupt(kind: str, done: int, total: int | None, words: str) -> None:
        if kind == "training" and done == 2:
            signal.raise_signal(signal.SIGUSR1)

    with listening(interrupt), pytest.raises(TrainingInterrupted, match="step 3"):
        trained(lab, data, seed=3)
    assert not lab.store.get(whole.key).failure.final
    seen: list[int] = []
    with listening(lambda kind, done, total, words: seen.append(done)):
        resumed = trained(lab, data, seed=3)
    assert seen[0] == 4
    assert resumed.summary["model_key"] == whole.summary["model_key"]


@pytest.mark.slow
def test_a_killed_training_is_resumed_to_the_same_bits(lab: Any) -> None:
    data = labelled(lab)
    whole = trained(lab, data, seed=4, config=stage(seed=4, epochs=8), split=Split())
    forget(lab)
    worker = subprocess.Popen(
        [sys.executable, str(WORKER), data, "4"], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert worker.stdout is not None
    assert any("epoch 3," in line for line in worker.stdout)
    worker.send_signal(signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    seen: list[int] = []
    with listening(lambda kind, done, total, words: seen.append(done)):
        resumed = trained(lab, data, seed=4, config=stage(seed=4, epochs=8), split=Split())
    assert seen[0] > 2  # of what the killed one had saved nothing is done again
    assert resumed.key == whole.key
    assert resumed.summary["model_key"] == whole.summary["model_key"]


def test_the_errors_of_a_force_field_on_its_own_labels_are_zero(lab: Any) -> None:
    data = labelled(lab, dataset_name="copper")
    output = run(EvaluateMaker(force_field_name=str(lab.checkpoint)).make(data), lab)
    stored = lab.store.get(output["key"])
    assert set(stored.summary) == {value.name for value in entry_of("evaluation").summary}
    assert stored.summary["structures"] == 12
    assert stored.summary["dataset_name"] == "copper"
    # What extended XYZ keeps: 1e-8 eV/Angstrom.
    assert stored.summary["force_mae_mev_per_angstrom"] == pytest.approx(0.0, abs=1e-4)
    assert stored.summary["energy_mae_mev_per_atom"] == pytest.approx(0.0, abs=1e-4)
    rows = EvaluationOutput.model_validate(stored.output).errors
    assert {row["group"]: row["frames"] for row in rows} == {"all": 12.0, "fcc": 8.0, "other": 4.0}
    part = EvaluateMaker(force_field_name=str(lab.checkpoint), held_out=SPLIT).make(data)
    assert run(part, lab)["summary"]["structures"] == 3


@pytest.mark.slow
def test_from_structures_to_an_evaluated_force_field(lab: Any) -> None:
    flow = PretrainFinetuneFlow(
        label=LabelMaker(force_field_name=str(lab.checkpoint)),
        pretrain=TrainMaker(name="pretrain", config=stage(**DENS, seed=5), split=SPLIT),
        finetune=TrainMaker(name="finetune", config=stage(seed=5, initial_energy_head=False), split=SPLIT),
        audit=AuditMaker(
            protocol=AuditProtocol(
                measurements=MeasurementsProtocol(loops=1, rotations=1, displacements_angstrom=(0.01,))
            )
        ),
    ).make(crystals())
    run(flow, lab)
    finetuned, pretrained = query(lab.store, "training", sort="-created")
    (labelling,), (evaluation,) = query(lab.store, "labelling"), query(lab.store, "evaluation")
    assert [d.summary["name"] for d in (pretrained, finetuned)] == ["pretrain", "finetune"]
    assert pretrained.parent_key == labelling.summary["dataset_key"]
    assert finetuned.parent_key == pretrained.key
    assert finetuned.model_key == RANDOM_WEIGHTS
    (audit,) = query(lab.store, "audit")
    assert (audit.model_key, audit.summary["systems"]) == (finetuned.summary["model_key"], "Cu")
    assert audit.summary["jacobian_asymmetry_exact"] < 1e-10
    assert evaluation.model_key == finetuned.summary["model_key"]
    assert (evaluation.model_label, evaluation.summary["structures"]) == ("finetune", 3)
    assert evaluation.summary["force_mae_mev_per_angstrom"] == pytest.approx(
        finetuned.summary["force_mae_mev_per_angstrom"], rel=1e-3
    )
    output = TrainingOutput.model_validate(lab.store.get(finetuned.key).output)
    assert output.parent_training == pretrained.key
    assert output.record["initial_model_key"] == pretrained.summary["model_key"]
    assert load_force_field(trained_force_field(finetuned.key)).declaration.conservative
    assert not load_force_field(trained_force_field(pretrained.key)).declaration.conservative
    assert verify(lab.store).problems == []


def test_a_training_in_fireworks_continues_after_its_walltime(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = labelled(lab)
    whole = trained(lab, data, seed=9)
    forget(lab)
    jobs = job_store(lab.store)
    monkeypatch.setattr(SETTINGS, "JOB_STORE", jobs)  # instead of a jobflow.yaml
    training = TrainMaker(config=stage(seed=9), split=SPLIT, max_seconds=0.0).make(data)
    training.update_config({"manager_config": {"_priority": 7}})
    judging = EvaluateMaker(held_out=SPLIT).make(data, training=training.output)
    launchpad = LaunchPad.from_dict({**launchpad_spec(lab.store.database), "strm_lvl": "ERROR"})
    launchpad.reset("", require_password=False)
    launchpad.add_wf(flow_to_workflow(Flow([training, judging])))
    rapidfire(launchpad, FWorker(), str(tmp_path), nlaunches=0, strm_lvl="ERROR")
    launchpad.connection.close()
    fireworks = list(lab.store.database["fireworks"].find())
    parts = whole.summary["steps"] + 1
    assert [row["state"] for row in fireworks] == ["COMPLETED"] * (parts + 1)
    # A continuation goes where the training was sent.
    assert [row["spec"].get("_priority") for row in fireworks].count(7) == parts
    keys = [row["spec"]["_tasks"][0]["job"]["metadata"].get("result_key") for row in fireworks]
    assert keys.count(whole.key) == parts
    with jobs:
        evaluated = lab.store.get(jobs.get_output(judging.uuid)["key"])
    assert evaluated.model_key == whole.summary["model_key"]


@pytest.mark.slow
def test_launched_processes_train_as_one_process_does(lab: Any) -> None:
    data = labelled(lab)
    alone = trained(lab, data, seed=6)
    forget(lab)
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    together = trained(lab, data, seed=6, launcher=launcher)
    assert together.key == alone.key
    assert together.summary["steps"] == alone.summary["steps"]
    # float32, and sums in another order
    assert together.summary["force_mae_mev_per_angstrom"] == pytest.approx(
        alone.summary["force_mae_mev_per_angstrom"], rel=1e-3
    )


@pytest.mark.slow
def test_errors_of_launched_processes_are_raised_as_their_type(lab: Any) -> None:
    data, launcher = labelled(lab), (sys.executable,)
    with pytest.raises(TrainingDivergedError, match="the loss is not finite"):
        trained(lab, data, seed=7, launcher=launcher, config=stage(seed=7, learning_rate=1e30))
    (failed,) = query(lab.store, "training", failed=True)
    assert failed.failure is not None
    assert failed.failure.final
    with pytest.raises(EsenFlowsError, match="ended with code 7 without an error of ours"):
        trained(lab, data, seed=8, launcher=(sys.executable, "-c", "raise SystemExit(7)"))

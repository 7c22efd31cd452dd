"""Rounds of dynamics, labels and training, with EMT as the teacher of a tiny network."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from esen_flows.data.dataset import Dataset, from_structures
from esen_flows.data.importing import read_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.screening import ANY_FORCE
from esen_flows.errors import FolderInUseError, InputError
from esen_flows.files import only_process_in
from esen_flows.forcefield.checkpoint import load
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.physics.active_learning.choosing import force_difference, largest
from esen_flows.physics.active_learning.rounds import ActiveLearningInterrupted, Materials, active_learning
from esen_flows.physics.md import dynamics
from esen_flows.schemas.active_learning import ActiveLearningSpec, spec_of
from esen_flows.training import train as train_module
from esen_flows.training.config import TrainingConfig, config_from_dict
from esen_flows.training.train import TrainingInterrupted, train

COPPER = bulk("Cu", cubic=True)
SPEC = ActiveLearningSpec(
    teacher="emt", students=("student",), structures=("Cu",), data=("data",), rounds=1, frames_per_round=6,
    temperatures_kelvin=(600.0,), duration_ps=0.17, frame_interval_steps=2,
)  # fmt: skip


def stage(**changes: object) -> TrainingConfig:
    return config_from_dict({
        "num_layers": 1, "lmax": 1, "mmax": 1, "sphere_channels": 4, "hidden_channels": 4, "edge_channels": 4,
        "num_distance_basis": 6, "cutoff_angstrom": 4.0, "epochs": 2, "edges_per_batch": 400, "learning_rate": 0.01,
        "weight_decay": 0.001, "warmup_steps": 2, "clip_norm": 20.0, "ema_decay": 0.8, "loss": "relative",
        "energy_weight": 5.0, "force_weight": 1.0, "stress_weight": 0.5, "seed": 0, **changes,
    })  # fmt: skip


def copper_data() -> Dataset:
    """Rattled copper with EMT's labels."""
    structures = []
    for index in range(10):
        atoms = COPPER.copy()
        atoms.rattle(0.05, seed=index)
        (result,) = emt().evaluate(atoms)
        structures.append(LabelledStructure(atoms, result.energy, result.forces, result.stress, group="rattled"))
    return from_structures(structures)


@pytest.fixture(name="materials", scope="module")
def _materials(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    data = copper_data()
    checkpoints = [
        load(train(stage(epochs=2, seed=seed), data, data, tmp_path_factory.mktemp("student"))) for seed in (0, 1)
    ]
    return Materials(checkpoints, emt(), [COPPER], data, data, stage())


def alone(materials: Materials) -> Materials:
    return Materials(materials.students[:1], emt(), [COPPER], materials.data, materials.validation, materials.stage)


@pytest.fixture(name="finished", scope="module")
def _finished(materials: Materials, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, active_learning(SPEC, alone(materials), folder)


def without_times(records):
    return [record.model_copy(update={"seconds": 0.0}) for record in records]


def test_a_round_adds_the_frames_where_the_student_errs_most(finished, materials: Materials) -> None:
    folder, (before, after) = finished
    assert (before.round, before.frames_added, before.training_structures, before.failures) == (0, 0, 0, 0)
    assert (after.round, after.frames_added, after.training_structures) == (1, 6, 16)
    assert before.model_key == materials.students[0].model_key != after.model_key
    assert load(folder / after.checkpoint).model_key == after.model_key
    own = read_dataset(folder / "round-000" / "own.xyz")
    assert len(own) == before.labelled == before.trajectories[0].frames - 1  # without the start
    student = NetworkForceField(load(folder / before.checkpoint), dtype="float64")
    wrong = [force_difference(student.evaluate(item.atoms)[0].forces, item.forces) for item in own]
    chosen = read_dataset(folder / "round-000" / "chosen.xyz")
    found = [force_difference(student.evaluate(item.atoms)[0].forces, item.forces) for item in chosen]
    assert sorted(found) == pytest.approx(sorted(wrong)[-6:], rel=1e-6)
    component_errors = [student.evaluate(item.atoms)[0].forces - item.forces for item in own]
    assert before.own["force_mae_mev_per_angstrom"] == pytest.approx(1000 * np.abs(component_errors).mean(), rel=1e-6)
    assert before.largest_slope[0] == abs(before.trajectories[0].slope_mev_per_atom_ps)
    assert json.loads((folder / "round-000" / "chosen.xyz.json").read_text())["labeller"]["label"]


def test_a_finished_run_is_read_and_more_rounds_continue_it(finished, materials: Materials) -> None:
    folder, records = finished
    again = alone(materials)
    assert active_learning(SPEC, again, folder) == records
    assert again.teacher.force_evaluations == 0
    met = SPEC.model_copy(update={"rounds": 5, "force_mae_mev_per_angstrom": 1e6, "drift_mev_per_atom_ps": 1e6})
    slope, interval = records[0].largest_slope
    between = met.model_copy(update={"rounds": 0, "drift_mev_per_atom_ps": slope + interval / 2})
    (unresolved,) = active_learning(between, again, folder)
    assert unresolved.unmet == (
        f"drift {slope:.2g} +- {interval:.1g}, not within {slope + interval / 2:g} meV/atom/ps",
    )
    assert len(active_learning(met, again, folder)) == 1  # the criteria hold at once
    assert again.teacher.force_evaluations == 0
    strict = SPEC.model_copy(update={"force_mae_mev_per_angstrom": 1e-6})
    (_, last) = active_learning(strict, again, folder)
    assert any("force error" in words for words in last.unmet)


def test_a_run_that_was_interrupted_ends_with_the_same_numbers(finished, materials: Materials, tmp_path) -> None:
    class Stop(Exception):
        pass

    for part in ("dynamics", "labels", "training"):

        def stop(number: int, what: str, done: int, total: int, part: str = part) -> None:
            if what == part and done >= 2:
                raise Stop

        with pytest.raises(Stop):
            active_learning(SPEC, alone(materials), tmp_path, progress=stop)
    assert without_times(active_learning(SPEC, alone(materials), tmp_path)) == without_times(finished[1])


def test_a_signal_at_the_end_of_a_training_is_not_lost(finished, materials: Materials, tmp_path, monkeypatch) -> None:
    def validated(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    original = train_module.evaluate_dataset
    with monkeypatch.context() as patched:
        patched.setattr(train_module, "evaluate_dataset", validated)
        last = replace(alone(materials), stage=stage(epochs=1))
        with pytest.raises(ActiveLearningInterrupted, match=r"stopped in round 1 \(training"):
            active_learning(SPEC, last, tmp_path)
    assert len(active_learning(SPEC, last, tmp_path)) == 2


def test_frames_that_are_refused_are_a_criterion_that_is_not_met(materials: Materials, tmp_path: Path) -> None:
    (before,) = active_learning(SPEC.model_copy(update={"rounds": 0}), alone(materials), tmp_path / "first")
    labelled = read_dataset(tmp_path / "first" / "round-000" / "own.xyz")
    largest_forces = sorted(float(np.linalg.norm(item.forces, axis=1).max()) for item in labelled)
    most = (largest_forces[-2] + largest_forces[-1]) / 2
    spec = SPEC.model_copy(update={"rounds": 0, "most_force_ev_per_angstrom": most, "drift_mev_per_atom_ps": 1e6})
    (record,) = active_learning(spec, alone(materials), tmp_path / "second")
    assert record.unmet == ("1 frames refused (forces of the teacher too large)",)
    assert before.refused == {}


def test_a_call_without_time_says_how_to_go_on(materials: Materials, tmp_path: Path) -> None:
    with pytest.raises((ActiveLearningInterrupted, TrainingInterrupted), match="the same call") as stopped:
        active_learning(SPEC, alone(materials), tmp_path, max_seconds=0.0)
    assert stopped.value.exit_code == 75


def test_frames_before_an_explosion_are_learned_first(materials: Materials, tmp_path: Path, monkeypatch) -> None:
    def watch(number: int, what: str, done: int, total: int) -> None:
        """Any temperature counts as an explosion from the seventh step of the first dynamics to their end."""
        exploding = number == 0 and what == "dynamics" and done >= 6
        monkeypatch.setattr(dynamics, "EXPLOSION_KELVIN", -1e6 if exploding else 1e4)

    spec = SPEC.model_copy(update={"frames_per_round": 1, "rounds": 1, "frame_interval_steps": 1})
    before, _ = active_learning(spec, alone(materials), tmp_path, progress=watch)
    assert before.failures == 1
    assert before.unmet == ("1 of 1 trajectories failed",)
    assert before.largest_slope is None
    plan = json.loads((tmp_path / "round-000" / "plan.json").read_text())
    (frame,) = read_dataset(tmp_path / "round-000" / "chosen.xyz")
    assert before.trajectories[0].frames == 7
    assert plan["last"] == [5]
    last = read_dataset(tmp_path / "round-000" / "own.xyz")[plan["last"][0]]
    assert frame.atoms.positions == pytest.approx(last.atoms.positions)


def test_a_committee_labels_less_and_random_frames_least(materials: Materials, tmp_path: Path) -> None:
    committee = SPEC.model_copy(update={"choose": "committee", "students": ("a", "b"), "frames_per_round": 4})
    both = Materials(materials.students, emt(), [COPPER], materials.data, materials.validation, materials.stage)
    before, after = active_learning(committee, both, tmp_path / "committee")
    assert 4 <= before.labelled <= 8
    assert after.frames_added == 4
    keys = {load(tmp_path / "committee" / "round-001" / name / "checkpoint.safetensors").model_key
            for name in ("student", "student-1")}  # fmt: skip
    assert len(keys) == 2
    random = SPEC.model_copy(update={"choose": "random", "rounds": 0})
    (only,) = active_learning(random, alone(materials), tmp_path / "random")
    assert only.labelled == 6


def test_forces_that_the_teacher_cannot_mean_are_refused(materials: Materials, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"most_force_ev_per_angstrom": 1e-3})
    with pytest.raises(InputError, match="most_force_ev_per_angstrom"):
        active_learning(spec, alone(materials), tmp_path)


def test_a_record_without_stresses_is_read_again(materials: Materials, tmp_path: Path) -> None:
    bare = from_structures(replace(item, stress=np.full((3, 3), np.nan)) for item in materials.validation)
    given = replace(alone(materials), validation=bare)
    spec = SPEC.model_copy(update={"rounds": 0})
    (record,) = active_learning(spec, given, tmp_path)
    assert "stress_rmse_gpa" in record.own
    assert "stress_rmse_gpa" not in record.held_out
    assert active_learning(spec, given, tmp_path) == [record]


def test_forces_that_no_dataset_may_hold_are_counted_and_the_rounds_go_on(materials: Materials, tmp_path: Path) -> None:
    dense = COPPER.copy()
    dense.set_cell(dense.cell * 0.7, scale_atoms=True)
    dense.rattle(0.2, seed=1)
    both = replace(alone(materials), structures=[COPPER, dense])
    short = SPEC.model_copy(update={"duration_ps": 0.085, "frame_interval_steps": 1})
    before, after = active_learning(short, both, tmp_path)
    own = read_dataset(tmp_path / "round-000" / "own.xyz", limits=ANY_FORCE)
    forces = np.array([np.linalg.norm(item.forces, axis=1).max() for item in own])
    assert forces.max() > 50.0
    assert before.refused["forces of the teacher too large"] == np.count_nonzero(forces > 30.0)
    assert after.frames_added == 6


def test_bad_input_is_refused(finished, materials: Materials, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a run with other ensemble, seed; use a new folder"):
        active_learning(SPEC.model_copy(update={"seed": 5, "ensemble": "nvt"}), alone(materials), finished[0])
    with pytest.raises(InputError, match="at least 40 frames"):
        active_learning(SPEC.model_copy(update={"duration_ps": 0.02}), alone(materials), tmp_path / "short")
    assert not (tmp_path / "short").exists()  # a longer run may still take the folder
    with only_process_in(finished[0]), pytest.raises(FolderInUseError, match="another process writes into"):
        active_learning(SPEC, alone(materials), finished[0])
    with only_process_in(tmp_path), pytest.raises(FolderInUseError):
        active_learning(SPEC, alone(materials), tmp_path)
    assert not (tmp_path / "run.json").exists()  # the folder belongs to the process that has its lock
    twice = SPEC.model_copy(update={"choose": "committee", "students": ("a", "b")})
    with pytest.raises(InputError, match="two students are the same network"):
        active_learning(twice, replace(materials, students=2 * materials.students[:1]), tmp_path)
    values = SPEC.model_dump(mode="json")
    assert spec_of(values, "run.yaml") == SPEC
    for change, words in (
        ({"speed": 3}, "run.yaml: speed"),
        ({"choose": "committee"}, "at least two students"),
        ({"students": ["a", "b"]}, "others need one"),
        ({"rounds": -1}, "rounds: .*got -1"),
        ({"teacher": None}, "teacher"),
        ({"settings": "abc"}, "settings: Input should be a valid dictionary"),
        ({"seed": 2**70}, "seed: Input should be less than"),
    ):
        with pytest.raises(InputError, match=words):
            spec_of({**values, **change}, "run.yaml")
    assert spec_of({**values, "settings": None}, "run.yaml") == SPEC
    with pytest.raises(InputError) as fault:
        spec_of({**values, "rounds": -1}, "run.yaml")
    assert "fields are" not in str(fault.value)
    with pytest.raises(InputError, match="mapping of names"):
        spec_of([1], "run.yaml")


def test_frames_that_always_count_come_first() -> None:
    differences = np.array([0.3, np.nan, 0.1, 0.5, 0.2])
    assert largest(differences, 2) == [0, 3]
    assert largest(differences, 2, always=[2, 1]) == [2, 3]
    assert largest(differences, 9) == [0, 2, 3, 4]

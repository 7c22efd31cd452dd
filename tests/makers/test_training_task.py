"""Launched trainings: stopped with their job, resumed to the same bits, their errors raised as their types."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ase.calculators.emt import EMT
from copper_stages import crystals, stage

from esen_flows.data.folders import write_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.errors import FolderInUseError
from esen_flows.files import only_process_in
from esen_flows.makers.training_task import LAUNCH_LOCK, TrainingTask, carry_out, launch, main
from esen_flows.schemas.checkpoint_header import read_header
from esen_flows.training.config import config_from_dict
from esen_flows.training.distributed import ALONE
from esen_flows.training.train import TrainingInterrupted

PYTHON = (sys.executable,)
JOB = """
import json, sys
from pathlib import Path
from esen_flows.makers.training_task import TASK_NAME, TrainingTask, launch
folder = Path(sys.argv[1])
launch(TrainingTask(**json.loads((folder / TASK_NAME).read_text())), folder, [sys.executable])
"""


def task(folder: Path, **changes: Any) -> TrainingTask:
    """A stage on copper by EMT, whose dataset is written into the folder."""

    def labelled() -> Any:
        for atoms in crystals():
            atoms.calc = EMT()
            labels = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
            yield LabelledStructure(atoms.copy(), *labels)

    if not (folder / "data").exists():
        write_dataset(folder / "data", labelled())
    return TrainingTask(
        config=config_from_dict(stage(**changes)).to_dict(),
        datasets=[(str(folder / "data"), 1)],
        split={"fraction": 0.25, "seed": 0},
        initial=None,
        provenance={"why": "test"},
        device="cpu",
        max_seconds=None,
    )


def steps_in(folder: Path) -> int:
    """Rows of the table of steps, one for ten steps."""
    path = folder / "steps.csv"
    return len(path.read_text().splitlines()) - 1 if path.is_file() else 0


def wait_for(condition: Any) -> None:
    """Wait for a condition, as long as a busy machine may need."""
    until = time.monotonic() + 600.0
    while not condition():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.02)


def test_a_second_launch_in_a_folder_is_refused_and_touches_nothing(tmp_path: Path) -> None:
    outcome = tmp_path / "outcome-1.json"
    outcome.write_text("of the first launch")
    with only_process_in(tmp_path, LAUNCH_LOCK), pytest.raises(FolderInUseError, match="another process writes into"):
        launch(task(tmp_path), tmp_path, PYTHON)
    assert outcome.read_text() == "of the first launch"
    assert not (tmp_path / "task.json").exists()


def test_a_process_started_by_hand_beside_a_training_leaves_no_outcome_for_it(tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text(json.dumps(asdict(task(tmp_path))))
    with only_process_in(tmp_path), pytest.raises(FolderInUseError, match="another process writes into"):
        main(tmp_path)
    assert not list(tmp_path.glob("outcome*"))


@pytest.mark.slow
def test_a_launched_training_is_stopped_and_killed_with_its_job_and_resumed_to_the_same_bits(tmp_path: Path) -> None:
    work = task(tmp_path, epochs=40)
    whole = read_header(carry_out(work, tmp_path / "whole", ALONE))
    assert whole["training"]["provenance"] == {"why": "test", "training_structures": 9, "validation_structures": 3}

    parts = tmp_path / "parts"
    threading.Thread(
        target=lambda: (wait_for(lambda: steps_in(parts) >= 1), os.kill(os.getpid(), signal.SIGUSR1)), daemon=True
    ).start()
    with pytest.raises(TrainingInterrupted, match="stopped after step"):
        launch(work, parts, PYTHON)
    stopped_at = steps_in(parts)

    root = str(Path(__file__).resolve().parents[2])
    job = subprocess.Popen([sys.executable, "-c", JOB, str(parts)], env={**os.environ, "PYTHONPATH": root})
    wait_for(lambda: steps_in(parts) > stopped_at)
    job.kill()
    job.wait()
    wait_for(lambda: list(parts.glob("outcome-*.json")))  # its process was told, saved and said so
    assert read_header(launch(work, parts, PYTHON))["model_key"] == whole["model_key"]

"""Tables of a training: rows of steps that will be taken again are removed."""

import pytest
from tensorboard.backend.event_processing import event_accumulator

from esen_flows.training.metrics import Metrics, read_rows


def test_rows_after_the_resumed_step_are_removed(tmp_path):
    metrics = Metrics(tmp_path, 0, 0)
    for step in (10, 20, 30):
        metrics.write("steps.csv", {"step": step, "loss": 1.0 / step})
        metrics.write("history.csv", {"step": step, "epoch": step // 10})
    metrics.close()
    with (tmp_path / "steps.csv").open("a") as stream:
        stream.write("40")  # a kill in the middle of a line
    resumed = Metrics(tmp_path, 20, 1)
    resumed.write("steps.csv", {"step": 30, "loss": 0.5})
    resumed.close()
    assert read_rows(tmp_path / "steps.csv") == [
        {"step": 10.0, "loss": 0.1}, {"step": 20.0, "loss": 0.05}, {"step": 30.0, "loss": 0.5}
    ]  # fmt: skip
    assert read_rows(tmp_path / "history.csv") == [{"step": 10.0, "epoch": 1.0}]
    assert read_rows(tmp_path / "nothing.csv") == []


def test_tensorboard_gets_the_same_numbers(tmp_path):
    metrics = Metrics(tmp_path, 0, 0)
    for step in (10, 20):
        metrics.write("steps.csv", {"step": step, "loss": 1.0 / step})
    metrics.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("steps/loss")]
    assert found == [(10, pytest.approx(0.1)), (20, pytest.approx(0.05))]

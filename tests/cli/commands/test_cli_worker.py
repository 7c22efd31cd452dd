"""`esen-flows worker`: settings from options and from the queue, and messages."""

import os
import re
import time
from pathlib import Path

import pytest

from esen_flows.cli.app import main
from esen_flows.queue import worker as module
from esen_flows.queue.worker_settings import WorkDone, WorkerSettings
from esen_flows.settings import Settings, get_settings
from esen_flows.store.results import Store


def run(*options: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["worker", *options])
    return int(end.value.code or 0)


@pytest.fixture(autouse=True)
def no_queue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("SLURM_", "PBS_", "CUDA_VISIBLE")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


class Recorded:
    """Replaces the worker, records its settings and ends at once."""

    settings: WorkerSettings
    work_left = False

    def __init__(self, store: object, settings: WorkerSettings, tell: object) -> None:
        type(self).settings = settings

    def run(self) -> WorkDone:
        return WorkDone(completed=3, reason="it was recorded", work_left=self.work_left)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[Recorded]:
    """Class whose `settings` are those that the worker got."""

    class Fresh(Recorded):
        pass

    monkeypatch.setattr(module, "Worker", Fresh)
    monkeypatch.setattr("esen_flows.store.connection.open_store", lambda: None)
    return Fresh


def test_settings_come_from_the_slurm_job(
    recorded: type[Recorded], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = {"SLURM_JOB_ID": "17", "SLURM_CLUSTER_NAME": "test", "SLURM_JOB_END_TIME": str(int(time.time()) + 600)}
    job |= {"SLURM_CPUS_ON_NODE": "1", "CUDA_VISIBLE_DEVICES": "0,1"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert run("--category", "gpu", "--idle", "2h", "--grace", "3", "--margin", "1m") == 0
    settings = recorded.settings
    assert settings.devices == ("0", "1")
    assert (settings.category, settings.threads) == ("gpu", 1)
    assert (settings.idle_seconds, settings.grace_seconds, settings.margin_seconds) == (7200.0, 3.0, 60.0)
    assert settings.queue_job == {"kind": "slurm", "id": "17", "cluster": "test"}
    assert settings.deadline is not None
    assert settings.deadline - time.monotonic() == pytest.approx(540, abs=5)
    printed = capsys.readouterr().out
    assert "devices 0,1, 1 thread(s) each, work is handed back in 5" in printed
    assert "slurm job 17" in printed
    # Plain lines with their time, as a log needs them.
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d worker ", line) for line in printed.splitlines())


@pytest.mark.parametrize(
    ("options", "devices", "category"),
    [
        ((), (None,), ""),  # no GPU here: one process that sees what there is
        (("--category", "cpu"), ("",), "cpu"),
        (("--category", "cpu", "--processes", "3"), ("", "", ""), "cpu"),
        (("--processes", "2"), (None, None), ""),
        (("--category", "big gpu", "--devices", "4,GPU-8932"), ("4", "GPU-8932"), "big gpu"),
    ],
)
def test_a_process_for_each_device(
    recorded: type[Recorded],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    devices: tuple[str | None, ...],
    category: str,
) -> None:
    monkeypatch.setattr("esen_flows.queue.allocation.visible_devices", lambda environ: ())
    assert run(*options) == 0
    assert recorded.settings.devices == devices
    assert recorded.settings.category == category
    assert recorded.settings.end is None


@pytest.mark.parametrize(
    ("bound", "options", "threads"),
    [
        (None, ("--processes", "2"), 4),
        ("3", ("--processes", "2"), 3),
        ("6", ("--processes", "2"), 4),  # a share of the cores is less
        ("3", ("--threads", "5"), 5),  # an option of the command says more than the environment
    ],
)
def test_threads_of_each_process_are_bounded_by_the_environment(
    recorded: type[Recorded],
    monkeypatch: pytest.MonkeyPatch,
    bound: str | None,
    options: tuple[str, ...],
    threads: int,
) -> None:
    monkeypatch.setattr("esen_flows.queue.allocation.processors", lambda environ: 8)
    monkeypatch.delenv("ESEN_FLOWS_THREADS", raising=False)
    if bound is not None:
        monkeypatch.setenv("ESEN_FLOWS_THREADS", bound)
    get_settings.cache_clear()
    assert run(*options) == 0
    get_settings.cache_clear()
    assert recorded.settings.threads == threads
    assert not recorded.settings.any_task


def test_a_worker_stopped_with_work_left_exits_with_75(
    recorded: type[Recorded], capsys: pytest.CaptureFixture[str]
) -> None:
    recorded.work_left = True
    assert run("--walltime", "1-00:00:00", "--name", "node7", "--query", '{"spec.campaign": "wbm"}') == 75
    assert recorded.settings.query == {"spec.campaign": "wbm"}
    assert "worker node7: 3 fireworks completed, 0 failed; ended because it was recorded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--walltime", "0:00:00", "--margin", "0"), "the time ends in 0 s"),
        (("--walltime", "0:01:00"), "--margin keeps 60 s for handing work back; ask for more time"),
        (("--devices", "0,1", "--processes", "2"), "give one of them"),
        (("--devices", "0,0"), "--devices '0,0': give different devices, such as 0,1"),
        (("--devices", "0,"), "--devices '0,': give different devices"),
        (("--query", "campaign=wbm"), "--query is not JSON"),
        (("--query", "[1]"), "--query [1]: give a mapping of fields to values, not a list"),
    ],
)
def test_wrong_options_are_refused_before_the_store_is_opened(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esen_flows.store.connection.open_store", lambda: pytest.fail("opened"))
    assert run(*options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.mongod
def test_a_worker_without_work_ends_and_leaves_nothing(
    embedded_settings: Settings,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("ESEN_FLOWS_MONGO_URI", raising=False)
    monkeypatch.setenv("ESEN_FLOWS_DATA_DIR", str(embedded_settings.data_dir))
    monkeypatch.setenv("ESEN_FLOWS_DATABASE", store.database.database_name)
    get_settings.cache_clear()
    assert run("--idle", "0", "--category", "cpu", "--folder", str(tmp_path / "run")) == 0
    get_settings.cache_clear()
    printed = capsys.readouterr().out
    assert "0 fireworks completed, 0 failed; ended because there was nothing to do for 0 s" in printed
    assert list((tmp_path / "run").iterdir()) == []
    assert store.database["claims"].count_documents({}) == 0
    record = store.database["workers"].find_one()
    assert record is not None
    assert (record["category"], record["end"]) == ("cpu", "there was nothing to do for 0 s")

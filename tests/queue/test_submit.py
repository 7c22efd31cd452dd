"""Flows on the launchpad: content of fireworks, no second submission of pending work, and results of workers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from emt_campaigns import empty_database
from fireworks import FWorker, LaunchPad
from fireworks.core.rocket_launcher import rapidfire
from jobflow import SETTINGS, Flow, Job, job, run_locally
from pymongo.errors import AutoReconnect

import esen_flows
from esen_flows.cli.app import main
from esen_flows.errors import InputError, NotConvergedError, StoreError
from esen_flows.makers.conductivity import ConductivityMaker
from esen_flows.makers.relax import RelaxMaker
from esen_flows.queue.submit import submit
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.lattice_documents import ConductivityOutput
from esen_flows.schemas.protocols import ConductivityProtocol, DisplacementProtocol, RelaxProtocol
from esen_flows.settings import Settings
from esen_flows.store.database import Database
from esen_flows.store.exchange.spool_store import SpoolStore
from esen_flows.store.jobflow_files import launchpad_spec, write_jobflow_files
from esen_flows.store.jobflow_store import job_store
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
COPPER = bulk("Cu", "fcc", a=3.6, cubic=True)
RELAX = RelaxProtocol(fmax_ev_per_angstrom=1e-2, symmetry="fix")
SMALL = DisplacementProtocol(order=3, displacement_angstrom=0.03, fc2_supercell=(1, 1, 1), fc3_supercell=(2, 2, 2))
PROTOCOL = ConductivityProtocol(relax=RELAX, displacement=SMALL, mesh=(5, 5, 5))


def kappa(copper: Any, mesh: int = 5) -> Flow:
    """A flow of three jobs for copper."""
    protocol = PROTOCOL.model_copy(update={"mesh": (mesh, mesh, mesh)})
    return ConductivityMaker(force_field_name=str(copper.checkpoint), protocol=protocol).make(COPPER)


def relaxation(copper: Any) -> Job:
    """The first job of that flow, by itself."""
    protocol = RELAX.model_copy(update={"parity": SMALL.parity})
    return RelaxMaker(force_field_name=str(copper.checkpoint), protocol=protocol).make(COPPER)


def run_here(work: Any, store: Store) -> None:
    run_locally(work, log=False, store=job_store(store), raise_immediately=True)


def fireworks(store: Store) -> list[dict[str, Any]]:
    return list(store.database["fireworks"].find().sort("fw_id"))


def test_a_firework_carries_its_job_its_key_and_its_category(copper: Any) -> None:
    flow = kappa(copper)
    flow.jobs[1].update_config({"manager_config": {"_category": "big gpu", "_priority": 3}})
    submission = submit(flow, store=copper.store)
    keys = [work.metadata["result_key"] for work in flow.jobs]
    assert list(submission.result_keys) == keys
    assert submission.launchpad == copper.store.database.database_name
    stored = {row["fw_id"]: row for row in fireworks(copper.store)}
    specs = [stored[number]["spec"] for number in submission.firework_ids]
    assert sorted(stored) == [1, 2, 3]
    assert [spec["result_key"] for spec in specs] == keys
    assert [spec["_category"] for spec in specs] == ["gpu", "big gpu", "cpu"]
    assert specs[1]["_priority"] == 3
    assert [stored[number]["state"] for number in submission.firework_ids] == ["READY", "WAITING", "WAITING"]
    assert all(spec["_tasks"][0]["store"] is None for spec in specs)
    assert max(len(repr(row)) for row in stored.values()) < 12_000
    assert copper.force_field.force_evaluations == 0


def test_force_calls_are_for_gpu_workers_and_transport_for_others(
    copper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SETTINGS, "JOB_STORE", job_store(copper.store))  # instead of a jobflow.yaml
    keys = submit(kappa(copper), store=copper.store).result_keys
    launchpad = LaunchPad.from_dict({**launchpad_spec(copper.store.database), "strm_lvl": "ERROR"})
    stored = []
    for category in ("cpu", "gpu", "cpu"):
        rapidfire(launchpad, FWorker(category=category), str(tmp_path), nlaunches=0, strm_lvl="ERROR")
        stored.append([copper.store.get(key) is not None for key in keys])
    launchpad.connection.close()
    assert stored == [[False, False, False], [True, True, False], [True, True, True]]


def test_pending_work_is_not_added_again(copper: Any) -> None:
    first = submit(kappa(copper), store=copper.store)
    again = submit(kappa(copper), store=copper.store)
    assert again.firework_ids == ()
    assert again.result_keys == first.result_keys
    assert dict(again.pending) == dict(zip(first.firework_ids, ["READY", "WAITING", "WAITING"], strict=True))
    assert str(again).startswith("nothing added: submitted before to launchpad test_")
    assert "3 (READY)" in str(again)
    # The relaxation alone is on its way too; another mesh is another result.
    relax = submit(relaxation(copper), store=copper.store)
    assert [number for number, _ in relax.pending] == [first.firework_ids[0]]
    assert len(submit(kappa(copper, mesh=6), store=copper.store).firework_ids) == 3
    assert len(fireworks(copper.store)) == 6


def test_fizzled_work_is_added_again(copper: Any) -> None:
    first = submit(kappa(copper), store=copper.store)
    database = copper.store.database
    # As a worker leaves it; the fireworks behind stay WAITING for ever.
    database["fireworks"].update_one({"fw_id": first.firework_ids[0]}, {"$set": {"state": "FIZZLED"}})
    database["workflows"].update_one({"nodes": first.firework_ids[0]}, {"$set": {"state": "FIZZLED"}})
    assert submit(kappa(copper), store=copper.store).firework_ids == (6, 5, 4)
    run_here(relaxation(copper), copper.store)
    # Two results are still missing, and the second submission will bring them.
    assert [number for number, _ in submit(kappa(copper), store=copper.store).pending] == [4, 5]


def test_stored_results_are_not_computed_again(copper: Any) -> None:
    run_here(kappa(copper), copper.store)
    submission = submit(kappa(copper), store=copper.store)
    assert (submission.firework_ids, submission.pending) == ((), ())
    assert str(submission) == "nothing added: every result is stored"
    assert copper.store.database["fw_id_assigner"].count_documents({}) == 0  # no launchpad was made for it


def test_a_stored_failure_is_the_answer(copper: Any) -> None:
    protocol = PROTOCOL.model_copy(update={"relax": RELAX.model_copy(update={"max_steps": 1})})
    maker = ConductivityMaker(force_field_name=str(copper.checkpoint), protocol=protocol)
    with pytest.raises(NotConvergedError):
        run_here(maker.make(COPPER), copper.store)
    with pytest.raises(NotConvergedError, match="stored failure"):
        submit(maker.make(COPPER), store=copper.store)
    # Other jobs of the same flow are computed all the same.
    both = Flow([maker.make(COPPER), kappa(copper)])
    assert len(submit(both, store=copper.store).firework_ids) == 6


def test_a_job_that_ran_in_a_flow_of_its_own_can_be_submitted(copper: Any) -> None:
    relax = relaxation(copper)
    run_here(relax, copper.store)
    copper.store.database["results"].delete_many({})
    assert submit(relax, store=copper.store).firework_ids == (1,)
    assert submit(relax, store=copper.store).pending == ((1, "READY"),)
    assert fireworks(copper.store)[0]["spec"]["result_key"] == relax.metadata["result_key"]


def test_a_job_too_large_for_a_firework_is_refused_before_anything_is_added(copper: Any) -> None:
    small, large = job(len)("x"), job(len)("x" * 13_000_000)
    with pytest.raises(InputError, match=r"job 'len' takes 13.0 MB, more than the 12 MB .*by reference"):
        submit(Flow([small, large]), store=copper.store)
    assert fireworks(copper.store) == []


@pytest.fixture
def guarded(store: Store) -> Iterator[Store]:
    """The same database, through a URI with user and password."""
    password = "geheim/wort@1"
    name = store.database.database_name
    client = store.database["users"].database
    client.command("createUser", "ann", pwd=password, roles=["readWrite"])
    place = store.database.uri.removeprefix("mongodb://")
    uri = f"mongodb://ann:{quote(password, safe='')}@{place}/?authSource={name}"
    guarded = Store(Database(uri, name, 5.0))
    yield guarded
    guarded.close()
    client.command("dropUser", "ann")


def test_no_secret_is_in_a_firework(copper: Any, guarded: Store) -> None:
    submit(kappa(copper), store=guarded)
    content = repr([list(guarded.database[name].find()) for name in guarded.database.collection_names()])
    assert "conductivity forces" in content
    for secret in ("geheim", "mongodb://", "ann:"):
        assert secret not in content
    with pytest.raises(InputError, match="job 'len' carries the password of the database") as refused:
        submit(job(len)(job_store(guarded).as_dict()), store=guarded)
    assert "geheim" not in str(refused.value)
    with pytest.raises(InputError, match="carries the password"):
        submit(job(len)({"password": "geheim/wort@1"}), store=guarded)


def test_a_broken_connection_leaves_no_fireworks_without_a_workflow(
    copper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = LaunchPad.add_wf, []

    def add_wf(launchpad: LaunchPad, workflow: Any) -> Any:
        if not broken:
            broken.append(launchpad._upsert_fws(list(workflow.id_fw.values()), reassign_all=True))
            raise AutoReconnect("killed between fireworks and workflow")
        return whole(launchpad, workflow)

    monkeypatch.setattr(LaunchPad, "add_wf", add_wf)
    submission = submit(kappa(copper), store=copper.store)
    assert sorted(broken[0].values()) == [1, 2, 3]
    assert [row["fw_id"] for row in fireworks(copper.store)] == sorted(submission.firework_ids) == [4, 5, 6]
    (workflow,) = copper.store.database["workflows"].find()
    assert sorted(workflow["nodes"]) == [4, 5, 6]


def test_without_a_server_there_is_no_launchpad(copper: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"ESEN_FLOWS_SPOOL is set, so results go into .* there is no database"):
        submit(kappa(copper), store=SpoolStore(tmp_path / "spool"))


def test_the_public_name_loads_when_it_is_used() -> None:
    code = (
        "import sys, esen_flows\n"
        "heavy = ('fireworks', 'jobflow', 'pymongo', 'torch')\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "esen_flows.submit\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert said.stdout.splitlines() == ["[]", "['fireworks', 'jobflow', 'pymongo']"]
    assert esen_flows.submit is submit


@dataclass
class Shop:
    """A folder with a copper crystal and settings files, and the database in which workers store results."""

    folder: Path
    store: Store

    def worker(self) -> "subprocess.Popen[str]":
        """`rlaunch` in a process of its own."""
        command = [Path(sys.executable).with_name("rlaunch"), "-l", "my_launchpad.yaml", "-w", "my_fworker.yaml"]
        return subprocess.Popen(
            [*map(str, command), "rapidfire", "--nlaunches", "0"],
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def documents(self) -> dict[str, ResultDocument]:
        """The latest current result of each kind."""
        rows = self.store.database["results"].find({"current": True}).sort("created_at")
        return {row["kind"]: self.store.read(row) for row in rows}


def run_kappa_command(folder: Path, mesh: int, *more: str) -> int:
    options = [f"relax.fmax_ev_per_angstrom={1e-2}", f"mesh={mesh},{mesh},{mesh}"]
    options += ["displacement.fc2_supercell=1,1,1", "displacement.fc3_supercell=2,2,2"]
    settings = [part for option in options for part in ("--set", option)]
    with pytest.raises(SystemExit) as end:
        main(["kappa", str(folder / "Cu.cif"), "--model", "emt", *settings, *more])
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def shop(embedded_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    write(folder / "Cu.cif", COPPER)
    with empty_database(embedded_settings) as store, pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOBFLOW_CONFIG_FILE", str(folder / "jobflow.yaml"))
        write_jobflow_files(store.database, folder)
        yield Shop(folder, store)


def test_workers_compute_what_one_process_does_and_a_kill_costs_no_force_call(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_kappa_command(shop.folder, 41, "--submit") == 0
    printed = capsys.readouterr().out
    assert "rlaunch -l settings/my_launchpad.yaml" in printed
    assert "with ESEN_FLOWS_DATABASE, ESEN_FLOWS_DATA_DIR set as here" in printed
    killed = shop.worker()
    transport = {"name": "conductivity", "state": "RUNNING"}
    while shop.store.database["fireworks"].find_one(transport) is None:
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    before = shop.documents()
    assert set(before) == {"relax", "forces"}  # the transport on 41^3 points was under way

    assert run_kappa_command(shop.folder, 5, "--submit") == 0
    assert "submitted to launchpad" in capsys.readouterr().out
    worker = shop.worker()
    said = worker.communicate(timeout=600)[0]
    after = shop.documents()
    assert set(after) == {"relax", "forces", "conductivity"}, said
    for kind, document in before.items():  # neither computed again nor attempted again
        assert (after[kind].created_at, after[kind].provenance) == (document.created_at, document.provenance)
    assert shop.store.database["results"].count_documents({}) == 3
    assert after["conductivity"].provenance.force_evaluations == 0
    fireworks = {
        row["fw_id"]: row["name"] for row in shop.store.database["fireworks"].find({}, {"name": True, "fw_id": True})
    }
    assert fireworks[after["conductivity"].provenance.firework_id] == "conductivity"
    assert run_kappa_command(shop.folder, 5, "--submit") == 0
    assert "nothing added: every result is stored" in capsys.readouterr().out

    shop.store.database["results"].delete_many({})
    shop.store.database["structures"].delete_many({})
    assert run_kappa_command(shop.folder, 5, "--output", str(shop.folder / "out")) == 0
    for kind, here in shop.documents().items():
        there = after[kind]
        for name in ("key", "parent_key", "structure_key", "model_key", "protocol", "numeric", "formula", "state"):
            assert getattr(here, name) == getattr(there, name), name
        assert here.provenance.force_evaluations == there.provenance.force_evaluations
        assert here.provenance.firework_id is None
        for name, value in here.summary.items():
            equal = value if isinstance(value, str) else pytest.approx(value, rel=1e-9, abs=1e-9)
            assert there.summary[name] == equal, name
    rta = [
        ConductivityOutput.model_validate(found["conductivity"].output).methods["rta"]
        for found in (after, shop.documents())
    ]
    np.testing.assert_allclose(rta[0].kappa_w_per_m_k, rta[1].kappa_w_per_m_k, rtol=1e-9)

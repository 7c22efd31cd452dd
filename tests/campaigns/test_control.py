"""A campaign on the launchpad: packed once, run by plain FireWorks, paused, resumed, cancelled, retried."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import emt_campaigns
import pytest
from ase.build import bulk
from fireworks import FWorker, LaunchPad
from fireworks.core.rocket_launcher import rapidfire
from jobflow import SETTINGS

from esen_flows.campaigns import control
from esen_flows.campaigns.status import Share, campaign_status
from esen_flows.errors import InputError
from esen_flows.store.campaign_runs import begin_run
from esen_flows.store.campaigns import members, set_campaign_state, update_members
from esen_flows.store.claims import Claim
from esen_flows.store.host import Host
from esen_flows.store.jobflow_files import launchpad_spec
from esen_flows.store.jobflow_store import job_store
from esen_flows.store.launchpad import campaign_firework_states
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


@pytest.fixture
def here(named_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """The store that `open_store()` opens, jobflow's store in it, and a folder to launch in."""
    monkeypatch.setattr(SETTINGS, "JOB_STORE", job_store(named_store))
    monkeypatch.chdir(tmp_path)
    return named_store


def planned(store: Store, count: int, name: str = "c", **changes: Any) -> None:
    fields = {"settings": {"fmax_ev_per_angstrom": 0.05, "max_steps": 100}} | changes
    emt_campaigns.plan(store, emt_campaigns.crystals(count), name, **fields)


def launch(store: Store, category: str = "", count: int = 0) -> None:
    """Run fireworks as rlaunch does."""
    launchpad = LaunchPad.from_dict({**launchpad_spec(store.database), "strm_lvl": "ERROR"})
    rapidfire(launchpad, FWorker(category=category), nlaunches=count, sleep_time=0.01, strm_lvl="ERROR")
    launchpad.connection.close()


def test_plain_fireworks_run_it_and_nothing_is_added_twice(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esen_flows.campaigns.pack.MEMBERS_UNMEASURED", 8)
    planned(here, 20)
    first = control.submit_campaign(here, "c")
    assert (first.members, len(first.fireworks), first.on_their_way) == (20, 3, 0)
    assert "submitted 20 members in 3 fireworks (not measured yet)" in str(first)
    again = control.submit_campaign(here, "c")
    assert (again.members, again.fireworks, again.on_their_way) == (0, (), 20)
    specs = [row["spec"] for row in here.database["fireworks"].find()]
    assert {spec["_category"] for spec in specs} == {"gpu"}
    assert not any("mongodb" in json.dumps(spec, default=str) for spec in specs)
    launch(here)
    found = campaign_status(here, "c")
    assert (found.finished, found.failed, found.pending, found.state) == (18, 2, 0, "done")  # two are iron
    assert found.fireworks == {"COMPLETED": 3}
    assert found.seconds_left == 0.0
    assert found.means[0].members == 18
    assert here.database["results"].count_documents({}) == 20
    assert str(control.submit_campaign(here, "c")) == "nothing added: nothing is pending"


def test_conductivities_are_two_fireworks_of_two_categories(here: Store) -> None:
    small = {
        "relax.fmax_ev_per_angstrom": 0.05, "displacement.fc2_supercell": [1, 1, 1], "mesh": [3, 3, 3],
        "displacement.fc3_supercell": [2, 2, 2], "temperatures_kelvin": [300.0], "relax.symmetry": "lock",
    }  # fmt: skip
    emt_campaigns.plan(here, [bulk("Cu", cubic=True)], property="conductivity", settings=small)
    submitted = control.submit_campaign(here, "c")
    assert len(submitted.fireworks) == 2
    launch(here, "gpu")
    assert campaign_firework_states(here.database, "c") == {"COMPLETED": 1, "READY": 1}
    launch(here, "cpu")
    assert campaign_firework_states(here.database, "c") == {"COMPLETED": 2}
    assert campaign_status(here, "c").finished == 1


def test_paused_work_waits_and_goes_on(here: Store) -> None:
    planned(here, 4)
    control.submit_campaign(here, "c")
    assert control.pause(here, "c") == 1
    launch(here)
    assert campaign_status(here, "c").pending == 4
    with pytest.raises(InputError, match="is paused; go on with: esen-flows campaign resume c"):
        control.submit_campaign(here, "c")
    assert campaign_status(here, "c").state == "paused"
    resumed = control.resume(here, "c")
    assert resumed.on_their_way == 4
    launch(here)
    assert campaign_status(here, "c").finished == 4


def test_members_that_a_pause_handed_back_are_packed_anew(here: Store) -> None:
    planned(here, 4)
    control.submit_campaign(here, "c")
    set_campaign_state(here, "c", "paused")  # between its firework's start and its first look
    launch(here, count=1)
    assert campaign_status(here, "c").pending == 4
    assert campaign_firework_states(here.database, "c") == {"COMPLETED": 1}
    assert control.resume(here, "c").members == 4
    launch(here)
    assert campaign_status(here, "c").finished == 4


def test_cancelled_work_is_gone_and_can_come_back(here: Store) -> None:
    planned(here, 3)
    control.submit_campaign(here, "c")
    assert control.cancel(here, "c") == 1
    launch(here)
    assert campaign_status(here, "c").pending == 3
    assert control.resume(here, "c").members == 3
    launch(here)
    assert campaign_status(here, "c").finished == 3


def test_a_campaign_whose_results_came_from_elsewhere_is_done(here: Store) -> None:
    planned(here, 3)
    control.submit_campaign(here, "c")
    assert (campaign_status(here, "c").state, campaign_status(here, "c").pending) == ("submitted", 3)
    control.cancel(here, "c")
    assert (campaign_status(here, "c").state, campaign_status(here, "c").pending) == ("cancelled", 3)
    planned(here, 3, "d")
    control.submit_campaign(here, "d")
    launch(here)
    for name in ("c", "d"):
        found = campaign_status(here, name)
        assert (found.state, found.finished, found.pending) == ("done", 3, 0)


def test_fireworks_that_fizzled_are_replaced(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(here, 3)
    control.submit_campaign(here, "c")
    with monkeypatch.context() as broken:
        broken.setattr("esen_flows.makers.chunks.batch_group", lambda run, rows: 1 / 0)
        launch(here)
    assert campaign_firework_states(here.database, "c") == {"FIZZLED": 1}
    assert control.submit_campaign(here, "c").members == 3
    launch(here)
    assert campaign_status(here, "c").finished == 3


def test_failures_of_a_class_are_retried(here: Store) -> None:
    planned(here, 3, settings={"fmax_ev_per_angstrom": 1e-9, "max_steps": 1})
    control.submit_campaign(here, "c")
    launch(here)
    found = campaign_status(here, "c")
    assert found.failures == {"NotConvergedError": 3}
    assert found.failed_share == Share.of(3, 3)
    with pytest.raises(InputError, match=r"no member of 'c' failed with Nothing; .*: NotConvergedError"):
        control.retry(here, "c", "Nothing")
    assert control.retry(here, "c", "NotConvergedError") == 3
    assert control.submit_campaign(here, "c").members == 3
    launch(here)
    assert campaign_status(here, "c").failures == {"NotConvergedError": 3}
    assert here.database["results"].count_documents({}) == 6


def test_a_measured_rate_decides_how_many_chunks_there_are(here: Store) -> None:
    planned(here, 12)
    control.submit_campaign(here, "c")
    launch(here)
    keys = [row["key"] for row in members(here, "c")]
    update_members(here, "c", keys[:1], {"seconds": 1e5})  # as if a slow machine had done it
    planned(here, 12, "d", settings={"fmax_ev_per_angstrom": 0.04}, target_minutes=60.0)
    submitted = control.submit_campaign(here, "d")
    assert submitted.expected_seconds > 1e4
    assert len(submitted.fireworks) > 1


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (1, 1, 0.2065, 1.0)]
)
def test_wilson(part: int, whole: int, low: float, high: float) -> None:
    """Against R's binom.confint(method="wilson")."""
    share = Share.of(part, whole)
    assert (share.low, share.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_living_processes_are_at_work_and_killed_ones_are_not(here: Store) -> None:
    planned(here, 1)
    process = Host().process()
    gone = {**process.as_dict(), "pid": 2**22 + 1}  # beyond what Linux gives
    facts = {"device": "cpu", "updated_at": datetime.now(UTC) - timedelta(hours=1)}
    begin_run(here, "c", "one", {**facts, "worker": f"{process.host}:{process.pid}"})
    claim = here.get_or_claim("of a long computation")
    assert isinstance(claim, Claim)
    begin_run(here, "c", "two", {"device": "cpu", "worker": f"{process.host}:{gone['pid']}"})
    left = {"_id": "x", "token": "x", "process": gone, "expires_at": datetime.now(UTC) + timedelta(minutes=1)}
    here.database["claims"].insert_one(left)
    assert [rate.worker for rate in campaign_status(here, "c").rates] == [f"{process.host}:{process.pid}"]
    here.release(claim)
    assert campaign_status(here, "c").rates == ()


def test_results_that_another_campaign_has_retried_are_seen(here: Store) -> None:
    planned(here, 1)
    control.submit_campaign(here, "c")
    launch(here)
    (row,) = members(here, "c")
    update_members(here, "c", [row["key"]], {"state": "failed", "failure": "NotConvergedError", "value": None})
    assert control.submit_campaign(here, "c").members == 0  # looks at what is stored
    (seen,) = members(here, "c")
    assert (seen["state"], seen["failure"], seen["value"]) == ("finished", None, row["value"])


def test_the_share_of_no_cases_may_be_anything() -> None:
    assert (Share.of(0, 0).low, Share.of(0, 0).high) == (0.0, 1.0)

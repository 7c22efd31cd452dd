"""Chunks of a campaign: each member is computed once, whatever happens to the processes that work on it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from emt_chunks import CONDUCTIVITY, SETTINGS, campaign, crystals, hook, run, states

from esen_flows.errors import InputError, ServerUnavailableError
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.makers.chunk_batch import MANY
from esen_flows.makers.chunks import ChunkWork
from esen_flows.makers.summaries import relax_summary
from esen_flows.settings import Settings
from esen_flows.stopping import Allocation, allocated
from esen_flows.store import campaign_runs, campaigns
from esen_flows.store.campaign_progress import refresh_states
from esen_flows.store.connection import open_store
from esen_flows.store.exchange.ingest import ingest
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


@pytest.fixture
def allocation() -> Iterator[Allocation]:
    """The time of this process, without an end."""
    with allocated(Allocation()) as found:
        yield found


def test_every_member_is_relaxed_and_committed_once(named_store: Store) -> None:
    structures = crystals(20)
    keys = campaign(named_store, structures)
    response = run(keys)
    assert response.detour is None
    assert response.output["done"] == 20
    assert response.output["atoms"] == sum(map(len, structures))
    assert set(states(named_store).values()) == {("finished", None)}
    assert named_store.database["results"].count_documents({}) == 20
    assert named_store.database["claims"].count_documents({}) == 0
    found = named_store.get(keys[3])
    assert found is not None
    assert found.material_ids == ["m3"]
    assert found.tags == ["c"]
    assert found.provenance.force_evaluations == found.summary["n_steps"] + 1  # type: ignore[operator]
    assert found.provenance.seconds > 0
    again = run(keys)
    assert again.output["done"] == 0
    assert named_store.database["results"].count_documents({}) == 20


def test_results_equal_those_of_single_relaxations(named_store: Store) -> None:
    from esen_flows.physics.relax import relax
    from esen_flows.schemas.protocols import RelaxProtocol

    structures = crystals(4)
    keys = campaign(named_store, structures)
    run(keys)
    for key, atoms in zip(keys, structures, strict=True):
        alone = relax(atoms, emt(), RelaxProtocol(fmax_ev_per_angstrom=0.05, max_steps=100))
        found = named_store.get(key)
        assert found is not None
        assert found.summary["energy_per_atom_ev"] == pytest.approx(alone.energy_per_atom_ev, abs=1e-9)
        assert found.summary["n_steps"] == alone.n_steps


def test_failures_are_stored_for_each_member(named_store: Store) -> None:
    structures = crystals(6)
    structures[2].positions[1:] = structures[2].positions[0]  # atoms on top of each other: no finite energy
    structures[4] = bulk("Fe")  # EMT knows no iron
    keys = campaign(named_store, structures)
    run(keys)
    found = states(named_store)
    assert found["m2"][0] == found["m4"][0] == "failed"
    assert found["m4"][1] == "UnknownElementError"
    assert [found[f"m{i}"][0] for i in (0, 1, 3, 5)] == ["finished"] * 4
    stored = named_store.get(keys[4])
    assert stored is not None
    assert stored.failure is not None
    assert "26" in stored.failure.message


def test_a_stopped_chunk_hands_back_the_rest(
    named_store: Store, allocation: Allocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def stop(structures: Any) -> None:
        calls.append(len(structures))
        if len(calls) == 8:
            allocation.request_stop()

    structures = crystals(60)
    keys = campaign(named_store, structures)
    monkeypatch.setattr("esen_flows.makers.chunk_batch.ATOMS_AT_ONCE", {"cpu": 20})
    hook(monkeypatch, stop)
    response = run(keys)
    done = response.output["done"]
    assert 0 < done < 60
    assert response.output["left"] == 60 - done
    (rest,) = response.detour.jobs
    assert rest.function_args[:3] == ("c", "chunk", "relax")
    assert len(rest.function_args[3]) == 60 - done
    assert rest.config.manager_config["least_seconds"] > 0
    assert named_store.database["results"].count_documents({}) == done
    assert named_store.database["claims"].count_documents({}) == 0
    allocation.requested = False
    assert run(rest.function_args[3]).detour is None
    assert set(states(named_store).values()) == {("finished", None)}
    assert named_store.database["results"].count_documents({}) == 60


def test_without_time_left_all_members_are_handed_back(named_store: Store, allocation: Allocation) -> None:
    keys = campaign(named_store, crystals(3))
    allocation.deadline = time.monotonic() - 1
    response = run(keys)
    assert (response.output["done"], response.output["left"]) == (0, 3)


def test_members_of_a_paused_campaign_are_freed(named_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = campaign(named_store, crystals(12))
    campaigns.update_members(named_store, "c", keys, {"chunk": "chunk"})
    monkeypatch.setattr("esen_flows.makers.chunk_run.FLUSH_RESULTS", 1)
    monkeypatch.setattr("esen_flows.makers.chunk_batch.ATOMS_AT_ONCE", {"cpu": 4})
    calls = []

    def pause(structures: Any) -> None:
        calls.append(structures)
        if len(calls) == 10:
            campaigns.set_campaign_state(named_store, "c", "paused")

    hook(monkeypatch, pause)
    response = run(keys)
    assert response.detour is None
    assert 0 < response.output["left"] < 12
    assert named_store.database["claims"].count_documents({}) == 0
    free = list(campaigns.members(named_store, "c", {"state": "pending"}))
    assert {row["chunk"] for row in free} == {None}


def test_a_pause_is_noticed_between_the_forces_of_two_crystals(
    named_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = campaign(named_store, [bulk("Cu"), bulk("Ag")], property="conductivity", settings=CONDUCTIVITY)
    hook(monkeypatch, lambda structures: campaigns.set_campaign_state(named_store, "c", "paused"))
    response = run(keys, "forces")
    assert (response.detour, response.output["left"], response.output["cost"]) == (None, 1, 1.0)
    assert named_store.database["results"].count_documents({"kind": "forces"}) == 1
    (noted,) = campaign_runs.runs(named_store, "c")
    assert (noted["cost"], noted["state"]) == (1.0, "ended")


def test_results_of_single_jobs_are_not_computed_again(named_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobflow import run_locally

    from esen_flows.makers.relax import RelaxMaker
    from esen_flows.schemas.protocols import RelaxProtocol
    from esen_flows.store.jobflow_store import job_store

    structures = crystals(2)
    maker = RelaxMaker(force_field_name="emt", protocol=RelaxProtocol.model_validate(SETTINGS))
    run_locally(maker.make(structures[0]), log=False, store=job_store(named_store), raise_immediately=True)
    keys = campaign(named_store, structures)
    evaluated: list[int] = []
    hook(monkeypatch, lambda found: evaluated.append(len(found)))
    run(keys)
    assert set(evaluated) == {1}
    assert set(states(named_store).values()) == {("finished", None)}


def test_failed_members_are_computed_again_on_request(named_store: Store) -> None:
    keys = campaign(named_store, crystals(2), settings={"fmax_ev_per_angstrom": 1e-9, "max_steps": 1})
    run(keys)
    assert set(states(named_store).values()) == {("failed", "NotConvergedError")}
    campaigns.update_members(named_store, "c", keys[:1], {"state": "pending", "force": True})
    assert run(keys).output["done"] == 1
    assert named_store.database["results"].count_documents({}) == 3
    assert set(states(named_store).values()) == {("failed", "NotConvergedError")}


def test_a_chunk_keeps_its_members_if_the_campaign_is_resumed_meanwhile(
    named_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = campaign(named_store, crystals(2))
    campaigns.set_campaign_state(named_store, "c", "paused")

    def resumed(*arguments: Any) -> int:
        campaigns.set_campaign_state(named_store, "c", "submitted")
        return campaigns.update_members(*arguments)

    monkeypatch.setattr("esen_flows.makers.chunks.update_members", resumed)
    assert run(keys).detour is not None
    assert {row["chunk"] for row in campaigns.members(named_store, "c")} == {"chunk"}


def test_a_member_that_does_not_fit_is_skipped(named_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = campaign(named_store, crystals(3))
    monkeypatch.setattr("esen_flows.makers.chunk_batch.CLAIMED_AT_ONCE", 1)
    monkeypatch.setattr("esen_flows.makers.chunk_run.ChunkRun.fits", lambda run, row: row["label"] != "m1")
    assert run(keys).output["left"] == 1
    assert [label for label, (state, _) in states(named_store).items() if state == "pending"] == ["m1"]


def test_an_error_before_any_evaluation_fails_no_member(named_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = campaign(named_store, crystals(3))

    def broken(*arguments: Any, **options: Any) -> None:
        raise TypeError("not of a structure")

    monkeypatch.setitem(MANY, "relax", (broken, relax_summary))
    with pytest.raises(TypeError, match="not of a structure"):
        run(keys)
    assert set(states(named_store).values()) == {("pending", None)}


def test_conductivities_take_two_stages(named_store: Store) -> None:
    good, bad = bulk("Cu", a=3.6, cubic=True), bulk("Fe", cubic=True)
    keys = campaign(named_store, [good, bad], property="conductivity", settings=CONDUCTIVITY)
    early = run(keys, "lattice")  # a pause before there were forces
    assert (early.detour, early.output["left"]) == (None, 0)
    assert {state for state, _ in states(named_store).values()} == {"pending"}
    first = run(keys, "forces")
    assert first.detour is None
    assert first.output["cost"] == len(good) + len(bad)
    assert states(named_store) == {"m0": ("pending", None), "m1": ("failed", "UnknownElementError")}
    assert named_store.database["results"].count_documents({"kind": "forces"}) == 1
    second = run(keys, "lattice")
    assert second.detour is None
    assert (second.output["done"], second.output["cost"]) == (1, 0.0)
    found = states(named_store)
    assert found["m0"][0] == "finished"
    stored = named_store.get(keys[0], load_arrays=False)
    assert stored is not None
    (row,) = campaigns.members(named_store, "c", {"label": "m0"})
    assert row["value"] == stored.summary["kappa_rta_w_per_m_k"]
    assert row["seconds"] > stored.provenance.seconds


def test_results_go_into_the_spool_while_the_server_is_away(
    embedded_settings: Settings, named_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = campaign(named_store, crystals(40))
    changes = {
        "database": named_store.database.database_name, "spool_dir": tmp_path / "spool", "spool_after_seconds": 0.5,
    }  # fmt: skip
    working = open_store(embedded_settings.model_copy(update=changes))
    monkeypatch.setattr("esen_flows.makers.chunks.open_store", lambda: working)
    monkeypatch.setattr("esen_flows.makers.chunk_batch.ATOMS_AT_ONCE", {"cpu": 20})
    monkeypatch.setattr("esen_flows.makers.chunk_run.FLUSH_RESULTS", 4)
    database, calls = working.database, []
    client, lease = database._client, database.lease

    def cut(structures: Any) -> None:
        calls.append(structures)
        if len(calls) == 40:  # from now on it talks to a port where nobody is
            database._client = type(client)("mongodb://127.0.0.1:9/", serverSelectionTimeoutMS=20)
            database.lease, database.timeout_seconds = None, 0.1

    hook(monkeypatch, cut)
    with pytest.raises(ServerUnavailableError):  # at its end, when it wants to know what is left
        run(keys)
    database._client, database.lease, database.timeout_seconds = client, lease, 15.0
    committed = named_store.database["results"].count_documents({})
    assert 0 < committed < 40
    merged = ingest(named_store, tmp_path / "spool")
    assert merged.counts == {"new": 40 - committed}
    assert named_store.database["results"].count_documents({}) == 40
    refresh_states(named_store, "c", "energy_per_atom_ev")
    assert set(states(named_store).values()) == {("finished", None)}
    working.close()


def test_the_job_of_a_chunk_names_category_campaign_and_chunk() -> None:
    work = ChunkWork("c", "0123456789", "lattice", ("k",), 12.0, 3.0).job()
    config = work.config.manager_config
    assert config["_category"] == "cpu"
    assert (config["campaign"], config["chunk"], config["members"]) == ("c", "0123456789", 1)
    assert config["least_seconds"] == 3.0


def test_statics_are_evaluated_in_batches(named_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    hook(monkeypatch, lambda structures: batches.append(len(structures)))
    structures = crystals(6)
    keys = campaign(named_store, structures, property="static", settings={})
    assert run(keys, "static").output["done"] == 6
    assert batches == [6]
    for key, atoms in zip(keys, structures, strict=True):
        found = named_store.get(key)
        assert found is not None
        assert found.provenance.force_evaluations == 1
        assert found.summary["energy_per_atom_ev"] == pytest.approx(emt().evaluate([atoms])[0].energy / len(atoms))


def test_a_stage_that_the_property_does_not_have_is_refused(named_store: Store) -> None:
    keys = campaign(named_store, crystals(1))
    with pytest.raises(InputError, match="relax has no stage 'static'"):
        run(keys, "static")

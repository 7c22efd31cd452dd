"""Chunks of a campaign: each member once, whatever happens to those who work on it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from jobflow import Response

from esen_flows.errors import ServerUnavailableError
from esen_flows.forcefield import load
from esen_flows.forcefield.third_party.any_ase import AseForceField
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.makers.chunks import ChunkWork, chunk_job
from esen_flows.schemas.campaign import CampaignSpec, member_keys
from esen_flows.schemas.card import resolve_model
from esen_flows.settings import Settings
from esen_flows.stopping import Allocation, allocated
from esen_flows.store import campaign_runs, campaigns
from esen_flows.store.bulk import put_structures
from esen_flows.store.campaign_progress import refresh_states
from esen_flows.store.connection import open_store
from esen_flows.store.exchange.ingest import ingest
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
METALS = ("Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al")
SETTINGS = {"fmax_ev_per_angstrom": 0.05, "max_steps": 100}


@pytest.fixture
def here(named_store: Store) -> Store:
    """The store that `open_store()` opens."""
    return named_store


@pytest.fixture
def allocation() -> Iterator[Allocation]:
    """The time of this process, without an end."""
    with allocated(Allocation()) as found:
        yield found


def crystals(count: int) -> list[Atoms]:
    rng = np.random.default_rng(5)
    found = []
    for i in range(count):
        atoms = bulk(METALS[i % 7], cubic=True) if i % 3 else bulk(METALS[i % 7])
        atoms.set_cell(atoms.cell * (1 + 0.01 * rng.standard_normal()), scale_atoms=True)
        atoms.rattle(0.02, rng=rng)
        found.append(atoms)
    return found


def campaign(store: Store, structures: list[Atoms], property: str = "relax", **changes: Any) -> list[str]:
    """A campaign "c" of these structures by EMT; the keys of its members."""
    spec = CampaignSpec.model_validate(
        {
            "name": "c",
            "property": property,
            "structures": {"file": "x"},
            "models": "emt",
            "settings": SETTINGS,
            **changes,
        }
    )
    model = resolve_model("emt")
    campaigns.create_campaign(
        store,
        {
            "_id": "c", "spec": spec.model_dump(mode="json"), "spec_text": "", "spec_sha256": spec.sha256,
            "models": [{"label": "emt", "key": model.key, "location": "emt"}],
        },
    )  # fmt: skip
    keys = put_structures(store, [(atoms, {"material_ids": (f"m{i}",)}) for i, atoms in enumerate(structures)])
    rows: list[dict[str, Any]] = []
    for i, (key, atoms) in enumerate(zip(keys, structures, strict=True)):
        steps = member_keys(spec, key, model.key, {})
        rows.append(
            {
                "key": steps[-1], "steps": list(steps), "label": f"m{i}", "structure_key": key, "model_key": model.key,
                "model_label": "emt", "formula": "X", "nsites": len(atoms), "info": {}, "cost": float(len(atoms)),
            }
        )  # fmt: skip
    campaigns.insert_members(store, "c", rows)
    return [row["key"] for row in rows]


def states(store: Store) -> dict[str, tuple[str, str | None]]:
    return {row["label"]: (row["state"], row["failure"]) for row in campaigns.members(store, "c")}


def run(keys: list[str], stage: Any = "relax") -> Response:
    return chunk_job("c", "chunk", stage, keys)


def test_every_member_is_relaxed_and_committed_once(here: Store) -> None:
    structures = crystals(20)
    keys = campaign(here, structures)
    response = run(keys)
    assert response.detour is None
    assert response.output["done"] == 20
    assert response.output["atoms"] == sum(map(len, structures))
    assert set(states(here).values()) == {("finished", None)}
    assert here.database["results"].count_documents({}) == 20
    assert here.database["claims"].count_documents({}) == 0
    found = here.get(keys[3])
    assert found is not None
    assert found.material_ids == ["m3"]
    assert found.tags == ["c"]
    assert found.provenance.force_evaluations == found.summary["n_steps"] + 1  # type: ignore[operator]
    assert found.provenance.seconds > 0
    again = run(keys)
    assert again.output["done"] == 0
    assert here.database["results"].count_documents({}) == 20


def test_what_it_gives_is_what_a_single_relaxation_gives(here: Store) -> None:
    from esen_flows.physics.relax import relax
    from esen_flows.schemas.protocols import RelaxProtocol

    structures = crystals(4)
    keys = campaign(here, structures)
    run(keys)
    for key, atoms in zip(keys, structures, strict=True):
        alone = relax(atoms, emt(), RelaxProtocol(fmax_ev_per_angstrom=0.05, max_steps=100))
        found = here.get(key)
        assert found is not None
        assert found.summary["energy_per_atom_ev"] == pytest.approx(alone.energy_per_atom_ev, abs=1e-9)
        assert found.summary["n_steps"] == alone.n_steps


def test_failures_are_documents_of_their_own(here: Store) -> None:
    structures = crystals(6)
    structures[2].positions[1:] = structures[2].positions[0]  # atoms on top of each other: no finite energy
    structures[4] = bulk("Fe")  # EMT knows no iron
    keys = campaign(here, structures)
    run(keys)
    found = states(here)
    assert found["m2"][0] == found["m4"][0] == "failed"
    assert found["m4"][1] == "UnknownElementError"
    assert [found[f"m{i}"][0] for i in (0, 1, 3, 5)] == ["finished"] * 4
    stored = here.get(keys[4])
    assert stored is not None
    assert stored.failure is not None
    assert "26" in stored.failure.message


class Hooked(AseForceField):
    """EMT that does something before each call."""

    def __init__(self, hook: Any) -> None:
        inner = emt()
        super().__init__(inner.calculator, key=inner.key, label="emt", declaration=inner.declaration)
        self.hook = hook

    def evaluate(self, structures: Any) -> Any:
        self.hook(structures)
        return super().evaluate(structures)


def hook(monkeypatch: pytest.MonkeyPatch, what: Any) -> None:
    force_field = Hooked(what)
    monkeypatch.setattr(load, "load_force_field", lambda *arguments, **options: force_field)


def test_a_defect_is_found_by_halving_and_takes_nobody_along(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def poison(structures: Any) -> None:
        if any(atoms.get_chemical_formula() == "Pt" for atoms in structures):
            raise ZeroDivisionError("not one of ours")

    structures = [bulk("Cu", a=3.5 + 0.01 * i) for i in range(9)]
    structures.insert(5, bulk("Pt"))
    keys = campaign(here, structures)
    hook(monkeypatch, poison)
    response = run(keys)
    assert response.detour is None
    found = states(here)
    assert found.pop("m5") == ("failed", "ZeroDivisionError")
    assert set(found.values()) == {("finished", None)}
    stored = here.get(keys[5])
    assert stored is not None
    assert stored.failure is not None
    assert not stored.failure.final


def test_what_kills_the_process_is_isolated_over_restarts(here: Store) -> None:
    structures = [bulk("Cu", a=3.5 + 0.01 * i) for i in range(6)]
    structures.insert(2, bulk("Pt"))
    keys = campaign(here, structures)
    script = Path(__file__).parent / "deadly_chunk.py"
    done = subprocess.run([sys.executable, script, *keys], capture_output=True, text=True, timeout=120, check=True)
    deaths = int(done.stdout)
    found = states(here)
    assert found.pop("m2") == ("failed", "ProcessDiedError")
    assert set(found.values()) == {("finished", None)}
    assert 2 <= deaths <= 5
    assert here.database["results"].count_documents({}) == 7
    died = [row for row in campaign_runs.runs(here, "c") if row["state"] == "died"]
    assert len(died) == deaths
    assert here.database["claims"].count_documents({}) == 0


def test_a_stop_hands_back_what_is_not_done(
    here: Store, allocation: Allocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def stop(structures: Any) -> None:
        calls.append(len(structures))
        if len(calls) == 8:
            allocation.request_stop()

    structures = crystals(60)
    keys = campaign(here, structures)
    monkeypatch.setattr("esen_flows.makers.chunk_relax.ATOMS_AT_ONCE", {"cpu": 20})
    hook(monkeypatch, stop)
    response = run(keys)
    done = response.output["done"]
    assert 0 < done < 60
    assert response.output["left"] == 60 - done
    (rest,) = response.detour.jobs
    assert rest.function_args[:3] == ("c", "chunk", "relax")
    assert len(rest.function_args[3]) == 60 - done
    assert rest.config.manager_config["least_seconds"] > 0
    assert here.database["results"].count_documents({}) == done
    assert here.database["claims"].count_documents({}) == 0
    allocation.requested = False
    assert run(rest.function_args[3]).detour is None
    assert set(states(here).values()) == {("finished", None)}
    assert here.database["results"].count_documents({}) == 60


def test_no_time_is_left(here: Store, allocation: Allocation) -> None:
    keys = campaign(here, crystals(3))
    allocation.deadline = time.monotonic() - 1
    response = run(keys)
    assert (response.output["done"], response.output["left"]) == (0, 3)


def test_a_paused_campaign_gives_its_members_free(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = campaign(here, crystals(12))
    campaigns.update_members(here, "c", keys, {"chunk": "chunk"})
    monkeypatch.setattr("esen_flows.makers.chunk_run.FLUSH_RESULTS", 1)
    monkeypatch.setattr("esen_flows.makers.chunk_relax.ATOMS_AT_ONCE", {"cpu": 4})
    calls = []

    def pause(structures: Any) -> None:
        calls.append(structures)
        if len(calls) == 10:
            campaigns.set_campaign_state(here, "c", "paused")

    hook(monkeypatch, pause)
    response = run(keys)
    assert response.detour is None
    assert 0 < response.output["left"] < 12
    assert here.database["claims"].count_documents({}) == 0
    free = list(campaigns.members(here, "c", {"state": "pending"}))
    assert {row["chunk"] for row in free} == {None}


def test_a_pause_is_noticed_between_two_crystals_forces(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = campaign(here, [bulk("Cu"), bulk("Ag")], "conductivity", settings=SMALL)
    hook(monkeypatch, lambda structures: campaigns.set_campaign_state(here, "c", "paused"))
    response = run(keys, "forces")
    assert (response.detour, response.output["left"], response.output["cost"]) == (None, 1, 1.0)
    assert here.database["results"].count_documents({"kind": "forces"}) == 1
    (noted,) = campaign_runs.runs(here, "c")
    assert (noted["cost"], noted["state"]) == (1.0, "ended")


def test_results_from_elsewhere_are_not_computed_again(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobflow import run_locally

    from esen_flows.makers.relax import RelaxMaker
    from esen_flows.schemas.protocols import RelaxProtocol
    from esen_flows.store.jobflow_store import job_store

    structures = crystals(2)
    maker = RelaxMaker(force_field_name="emt", protocol=RelaxProtocol.model_validate(SETTINGS))
    run_locally(maker.make(structures[0]), log=False, store=job_store(here), raise_immediately=True)
    keys = campaign(here, structures)
    evaluated: list[int] = []
    hook(monkeypatch, lambda found: evaluated.append(len(found)))
    run(keys)
    assert set(evaluated) == {1}
    assert set(states(here).values()) == {("finished", None)}


def test_failed_members_are_tried_again_when_somebody_asks(here: Store) -> None:
    keys = campaign(here, crystals(2), settings={"fmax_ev_per_angstrom": 1e-9, "max_steps": 1})
    run(keys)
    assert set(states(here).values()) == {("failed", "NotConvergedError")}
    campaigns.update_members(here, "c", keys[:1], {"state": "pending", "force": True})
    assert run(keys).output["done"] == 1
    assert here.database["results"].count_documents({}) == 3
    assert set(states(here).values()) == {("failed", "NotConvergedError")}


def test_a_resumed_campaign_keeps_what_a_chunk_was_about_to_give_free(
    here: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = campaign(here, crystals(2))
    campaigns.set_campaign_state(here, "c", "paused")

    def resumed(*arguments: Any) -> int:
        campaigns.set_campaign_state(here, "c", "submitted")
        return campaigns.update_members(*arguments)

    monkeypatch.setattr("esen_flows.makers.chunks.update_members", resumed)
    assert run(keys).detour is not None
    assert {row["chunk"] for row in campaigns.members(here, "c")} == {"chunk"}


def test_what_does_not_fit_holds_up_nobody(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = campaign(here, crystals(3))
    monkeypatch.setattr("esen_flows.makers.chunk_relax.CLAIMED_AT_ONCE", 1)
    monkeypatch.setattr("esen_flows.makers.chunk_run.ChunkRun.fits", lambda run, row: row["label"] != "m1")
    assert run(keys).output["left"] == 1
    assert [label for label, (state, _) in states(here).items() if state == "pending"] == ["m1"]


def test_an_error_before_any_evaluation_is_nobodys(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = campaign(here, crystals(3))

    def broken(*arguments: Any, **options: Any) -> None:
        raise TypeError("not of a structure")

    monkeypatch.setattr("esen_flows.makers.chunk_relax.relax_many", broken)
    with pytest.raises(TypeError, match="not of a structure"):
        run(keys)
    assert set(states(here).values()) == {("pending", None)}


@pytest.mark.parametrize("stage", ["relax", "forces"])
def test_a_lost_gpu_ends_the_process_and_fails_nobody(here: Store, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    class Killed(BaseException):
        pass

    def lose(structures: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def killed(process: int, number: int) -> None:
        raise Killed

    made: dict[str, Any] = {} if stage == "relax" else {"property": "conductivity", "settings": SMALL}
    keys = campaign(here, crystals(2), **made)
    hook(monkeypatch, lose)
    monkeypatch.setattr(os, "kill", killed)
    with pytest.raises(Killed):
        run(keys, stage)
    monkeypatch.undo()
    assert set(states(here).values()) == {("pending", None)}


SMALL = {
    "relax.fmax_ev_per_angstrom": 0.01, "displacement.fc2_supercell": [1, 1, 1], "mesh": [3, 3, 3],
    "displacement.fc3_supercell": [2, 2, 2], "temperatures_kelvin": [300.0],
}  # fmt: skip


def test_conductivities_take_two_stages(here: Store) -> None:
    good, bad = bulk("Cu", a=3.6, cubic=True), bulk("Fe", cubic=True)
    keys = campaign(here, [good, bad], "conductivity", settings=SMALL)
    early = run(keys, "lattice")  # a pause before there were forces
    assert (early.detour, early.output["left"]) == (None, 0)
    assert {state for state, _ in states(here).values()} == {"pending"}
    first = run(keys, "forces")
    assert first.detour is None
    assert first.output["cost"] == len(good) + len(bad)
    assert states(here) == {"m0": ("pending", None), "m1": ("failed", "UnknownElementError")}
    assert here.database["results"].count_documents({"kind": "forces"}) == 1
    second = run(keys, "lattice")
    assert second.detour is None
    assert (second.output["done"], second.output["cost"]) == (1, 0.0)
    found = states(here)
    assert found["m0"][0] == "finished"
    stored = here.get(keys[0], load_arrays=False)
    assert stored is not None
    (row,) = campaigns.members(here, "c", {"label": "m0"})
    assert row["value"] == stored.summary["kappa_rta_w_per_m_k"]
    assert row["seconds"] > stored.provenance.seconds


def test_a_worker_that_is_cut_off_spools_what_it_goes_on_to_compute(
    embedded_settings: Settings, here: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = campaign(here, crystals(40))
    changes = {
        "database": here.database.database_name, "spool_dir": tmp_path / "spool", "spool_after_seconds": 0.5,
    }  # fmt: skip
    working = open_store(embedded_settings.model_copy(update=changes))
    monkeypatch.setattr("esen_flows.makers.chunks.open_store", lambda: working)
    monkeypatch.setattr("esen_flows.makers.chunk_relax.ATOMS_AT_ONCE", {"cpu": 20})
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
    committed = here.database["results"].count_documents({})
    assert 0 < committed < 40
    merged = ingest(here, tmp_path / "spool")
    assert merged.counts == {"new": 40 - committed}
    assert here.database["results"].count_documents({}) == 40
    refresh_states(here, "c", "energy_per_atom_ev")
    assert set(states(here).values()) == {("finished", None)}
    working.close()


def test_a_chunk_says_where_it_belongs() -> None:
    work = ChunkWork("c", "0123456789", "lattice", ("k",), 12.0, 3.0).job()
    config = work.config.manager_config
    assert config["_category"] == "cpu"
    assert (config["campaign"], config["chunk"], config["members"]) == ("c", "0123456789", 1)
    assert config["least_seconds"] == 3.0

"""Makers that are given references, lists and files: their jobs, who obeys changes, and where fireworks run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from copper_stages import stage
from fireworks import FWorker, LaunchPad
from fireworks.core.rocket_launcher import rapidfire
from jobflow import SETTINGS, Flow, Job, JobStore, Maker, OutputReference, job, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder, jsanitize
from running import run

from esen_flows.errors import InputError, StructureError
from esen_flows.makers.conductivity import ConductivityMaker
from esen_flows.makers.outputs import MOST_ATOMS_INLINE, atomate2_fields
from esen_flows.makers.phonon import PhononMaker
from esen_flows.makers.relax import RelaxMaker
from esen_flows.makers.training import LabelMaker, TrainMaker
from esen_flows.queue.submit import submit
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.protocols import ConductivityProtocol, DisplacementProtocol, PhononProtocol, RelaxProtocol
from esen_flows.store.jobflow_files import launchpad_spec
from esen_flows.store.jobflow_store import job_store
from esen_flows.structures.conversion import as_atoms, to_pymatgen

COPPER = bulk("Cu", "fcc", a=3.6, cubic=True)
RELAX = RelaxProtocol(fmax_ev_per_angstrom=1e-2, symmetry="fix")
SMALL = DisplacementProtocol(order=3, fc2_supercell=(1, 1, 1), fc3_supercell=(2, 2, 2))
KAPPA = ConductivityProtocol(relax=RELAX, displacement=SMALL, mesh=(3, 3, 3))
REFERENCE = OutputReference("0123-4567")


@job
def stretched(structure: Any, factors: list[float]) -> Any:
    """A job of another package: structures with longer cells; one for one factor."""
    made = [structure.copy().apply_strain(factor - 1.0, inplace=False) for factor in factors]
    return made[0] if len(made) == 1 else made


def relax_maker(copper: Any, **changes: Any) -> RelaxMaker:
    return RelaxMaker(force_field_name=str(copper.checkpoint), protocol=RELAX, **changes)


def test_a_job_by_reference_is_the_maker_and_obeys() -> None:
    maker = ConductivityMaker(force_field_name="emt", protocol=KAPPA, tags=("a",))
    work = maker.make(REFERENCE.structure)
    assert isinstance(work, Job)
    assert (work.name, work.metadata) == ("conductivity", {"kind": "conductivity"})
    assert work.maker == maker
    work.update_maker_kwargs({"device": "cuda"})
    assert isinstance(work.maker, ConductivityMaker)
    assert (work.maker.device, work.maker.protocol) == ("cuda", KAPPA)
    assert maker.device == "cpu"
    # As FireWorks writes it, with the protocol inside the Maker.
    restored = MontyDecoder().process_decoded(json.loads(json.dumps(jsanitize(work.as_dict()))))
    assert (restored.maker.protocol, restored.maker.device) == (KAPPA, "cuda")
    assert restored.input_uuids == (REFERENCE.uuid,)


def test_a_job_stands_for_its_output() -> None:
    one = stretched(to_pymatgen(COPPER), [1.01])
    for given in (one, [one]):
        work = RelaxMaker(force_field_name="emt").make(given)
        assert work.input_uuids == (one.uuid,)


@pytest.mark.parametrize("filters", [{}, {"class_filter": PhononMaker}, {"class_filter": Maker}, {"name_filter": "ph"}])
def test_keyed_jobs_refuse_changes(filters: dict[str, Any]) -> None:
    flow = PhononMaker(force_field_name="emt").make(COPPER)
    before = json.dumps(jsanitize(flow.as_dict()))
    with pytest.raises(InputError, match=r"'phonon relax' .* device cannot be changed .* maker\.update_kwargs\("):
        flow.update_maker_kwargs({"device": "cuda"}, **filters)
    flow.update_maker_kwargs({"device": "cuda"}, name_filter="static")  # meant for other Makers
    flow.update_maker_kwargs({"device": "cuda"}, class_filter=RelaxMaker)
    flow.update_maker_kwargs({"device": "cuda"}, class_filter=RelaxMaker(force_field_name="emt"))
    assert json.dumps(jsanitize(flow.as_dict())) == before
    changed = PhononMaker(force_field_name="emt").update_kwargs({"device": "cuda"}).make(COPPER)
    assert {work.function_kwargs["model"]["device"] for work in changed.jobs} == {"cuda"}
    assert [work.metadata for work in changed.jobs] == [work.metadata for work in flow.jobs]


def test_jobs_of_training_refuse_changes_too(header_only_checkpoint: Path) -> None:
    data = "ab" * 32
    label = LabelMaker(force_field_name=str(header_only_checkpoint)).make([COPPER])
    for work, kind in ((TrainMaker(config=stage()).make(data), TrainMaker), (label, LabelMaker)):
        with pytest.raises(InputError, match="was made with its key"):
            work.update_maker_kwargs({"device": "cuda"}, class_filter=kind)


def test_structures_files_and_lists_are_the_same_requests(tmp_path: Path) -> None:
    maker = RelaxMaker(force_field_name="emt")
    gold = bulk("Au")
    write(tmp_path / "both.xyz", [COPPER, gold], format="extxyz")
    write(tmp_path / "POSCAR", COPPER, format="vasp", direct=False)
    key = maker.make(COPPER).metadata["result_key"]
    one = [to_pymatgen(COPPER), tmp_path / "POSCAR", str(tmp_path / "both.xyz@0")]
    assert [maker.make(given).metadata["result_key"] for given in one] == [key] * 3
    many = [[COPPER, to_pymatgen(gold)], tmp_path / "both.xyz", iter([COPPER, gold]), [tmp_path / "both.xyz"]]
    for given in many:
        flow = maker.make(given)
        assert isinstance(flow, Flow)
        assert [work.metadata["result_key"] for work in flow.jobs] == [key, maker.make(gold).metadata["result_key"]]
        assert [reference.uuid for reference in flow.output] == [work.uuid for work in flow.jobs]
    assert len(PhononMaker(force_field_name="emt").make([COPPER, gold]).jobs) == 2
    alone = maker.make([COPPER])
    assert isinstance(alone, Flow)  # a list stays a list
    assert len(alone.output) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "no structure was given"),
        (7, "got int"),
        ({"structure": 1}, r"got dict; of a job's output, give its structure: job\.output\.structure"),
        ([[COPPER]], "a list of lists"),
        ("missing.cif", "no such file: missing.cif"),
    ],
)
def test_anything_else_is_refused(given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        RelaxMaker(force_field_name="emt").make(given)


@pytest.mark.mongod
def test_one_and_many_structures_of_other_jobs(copper: Any) -> None:
    one = stretched(to_pymatgen(COPPER), [1.01])
    two = stretched(to_pymatgen(COPPER), [1.02, 0.99])
    still = RELAX.model_copy(update={"relax_cell": False})  # a perfect crystal, so that no step is made
    maker = replace(relax_maker(copper), protocol=still)
    works = [maker.make(one.output), maker.make(two.output), maker.make([one.output, COPPER, two.output[0]])]
    flow = Flow([one, two, *works], output=[work.output for work in works])
    store = job_store(copper.store)
    responses = run_locally(flow, log=False, store=store, raise_immediately=True)
    (first, pair, three) = (store.get_output(work.uuid, load=True) for work in works)
    assert first["kind"] == "relax"
    assert [len(found) for found in (pair, three)] == [2, 3]
    assert [found["key"] for found in three][::2] == [first["key"], pair[0]["key"]]  # the same requests
    assert three[1]["key"] == maker.make(COPPER).metadata["result_key"]
    assert copper.store.database["results"].count_documents({}) == 4
    last = max(responses[works[0].uuid])
    assert last == 2  # it was replaced by the keyed job, which says what it computed
    (document,) = copper.store.database["jobs"].find({"uuid": works[0].uuid, "index": 2})
    assert document["metadata"] == {"kind": "relax", "result_key": first["key"]}


@pytest.mark.mongod
def test_labels_of_structures_of_other_jobs(copper: Any) -> None:
    one, grouped = stretched(to_pymatgen(COPPER), [1.01]), COPPER.copy()
    grouped.info |= {"group": "bulk", "material": "mp-30"}
    maker = LabelMaker(force_field_name=str(copper.checkpoint))
    work = maker.make([one.output, grouped])
    assert work.metadata == {"kind": "labelling"}
    store = job_store(copper.store)
    run_locally(Flow([one, work]), log=False, store=store, raise_immediately=True)
    first = as_atoms(MontyDecoder().process_decoded(store.get_output(one.uuid)))
    assert store.get_output(work.uuid)["key"] == maker.make([first, grouped]).metadata["result_key"]


@pytest.mark.mongod
def test_a_force_field_by_reference_obeys_too(copper: Any) -> None:
    training = stretched(to_pymatgen(COPPER), [1.0])  # not a training, and not asked
    still = RELAX.model_copy(update={"relax_cell": False})
    work = RelaxMaker(force_field_name=training.output, protocol=still).make(COPPER)
    work.update_maker_kwargs({"force_field_name": str(copper.checkpoint)})
    run_locally(Flow([training, work]), log=False, store=job_store(copper.store), raise_immediately=True)
    key = replace(relax_maker(copper), protocol=still).make(COPPER).metadata["result_key"]
    assert copper.store.get(key) is not None


@pytest.mark.mongod
@pytest.mark.parametrize(
    ("config", "categories", "priority"),
    [
        ({}, {"relax": "gpu", "forces": "gpu", "conductivity": "cpu"}, None),
        ({"_priority": 7}, {"relax": "gpu", "forces": "gpu", "conductivity": "cpu"}, 7),
        ({"_category": "big"}, dict.fromkeys(("relax", "forces", "conductivity"), "big"), None),
    ],
)
def test_fireworks_made_at_run_time_have_the_category_of_their_kind(
    copper: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    categories: dict[str, str],
    priority: int | None,
) -> None:
    monkeypatch.setattr(SETTINGS, "JOB_STORE", job_store(copper.store))
    first = stretched(to_pymatgen(COPPER), [1.01])
    kappa = ConductivityMaker(force_field_name=str(copper.checkpoint), protocol=KAPPA).make([first.output])
    if config:
        kappa.update_config({"manager_config": config})
    submission = submit(Flow([first, kappa]), store=copper.store)
    launchpad = LaunchPad.from_dict({**launchpad_spec(copper.store.database), "strm_lvl": "ERROR"})
    rapidfire(launchpad, FWorker(category=""), str(tmp_path), nlaunches=2, sleep_time=0, strm_lvl="ERROR")
    launchpad.connection.close()
    rows = {row["fw_id"]: row for row in copper.store.database["fireworks"].find()}
    made = [row for number, row in rows.items() if number not in submission.firework_ids]
    specs = [row["spec"] for row in sorted(made, key=lambda row: row["fw_id"], reverse=True)]
    # The last one collects the outputs, because a list was given, and has the kind of the answer.
    assert sorted(spec["kind"] for spec in specs) == ["conductivity", "conductivity", "forces", "relax"]
    for spec in specs:
        assert spec["_category"] == categories[spec["kind"]]
        assert spec.get("_priority") == priority
        assert "fw_id" not in spec


@pytest.mark.mongod
def test_large_structures_go_to_the_data_store(copper: Any) -> None:
    for repeat, is_large in ((4, True), (1, False)):
        atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * (repeat, repeat, repeat)
        assert (len(atoms) > MOST_ATOMS_INLINE) == is_large
        protocol = RELAX.model_copy(update={"relax_cell": False, "symmetry": "free"})
        work = replace(relax_maker(copper), protocol=protocol).make(atoms)
        store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
        run_locally(work, log=False, store=store, raise_immediately=True)
        inline = store.query_one({"uuid": work.uuid}, load=False)["output"]
        whole = store.get_output(work.uuid, load=True)
        assert ("blob_uuid" in inline["structure"], "blob_uuid" in inline["forces"]) == (is_large, is_large)
        assert len(whole["forces"]) == len(whole["structure"]["sites"]) == len(atoms)
        assert run(replace(relax_maker(copper), protocol=protocol).make(atoms), copper)["key"] == whole["key"]


def test_fields_are_atomate2s() -> None:
    stress = np.diag([0.01, 0.02, -0.03])
    found = atomate2_fields(COPPER, -1.5, np.zeros((4, 3)), stress)
    assert found["energy"] == found["output"]["energy"] == -1.5
    assert found["output"]["energy_per_atom"] == -1.5 / 4
    # 1 eV/A^3 is 1602.1766 kBar; VASP writes tension as negative.
    np.testing.assert_allclose(np.diag(found["stress"]), [-16.021766, -32.043533, 48.065299], rtol=1e-7)
    assert found["stress_ev_per_angstrom3"] == stress.tolist()
    assert atoms_key(as_atoms(found["structure"])) == atoms_key(COPPER)


def test_fields_of_what_is_no_crystal() -> None:
    water, nothing = molecule("H2O"), np.full((3, 3), np.nan)
    found = atomate2_fields(water, -1.0, np.zeros((3, 3)), nothing)
    assert found["stress"] is found["stress_ev_per_angstrom3"] is found["output"]["stress"] is None
    np.testing.assert_allclose(as_atoms(found["structure"]).positions, water.positions)
    slab = Atoms("Cu", cell=[2.5, 2.5, 0.0], pbc=(True, True, False))
    assert atomate2_fields(slab, -1.0, np.zeros((1, 3)), nothing)["structure"] is None


@pytest.mark.mongod
def test_outputs_of_earlier_versions_can_be_built_on(copper: Any) -> None:
    flow = PhononMaker(
        force_field_name=str(copper.checkpoint),
        protocol=PhononProtocol(
            relax=RELAX, displacement=DisplacementProtocol(fc2_supercell=(1, 1, 1)), mesh=(3, 3, 3)
        ),
    ).make(COPPER)
    relax, forces, _ = flow.jobs
    store = job_store(copper.store)
    store.connect()
    relax.run(store)
    (row,) = copper.store.database["jobs"].find({"uuid": relax.uuid})
    bare = {name: row["output"][name] for name in ("kind", "key", "summary")}  # all that there was
    copper.store.database["jobs"].update_one({"uuid": relax.uuid}, {"$set": {"output": bare}})
    forces.run(store)
    assert copper.store.get(forces.metadata["result_key"]).state == "finished"
    store.close()


def test_a_structure_of_another_kind_of_output_is_named_in_the_error() -> None:
    with pytest.raises(StructureError, match="got dict"):
        RelaxMaker(force_field_name="emt").make([{"kind": "relax", "key": "00" * 32}])

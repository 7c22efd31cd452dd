"""Flows in one process: their results, their jobs, and requests that compute nothing again."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from running import run

from esen_flows.errors import ModelError, NotConservativeError, NotConvergedError, NotDifferentiableError
from esen_flows.forcefield.load import load_force_field
from esen_flows.makers.conductivity import ConductivityMaker
from esen_flows.makers.phonon import PhononMaker
from esen_flows.makers.relax import RelaxMaker
from esen_flows.progress import listening
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.lattice_documents import ConductivityOutput, PhononOutput
from esen_flows.schemas.protocols import (
    ConductivityProtocol,
    DisplacementProtocol,
    NumericSettings,
    PhononProtocol,
    RelaxProtocol,
)

COPPER = bulk("Cu", "fcc", a=3.6, cubic=True)
RELAX = RelaxProtocol(fmax_ev_per_angstrom=1e-2, symmetry="fix")
SMALL = {"fc2_supercell": (2, 2, 2), "fc3_supercell": (2, 2, 2)}
CONDUCTIVITY = ConductivityProtocol(
    relax=RELAX, displacement=DisplacementProtocol(order=3, displacement_angstrom=0.03, **SMALL), mesh=(5, 5, 5)
)
PHONON = PhononProtocol(relax=RELAX, displacement=DisplacementProtocol(**SMALL), mesh=(8, 8, 8))


@pytest.mark.mongod
def test_relaxation_and_its_reference(copper: Any) -> None:
    job = RelaxMaker(force_field_name=str(copper.checkpoint), protocol=RELAX, material_ids=("mp-30",)).make(COPPER)
    output = run(job, copper)
    assert output["key"] == job.metadata["result_key"]
    stored = copper.store.get(output["key"])
    assert output["summary"] == stored.summary
    # EMT's own copper: a = 3.5893 Angstrom at the minimum (5.5e-3 above is 0.15 %, what 1e-2 eV/Angstrom leaves).
    assert stored.summary["a_angstrom"] == pytest.approx(3.589, abs=5e-3)
    assert stored.summary["space_group"] == "Fm-3m (225)"
    assert stored.provenance.force_evaluations == copper.force_field.force_evaluations > 0
    assert stored.material_ids == ["mp-30"]
    assert copper.store.get_structure(stored.structure_key) is not None


@pytest.mark.mongod
def test_conductivity_from_atoms_to_document(copper: Any) -> None:
    heard: list[tuple[str, int, int | None]] = []
    maker = ConductivityMaker(force_field_name=str(copper.checkpoint), protocol=CONDUCTIVITY)
    with listening(lambda kind, done, total, words: heard.append((kind, done, total))):
        output = run(maker.make(COPPER), copper)
    stored = copper.store.get(output["key"])
    result = ConductivityOutput.model_validate(stored.output)
    index = list(result.temperatures_kelvin).index(300.0)
    # Cubic: the tensor is a multiple of the identity; summary and document say the same.
    kappa = result.methods["rta"].kappa_w_per_m_k[index]
    np.testing.assert_allclose(kappa[:3], kappa[0], rtol=1e-6)
    assert stored.summary["kappa_rta_w_per_m_k"] == pytest.approx(kappa[0], rel=1e-6)
    assert stored.summary["kappa_wigner_w_per_m_k"] >= stored.summary["kappa_rta_w_per_m_k"]
    assert stored.provenance.force_evaluations == 0  # transport asks no force field
    kinds = [kind for kind, _, _ in heard]
    assert list(dict.fromkeys(kinds)) == ["relax", "forces", "conductivity"]
    last_forces = [(done, total) for kind, done, total in heard if kind == "forces"][-1]
    assert last_forces[0] == last_forces[1] > 0


@pytest.mark.mongod
def test_another_mesh_makes_no_force_call_and_the_same_request_computes_nothing(
    copper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = ConductivityMaker(force_field_name=str(copper.checkpoint), protocol=CONDUCTIVITY)
    first = run(maker.make(COPPER), copper)
    calls = copper.force_field.force_evaluations

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a force field was loaded")

    monkeypatch.setattr("esen_flows.forcefield.load.load_force_field", refuse)
    denser = replace(maker, protocol=CONDUCTIVITY.model_copy(update={"mesh": (6, 6, 6)}))
    other = run(denser.make(COPPER), copper)
    assert other["key"] != first["key"]
    assert run(maker.make(COPPER), copper) == first
    assert copper.force_field.force_evaluations == calls


@pytest.mark.mongod
def test_phonons(copper: Any) -> None:
    output = run(PhononMaker(force_field_name=str(copper.checkpoint), protocol=PHONON).make(COPPER), copper)
    stored = copper.store.get(output["key"])
    result = PhononOutput.model_validate(stored.output)
    assert result.verdict != "unstable"
    # Dulong-Petit, one atom in the cell: 3R = 24.94 J/K/mol, approached from below (copper: Debye at 315 K).
    assert 22.0 < stored.summary["heat_capacity_j_per_k_mol"] < 24.94
    assert stored.summary["temperature_kelvin"] == 300.0


@pytest.mark.mongod
def test_phonons_by_autodiff_are_results_of_their_own(copper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esen_flows.forcefield.load.load_force_field", load_force_field)  # the shipped silicon
    silicon, small = bulk("Si", "diamond", a=5.4666), {"fc2_supercell": (1, 1, 1)}
    found = {}
    for method in ("finite_displacement", "autodiff"):
        displacement = DisplacementProtocol(force_constants=method, **small)
        protocol = PHONON.model_copy(update={"displacement": displacement})
        output = run(PhononMaker(force_field_name="esen_silicon", protocol=protocol).make(silicon), copper)
        forces = copper.store.get(copper.store.get(output["key"]).parent_key)
        assert forces.summary["force_constants"] == method
        assert forces.protocol["force_constants"] == method
        assert forces.summary["displacements_fc2"] == 1
        found[method] = output
    finite, exact = (found[method]["summary"]["max_frequency_thz"] for method in found)
    assert found["finite_displacement"]["key"] != found["autodiff"]["key"]
    assert 0 < abs(exact - finite) < 0.01


@pytest.mark.mongod
def test_a_failed_relaxation_ends_the_flow_and_is_not_computed_again(copper: Any) -> None:
    protocol = CONDUCTIVITY.model_copy(update={"relax": RELAX.model_copy(update={"max_steps": 1})})
    maker = ConductivityMaker(force_field_name=str(copper.checkpoint), protocol=protocol)
    with pytest.raises(NotConvergedError):
        run(maker.make(COPPER), copper)
    calls = copper.force_field.force_evaluations
    with pytest.raises(NotConvergedError, match="stored failure"):
        run(maker.make(COPPER), copper)
    assert copper.force_field.force_evaluations == calls


@pytest.mark.mongod
def test_a_force_field_other_than_the_requested_one_is_refused(copper: Any) -> None:
    job = RelaxMaker(force_field_name=str(copper.checkpoint), protocol=RELAX).make(COPPER)
    copper.force_field.key = "dd" * 32
    with pytest.raises(ModelError, match="has model key dddddddddddd here, the request names cccccccccccc"):
        run(job, copper)
    assert copper.store.get(job.metadata["result_key"]) is None
    copper.force_field.key = "cc" * 32
    single = RelaxMaker(
        force_field_name=str(copper.checkpoint), protocol=RELAX, numeric=NumericSettings(dtype="float32")
    ).make(COPPER)
    with pytest.raises(ModelError, match="computes in float64, the request says float32"):
        run(single, copper)


def test_make_is_repeatable_and_jobs_are_small(header_only_checkpoint: Any) -> None:
    silicon = bulk("Si", cubic=True)
    maker = ConductivityMaker(force_field_name=str(header_only_checkpoint))
    before = maker.as_dict()
    first, second = maker.make(silicon), maker.make(silicon)
    assert maker.as_dict() == before
    keys = [job.metadata["result_key"] for job in first.jobs]
    assert keys == [job.metadata["result_key"] for job in second.jobs]
    assert len(set(keys)) == 3
    # jobflow's own identifiers stay its own: equal ones break flows.
    assert not {job.uuid for job in first.jobs} & {job.uuid for job in second.jobs}
    text = json.dumps([job.as_dict() for job in first.jobs], default=str)
    assert len(text) < 30_000
    assert "mongodb" not in text


def test_only_the_last_job_depends_on_transport_settings(header_only_checkpoint: Any) -> None:
    silicon = bulk("Si", cubic=True)
    maker = ConductivityMaker(force_field_name=str(header_only_checkpoint))
    other = replace(maker, protocol=ConductivityProtocol(mesh=(19, 19, 19)))
    keys, other_keys = ([job.metadata["result_key"] for job in m.make(silicon).jobs] for m in (maker, other))
    assert keys[:2] == other_keys[:2]
    assert keys[2] != other_keys[2]


def test_flows_survive_serialisation(header_only_checkpoint: Any) -> None:
    from monty.json import MontyDecoder, MontyEncoder

    flow = PhononMaker(force_field_name=str(header_only_checkpoint)).make(bulk("Si"))
    restored = MontyDecoder().decode(json.dumps(flow, cls=MontyEncoder))
    assert [job.metadata for job in restored.jobs] == [job.metadata for job in flow.jobs]
    assert [job.maker for job in restored.jobs] == [job.maker for job in flow.jobs]
    assert restored.jobs[0].function_kwargs["structure"] == flow.jobs[0].function_kwargs["structure"]


def test_makers_survive_serialisation(header_only_checkpoint: Any) -> None:
    from monty.json import MontyDecoder, MontyEncoder

    maker = ConductivityMaker(force_field_name=str(header_only_checkpoint), protocol=CONDUCTIVITY)
    restored = MontyDecoder().decode(json.dumps(maker, cls=MontyEncoder))
    assert restored.protocol == maker.protocol
    assert restored.numeric == maker.numeric


def test_a_direct_force_model_gets_no_phonons(direct_checkpoint: Any) -> None:
    for maker in (PhononMaker, ConductivityMaker):
        with pytest.raises(NotConservativeError, match="does not declare"):
            maker(force_field_name=str(direct_checkpoint)).make(bulk("Si"))
    RelaxMaker(force_field_name=str(direct_checkpoint)).make(bulk("Si"))


def test_autodiff_is_refused_by_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esen_flows.schemas.card.version", lambda package: "0.13.0")
    protocol = PHONON.model_copy(update={"displacement": DisplacementProtocol(force_constants="autodiff")})
    with pytest.raises(NotDifferentiableError, match="'sevennet_l3i5' does not have"):
        PhononMaker(force_field_name="sevennet_l3i5", protocol=protocol).make(bulk("Si"))


def test_pymatgen_structures_make_the_same_request(header_only_checkpoint: Any) -> None:
    from pymatgen.core import Lattice, Structure

    from esen_flows.structures.conversion import as_atoms

    structure = Structure(Lattice.cubic(5.43), ["Si"], [[0, 0, 0]])
    job = RelaxMaker(force_field_name=str(header_only_checkpoint)).make(structure)
    assert job.function_kwargs["request"]["structure_key"] == atoms_key(as_atoms(structure))

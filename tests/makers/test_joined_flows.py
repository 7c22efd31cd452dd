"""Flows of our Makers and atomate2's: each takes the other's structures, locally and by rlaunch."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.units import GPa
from copper_stages import crystals, stage
from emt_campaigns import empty_database
from jobflow import Flow, run_locally
from pymatgen.core import Structure

from esen_flows.makers.atomate2 import force_field_maker, phonon_maker
from esen_flows.makers.conductivity import ConductivityMaker
from esen_flows.makers.phonon import PhononMaker
from esen_flows.makers.relax import RelaxMaker
from esen_flows.makers.static import StaticMaker
from esen_flows.makers.training import EvaluateMaker, LabelMaker, TrainMaker
from esen_flows.queue.submit import submit
from esen_flows.schemas.protocols import (
    ConductivityProtocol,
    DisplacementProtocol,
    NumericSettings,
    PhononProtocol,
    RelaxProtocol,
)
from esen_flows.settings import Settings
from esen_flows.store.jobflow_files import write_jobflow_files
from esen_flows.store.jobflow_store import job_store
from esen_flows.store.results import Store
from esen_flows.structures.conversion import to_pymatgen

pytestmark = pytest.mark.mongod
CELL = {"fc2_supercell": (1, 1, 1), "fc3_supercell": (2, 2, 2)}
RELAX = RelaxProtocol(fmax_ev_per_angstrom=0.01)
KAPPA = ConductivityProtocol(relax=RELAX, displacement=DisplacementProtocol(order=3, **CELL), mesh=(3, 3, 3))
PHONON = PhononProtocol(relax=RELAX, displacement=DisplacementProtocol(fc2_supercell=(1, 1, 1)), mesh=(4, 4, 4))
FLOWS = ("kappa", "phonon", "trained")


def copper() -> Structure:
    return to_pymatgen(bulk("Cu", "fcc", a=3.62, cubic=True))


def kappa_of_their_structure() -> Flow:
    """atomate2's relaxation, then our conductivity."""
    from atomate2.forcefields.jobs import ForceFieldRelaxMaker

    relax = force_field_maker(ForceFieldRelaxMaker, "emt", relax_kwargs={"fmax": 0.01}).make(copper())
    kappa = ConductivityMaker(force_field_name="emt", protocol=KAPPA).make(relax.output.structure)
    return Flow([relax, kappa], output=kappa.output, name="kappa")


def phonon_of_their_static_of_our_structure() -> Flow:
    """Our relaxation, then atomate2's static calculation, then our phonons."""
    from atomate2.forcefields.jobs import ForceFieldStaticMaker

    relax = RelaxMaker(force_field_name="emt", protocol=RELAX).make(copper())
    static = force_field_maker(ForceFieldStaticMaker, "emt").make(relax.output.structure)
    phonon = PhononMaker(force_field_name="emt", protocol=PHONON).make(static.output.structure)
    return Flow([relax, static, phonon], output=[relax.output, static.output, phonon.output], name="phonon")


def relaxation_with_what_was_trained() -> Flow:
    """Labels, a training on them, and a relaxation and an evaluation with the force field of that training."""
    label = LabelMaker(force_field_name="emt").make(crystals())
    train = TrainMaker(config=stage(epochs=1)).make(label.output["summary"]["dataset_key"])
    single = {"force_field_name": train.output, "numeric": NumericSettings(dtype="float32")}
    still = RelaxProtocol(relax_cell=False, fmax_ev_per_angstrom=0.01)
    relax = RelaxMaker(protocol=still, **single).make(bulk("Cu", "fcc", a=3.6))
    errors = EvaluateMaker(**single).make(label.output)
    return Flow([label, train, relax, errors], output=[train.output, relax.output, errors.output], name="trained")


MADE = dict(
    zip(
        FLOWS,
        (kappa_of_their_structure, phonon_of_their_static_of_our_structure, relaxation_with_what_was_trained),
        strict=True,
    )
)


@dataclass
class Ran:
    """Outputs of the flows, and where they ran."""

    store: Store
    outputs: dict[str, Any]

    def document(self, reference: Any) -> Any:
        found = self.store.get(reference["key"])
        assert found is not None
        return found


def outputs(flow: Flow, store: Store) -> Any:
    """The output of a flow that has run."""
    jobs = job_store(store)
    jobs.connect()
    found = flow.output if isinstance(flow.output, list) else [flow.output]
    values = [reference.resolve(jobs) for reference in found]
    jobs.close()
    return values if isinstance(flow.output, list) else values[0]


def run_here(flows: dict[str, Flow], store: Store, folder: Path) -> None:
    for flow in flows.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # atomate2's of its dependencies
            run_locally(
                flow, log=False, store=job_store(store), root_dir=str(folder), create_folders=True,
                raise_immediately=True,
            )  # fmt: skip


def run_by_rlaunch(flows: dict[str, Flow], store: Store, folder: Path) -> None:
    for flow in flows.values():
        submit(flow, store=store)
    write_jobflow_files(store.database, folder / "settings")
    program = str(Path(sys.executable).with_name("rlaunch"))
    files = ["-l", str(folder / "settings/my_launchpad.yaml"), "-w", str(folder / "settings/my_fworker.yaml")]
    environment = {**os.environ, "JOBFLOW_CONFIG_FILE": str(folder / "settings/jobflow.yaml"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [program, *files, "rapidfire"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    states = {row["name"]: row["state"] for row in store.database["fireworks"].find()}
    assert set(states.values()) == {"COMPLETED"}, (states, done.stdout[-3000:], done.stderr[-3000:])


@pytest.fixture(scope="module", params=[run_here, run_by_rlaunch])
def ran(
    request: pytest.FixtureRequest, embedded_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ran]:
    """All flows, run in this process and by FireWorks' rlaunch."""
    folder = tmp_path_factory.mktemp("joined")
    with empty_database(embedded_settings) as store:
        flows = {name: make() for name, make in MADE.items()}
        request.param(flows, store, folder)
        yield Ran(store, {name: outputs(flow, store) for name, flow in flows.items()})


def test_conductivity_of_a_structure_that_atomate2_relaxed(ran: Ran) -> None:
    document = ran.document(ran.outputs["kappa"])
    assert (document.kind, document.formula, document.space_group_number) == ("conductivity", "Cu", 225)
    # Of its own relaxation by the same force field, from 3.62 A and to the same 0.01 eV/A, as the structure before.
    assert document.summary["a_angstrom"] == pytest.approx(3.59, abs=0.01)
    assert document.summary["kappa_rta_w_per_m_k"] > 0
    forces = ran.store.get(document.parent_key)
    assert forces is not None
    relaxed = ran.store.get(forces.parent_key)
    assert relaxed is not None
    assert (relaxed.kind, forces.kind) == ("relax", "forces")
    assert {relaxed.structure_key, forces.structure_key} == {document.structure_key}


def test_phonons_of_a_structure_of_theirs_of_ours(ran: Ran) -> None:
    relaxed, static, phonon = ran.outputs["phonon"]
    ours, theirs = relaxed["structure"], static.structure
    apart = theirs.frac_coords - ours.frac_coords
    np.testing.assert_allclose(apart, np.round(apart), atol=1e-10)  # theirs are moved into the cell
    # Names, units and signs are those of atomate2, so that the same force field gives the same numbers.
    assert relaxed["energy"] == pytest.approx(static.output.energy, abs=1e-9)
    np.testing.assert_allclose(relaxed["forces"], static.output.forces, atol=1e-9)
    np.testing.assert_allclose(relaxed["stress"], static.output.stress, atol=1e-6)  # kBar
    assert relaxed["output"]["energy_per_atom"] == pytest.approx(static.output.energy_per_atom, abs=1e-9)
    assert np.trace(relaxed["stress"]) * np.trace(relaxed["stress_ev_per_angstrom3"]) < 0
    np.testing.assert_allclose(
        relaxed["stress"], -10.0 / GPa * np.array(relaxed["stress_ev_per_angstrom3"]), rtol=1e-8, atol=1e-12
    )
    document = ran.document(phonon)
    assert (document.kind, document.summary["verdict"]) == ("phonon", "stable")
    start = ran.store.get_structure(document.structure_key)
    np.testing.assert_allclose(start.positions, theirs.cart_coords, atol=1e-8)


def test_relaxation_and_evaluation_with_a_force_field_of_the_same_flow(ran: Ran) -> None:
    trained, relaxed, errors = ran.outputs["trained"]
    for reference in (relaxed, errors):
        assert ran.document(reference).model_key == trained["summary"]["model_key"]
    assert isinstance(relaxed["structure"], Structure)
    assert relaxed["summary"]["n_steps"] == 0


def test_atomate2s_flow_with_our_makers(embedded_settings: Settings, tmp_path: Path) -> None:
    maker = phonon_maker(
        "emt",
        bulk_relax_maker=RelaxMaker(force_field_name="emt", protocol=RELAX),
        static_energy_maker=StaticMaker(force_field_name="emt"),
        phonon_displacement_maker=StaticMaker(force_field_name="emt", name="displacement"),
        create_thermal_displacements=False,
    )
    flow = maker.make(copper(), supercell_matrix=np.eye(3, dtype=int).tolist())
    with empty_database(embedded_settings) as store:
        run_here({"theirs": flow}, store, tmp_path)
        document = outputs(flow, store)
        results = list(store.database["results"].find())
    assert sorted(row["kind"] for row in results) == ["relax", "static", "static"]  # one displacement
    (relaxed,) = (row for row in results if row["kind"] == "relax")
    assert document.total_dft_energy == pytest.approx(relaxed["summary"]["energy_per_atom_ev"], abs=1e-7)
    assert document.structure.lattice.a < 3.62
    assert document.phonon_bandstructure.bands.max() == pytest.approx(8.0, abs=1.0)  # THz, EMT's copper

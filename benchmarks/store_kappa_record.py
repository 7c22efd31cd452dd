"""What one thermal conductivity of real size costs in the store, and what it would cost stored as atomate2 stores.

    python benchmarks/store_kappa_record.py

writes benchmarks/results/store_kappa_record.json. The crystal is wurtzite AlN with the supercells of PhononDB (72 atoms
for the third order, 300 for the second); displacements, shapes, documents and the way into the database are real, all
numbers of forces, force constants and of the mode table are random float64, which nothing compresses: the worst case.

For atomate2, which has no thermal conductivity flow, one static job of its own ForceFieldStaticMaker (EMT) is run for
one displaced supercell of each size, stored by jobflow, and multiplied; the full third-order force constants are
written as nested lists, as its phonon flow writes those of second order, of one atom and multiplied.
"""

import json
import os
import tempfile
import uuid
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import spglib
from ase import Atoms
from ase.build import bulk
from bson import BSON
from pydantic import BaseModel

from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.schemas.documents import RelaxOutput, ResultDocument, StructureData
from esen_flows.schemas.lattice_documents import ConductivityOutput, ForcesOutput, TransportResult
from esen_flows.schemas.protocols import ConductivityProtocol, DisplacementProtocol, NumericSettings
from esen_flows.schemas.provenance import build_provenance
from esen_flows.schemas.requests import ResultRequest, property_requests
from esen_flows.settings import Settings
from esen_flows.store.connection import open_store
from esen_flows.store.jobflow_store import job_store
from esen_flows.store.results import Store
from esen_flows.store.upkeep.maintenance import size
from esen_flows.structures.identity import identify

MESH = (19, 19, 15)  # of PhononDB's wurtzite crystals
RANDOM = np.random.default_rng(20261121)
LIMIT_BYTES = 15_000_000


class RandomForces(ForceField):
    """Forces that mean nothing, of the size and entropy of real ones."""

    key, label = "00" * 32, "random"
    declaration = Declaration(
        conservative=True, equivariance="O3", differentiable=False, elements=None, dtype="float64"
    )

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        """Random numbers."""
        self.force_evaluations += len(structures)
        return [
            Evaluation(energy=-1.0, forces=RANDOM.normal(0, 0.1, (len(atoms), 3)), stress=np.zeros((3, 3)))
            for atoms in structures
        ]


def conductivity_output(forces: ForcesOutput, protocol: ConductivityProtocol) -> ConductivityOutput:
    """Random numbers in the shapes that these forces and this mesh lead to."""
    n_primitive = round(len(forces.unitcell.numbers) * abs(np.linalg.det(forces.primitive_matrix)))
    n_fc3, n_fc2 = forces.forces_fc3.shape[1], forces.forces_fc2.shape[1]
    unitcell = forces.unitcell
    cell = (unitcell.cell_angstrom, unitcell.to_atoms().get_scaled_positions(), unitcell.numbers)
    mapping, grid = spglib.get_ir_reciprocal_mesh(MESH, cell)
    points, weights = np.unique(mapping, return_counts=True)
    n_q, n_bands, n_t = len(points), 3 * n_primitive, len(protocol.temperatures_kelvin)
    random = RANDOM.random
    return ConductivityOutput(
        structure=unitcell,
        temperatures_kelvin=np.array(protocol.temperatures_kelvin),
        mesh=MESH,
        methods={
            "rta": TransportResult(
                kappa_w_per_m_k=random((n_t, 6)), kappa_particle_w_per_m_k=None, kappa_coherence_w_per_m_k=None
            ),
            "wigner": TransportResult(
                kappa_w_per_m_k=random((n_t, 6)),
                kappa_particle_w_per_m_k=random((n_t, 6)),
                kappa_coherence_w_per_m_k=random((n_t, 6)),
            ),
        },
        frequencies_thz=random((n_q, n_bands)),
        q_points=grid[points] / np.array(MESH),
        q_weights=weights,
        linewidths_thz=random((n_t, n_q, n_bands)),
        group_velocities_m_per_s=random((n_q, n_bands, 3)),
        cumulative_frequencies_thz=random(100),
        cumulative_kappa_w_per_m_k=random(100),
        cumulative_temperature_kelvin=300.0,
        max_frequency_thz=27.0,
        min_frequency_thz=0.0,
        fc2_ev_per_angstrom2=random((n_primitive, n_fc2, 3, 3)),
        fc3_ev_per_angstrom3=random((n_primitive, n_fc3, n_fc3, 3, 3, 3)),
        seconds_force_constants=1.0,
        seconds_transport=1.0,
        phono3py_version=version("phono3py"),
        backend="Rust",
    )


def relax_output(atoms: Atoms) -> RelaxOutput:
    """A relaxation of 40 steps."""
    return RelaxOutput(
        structure=StructureData.from_atoms(atoms),
        energy_ev=-1.0,
        energy_per_atom_ev=-0.25,
        forces_ev_per_angstrom=RANDOM.random((len(atoms), 3)),
        stress_ev_per_angstrom3=RANDOM.random((3, 3)),
        n_steps=40,
        converged=True,
        fmax_ev_per_angstrom=1e-5,
        volume_per_atom_angstrom3=10.4,
        space_group_initial=186,
        space_group_final=186,
        energies_ev=RANDOM.random(41),
    )


def store_result(store: Store, atoms: Atoms, request: ResultRequest, output: BaseModel) -> None:
    """As a job does."""
    claim = store.get_or_claim(request.key)
    document = ResultDocument(
        kind=request.kind,
        key=request.key,
        parent_key=request.parent_key,
        structure_key=request.structure_key,
        model_key=request.model_key,
        model_label="random",
        protocol=request.protocol.model_dump(mode="json"),
        protocol_hash=request.protocol.hash(),
        numeric=request.numeric.model_dump(mode="json"),
        numerics_revision=request.numerics_revision,
        state="finished",
        **identify(atoms),
        output=output.model_dump(),
        provenance=build_provenance(device="cpu", threads=1, seconds=1.0, force_evaluations=1),
        created_at=datetime.now(UTC),
    )
    store.commit(claim, document)


def sizes(store: Store) -> dict[str, dict[str, int]]:
    """Documents' lengths and room on disk with indexes, by collection, after everything is on disk."""
    store.database["results"].database.client.admin.command("fsync")
    return {
        one.name: {"documents": one.documents, "data_bytes": one.data_bytes, "disk_bytes": one.disk_bytes,
                   "index_bytes": one.index_bytes}
        for one in size(store.database)
    }  # fmt: skip


def total(found: dict[str, dict[str, int]], what: str) -> int:
    """Of all collections."""
    return sum(one[what] for one in found.values())


def our_way(settings: Settings, atoms: Atoms) -> tuple[dict[str, Any], ForcesOutput, ConductivityOutput]:
    """One record of three documents, stored as any other."""
    store = open_store(settings)
    empty = sizes(store)
    wurtzite = DisplacementProtocol(
        order=3, displacement_angstrom=0.03, fc3_supercell=(3, 3, 2), fc2_supercell=(5, 5, 3)
    )
    protocol = ConductivityProtocol(displacement=wurtzite, mesh=MESH)
    structure = store.put_structure(atoms)
    requests = property_requests(structure, RandomForces.key, protocol, NumericSettings())
    forces = displaced_forces(atoms, RandomForces(), wurtzite)
    transport = conductivity_output(forces, protocol)
    for request, output in zip(requests, (relax_output(atoms), forces, transport), strict=True):
        store_result(store, atoms, request, output)
    found = sizes(store)
    rows = {row["kind"]: len(BSON.encode(row)) for row in store.database["results"].find()}
    store.database.drop()
    store.close()
    arrays = {
        "forces_fc3": forces.forces_fc3, "forces_fc2": forces.forces_fc2, "fc2": transport.fc2_ev_per_angstrom2,
        "fc3": transport.fc3_ev_per_angstrom3, "linewidths": transport.linewidths_thz,
        "group_velocities": transport.group_velocities_m_per_s,
    }  # fmt: skip
    record = {
        "data_bytes": total(found, "data_bytes") - total(empty, "data_bytes"),
        "disk_bytes_with_indexes": sum(
            total(found, what) - total(empty, what) for what in ("disk_bytes", "index_bytes")
        ),
        "result_documents_bytes": rows,
        "collections": found,
        "arrays": {name: {"shape": list(array.shape), "bytes": array.nbytes} for name, array in arrays.items()},
        "irreducible_q_points": len(transport.q_weights),
    }
    return record, forces, transport


def static_job_bytes(settings: Settings, supercell: Atoms) -> dict[str, int]:
    """What atomate2's own static job of one supercell leaves in the database, and its output as JSON."""
    from atomate2.forcefields.jobs import ForceFieldStaticMaker
    from jobflow import run_locally
    from pymatgen.io.ase import AseAtomsAdaptor

    store = open_store(settings.model_copy(update={"database": f"static_{uuid.uuid4().hex[:8]}"}))
    jobs = job_store(store)
    maker = ForceFieldStaticMaker(force_field_name={"@module": "ase.calculators.emt", "@callable": "EMT"})
    job = maker.make(AseAtomsAdaptor.get_structure(supercell))
    run_locally(job, store=jobs, log=False, ensure_success=True)
    (row,) = store.database["jobs"].find()
    found = {
        "document_bytes": len(BSON.encode(row)),
        "data_bytes": sum(file["length"] for file in store.database["data.files"].find()),
        "json_bytes": len(json.dumps(row["output"], default=str)),
    }
    jobs.close()
    store.database.drop()
    store.close()
    return found


def their_way(settings: Settings, forces: ForcesOutput, fc3: np.ndarray) -> dict[str, Any]:
    """The same record as documents of one job per displacement and nested lists."""
    unitcell = forces.unitcell.to_atoms()
    counts = {"fc3": len(forces.forces_fc3), "fc2": len(forces.forces_fc2)}
    repeats = {"fc3": (3, 3, 2), "fc2": (5, 5, 3)}
    one = {}
    for name, repeat in repeats.items():
        supercell = unitcell * repeat
        supercell.rattle(0.03, seed=1)
        one[name] = static_job_bytes(settings, supercell)
    n_fc3 = fc3.shape[1]
    full_of_one_atom = fc3[0].tolist()
    constants = {
        "elements": n_fc3**3 * 27,
        "float64_bytes": n_fc3**3 * 27 * 8,
        "json_bytes": len(json.dumps(full_of_one_atom)) * n_fc3,
        "bson_bytes": len(BSON.encode({"a": full_of_one_atom})) * n_fc3,
    }
    documents = sum(counts[name] * (one[name]["document_bytes"] + one[name]["data_bytes"]) for name in one)
    as_json = sum(counts[name] * (one[name]["json_bytes"] + one[name]["data_bytes"]) for name in one)
    return {
        "jobs": counts,
        "one_static_job": one,
        "all_static_jobs_bytes": documents,
        "all_static_jobs_json_bytes": as_json,
        "full_fc3": constants,
        "total_bytes": documents + constants["json_bytes"],
    }


def main() -> None:
    """Measure both, and write the result."""
    warnings.simplefilter("ignore")
    atoms = bulk("AlN", "wurtzite", a=3.11, c=4.98, u=0.3815)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # jobflow writes into the working folder
        settings = Settings(mongo_uri=None, mongo_uri_file=None, data_dir=Path(folder), mongod_idle_seconds=60.0)
        ours, forces, transport = our_way(settings, atoms)
        theirs = their_way(settings, forces, transport.fc3_ev_per_angstrom3)
        from esen_flows.store.server import embedded

        embedded.stop(settings, force=True)
        os.chdir(Path(__file__).parent)
    result = {
        "crystal": "wurtzite AlN, P6_3mc, 4 atoms",
        "atoms_fc3": forces.forces_fc3.shape[1],
        "atoms_fc2": forces.forces_fc2.shape[1],
        "mesh": MESH,
        "numbers": "random float64: the worst case for compression",
        "esen_flows": ours,
        "atomate2": theirs,
        "times_larger": theirs["total_bytes"] / ours["data_bytes"],
        "limit_bytes": LIMIT_BYTES,
        "device": "cpu",
        "load_average": os.getloadavg(),
        "versions": {name: version(name) for name in ("esen_flows", "atomate2", "jobflow", "phono3py", "pymongo")},
    }
    assert ours["data_bytes"] <= LIMIT_BYTES
    assert ours["disk_bytes_with_indexes"] <= LIMIT_BYTES
    target = Path(__file__).parent / "results" / "store_kappa_record.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

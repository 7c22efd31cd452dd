"""Phonons of silicon by atomate2's own PhononMaker and by ours, with the same force field and the same 64 atoms.

    python benchmarks/atomate2_phonon.py

writes benchmarks/results/atomate2_phonon.json. Both flows start from one strained cell and relax it themselves;
frequencies are compared along atomate2's band path, thermal properties at three temperatures (phonopy's from atomate2's
force constants, and atomate2's own from its density of states). Times are of the flows after their imports.
"""

import json
import os
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bson
import numpy as np
from ase.build import bulk
from jobflow import Flow, JobStore, run_locally
from maggma.stores import MemoryStore
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.io.ase import AseAtomsAdaptor

from esen_flows.forcefield.load import load_force_field
from esen_flows.makers.atomate2 import phonon_maker
from esen_flows.makers.phonon import PhononMaker
from esen_flows.physics.lattice.harmonic import HarmonicLattice
from esen_flows.schemas.lattice_documents import ForcesOutput, PhononOutput
from esen_flows.schemas.protocols import DisplacementProtocol, PhononProtocol, RelaxProtocol
from esen_flows.settings import get_settings
from esen_flows.store.connection import open_store
from esen_flows.store.jobflow_store import job_store
from esen_flows.store.server.embedded import stop

RESULT = Path(__file__).parent / "results" / "atomate2_phonon.json"
STRUCTURE = bulk("Si", "diamond", a=5.45, cubic=True)
DISPLACEMENT_ANGSTROM, SUPERCELL, MESH = 0.01, (2, 2, 2), (20, 20, 20)
TEMPERATURES = (100.0, 300.0, 490.0)
OURS = PhononProtocol(
    relax=RelaxProtocol(fmax_ev_per_angstrom=1e-5),
    displacement=DisplacementProtocol(
        displacement_angstrom=DISPLACEMENT_ANGSTROM, fc2_supercell=SUPERCELL, parity="as_is"
    ),
    mesh=MESH,
    temperatures_kelvin=TEMPERATURES,
)


def main() -> None:
    """Run both and write what differs."""
    warnings.simplefilter("ignore")
    load_force_field("esen_silicon").evaluate([STRUCTURE])  # imports and first calls count for neither
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ESEN_FLOWS_DATA_DIR"] = folder
        document, atomate2 = by_atomate2(Path(folder))
        forces, phonons, ours = by_us()
        stop(get_settings(), force=True)
    bands = document.phonon_bandstructure
    frequencies = HarmonicLattice(forces).modes(np.array([point.frac_coords for point in bands.qpoints]))[0].T
    thermal = thermal_of(document)
    result = {
        "what": "Si, 64 atoms, esen_silicon (float64), displacement 0.01 A, not averaged over inversion",
        "largest_difference_of_frequencies_thz": float(np.abs(frequencies - bands.bands).max()),
        "highest_frequency_thz": {"atomate2": float(bands.bands.max()), "ours": phonons.max_frequency_thz},
        "temperatures_kelvin": TEMPERATURES,
        "heat_capacity_j_per_k_mol": {**thermal["heat_capacity"], "ours": phonons.heat_capacity_j_per_k_mol.tolist()},
        "entropy_j_per_k_mol": {**thermal["entropy"], "ours": phonons.entropy_j_per_k_mol.tolist()},
        "atomate2": atomate2,
        "ours": ours,
        "device": "cpu, one thread",
        "load_average": os.getloadavg(),
        "versions": {name: version(name) for name in ("atomate2", "jobflow", "phonopy", "torch", "esen_flows")},
        "date": time.strftime("%Y-%m-%d"),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(RESULT.read_text())


def by_atomate2(folder: Path) -> tuple[Any, dict[str, float]]:
    """Its PhononBSDOSDoc, and what the flow cost."""
    structure = AseAtomsAdaptor.get_structure(STRUCTURE)
    flow = phonon_maker(displacement=DISPLACEMENT_ANGSTROM).make(
        structure, supercell_matrix=np.diag(SUPERCELL).tolist()
    )
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    began = time.process_time()
    responses = run_locally(
        flow, log=False, store=store, root_dir=str(folder), create_folders=True, raise_immediately=True
    )
    seconds = time.process_time() - began
    rows = [*store.docs_store.query(), *store.additional_stores["data"].query()]
    return responses[flow.jobs[-1].uuid][1].output, cost(len(responses), seconds, rows)


def by_us() -> tuple[ForcesOutput, PhononOutput, dict[str, float]]:
    """Forces, phonons, and what the flow cost."""
    store = open_store()
    flow: Flow = PhononMaker(force_field_name="esen_silicon", protocol=OURS).make(STRUCTURE)
    began = time.process_time()
    run_locally(flow, log=False, store=job_store(store), raise_immediately=True)
    seconds = time.process_time() - began
    documents = [store.get(job.metadata["result_key"]) for job in flow.jobs]
    rows = [row for name in store.database.collection_names() for row in store.database[name].find()]
    store.close()
    found = [document.output for document in documents if document is not None]
    return (
        ForcesOutput.model_validate(found[1]),
        PhononOutput.model_validate(found[2]),
        cost(len(flow.jobs), seconds, rows),
    )


def cost(jobs: int, seconds: float, rows: list[Any]) -> dict[str, float]:
    """Jobs, CPU seconds and stored bytes."""
    return {"jobs": jobs, "cpu_seconds": seconds, "stored_bytes": sum(len(bson.encode(row)) for row in rows)}


def thermal_of(document: Any) -> dict[str, dict[str, list[float]]]:
    """From atomate2's document: phonopy's from its force constants, and its own, for the primitive cell."""
    cell = document.structure
    lattice = Phonopy(
        PhonopyAtoms(
            symbols=[site.specie.symbol for site in cell], cell=cell.lattice.matrix, scaled_positions=cell.frac_coords
        ),
        supercell_matrix=document.supercell_matrix,
        primitive_matrix=document.primitive_matrix,
    )
    lattice.force_constants = np.array(document.force_constants.force_constants)
    lattice.run_mesh(MESH)
    lattice.run_thermal_properties(temperatures=TEMPERATURES)
    found = lattice.get_thermal_properties_dict()
    places = [document.temperatures.index(int(temperature)) for temperature in TEMPERATURES]
    atoms = len(lattice.primitive)  # atomate2 counts per formula unit, which is one atom here
    return {
        name: {
            "phonopy_of_atomate2": found[name].tolist(),
            "atomate2": [atoms * own[place] for place in places],
        }
        for name, own in (("heat_capacity", document.heat_capacities), ("entropy", document.entropies))
    }


if __name__ == "__main__":
    main()

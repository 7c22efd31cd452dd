"""The force stage of a wurtzite crystal's conductivity: supercells in batches beside ASE one by one.

    python benchmarks/force_stage.py --data FOLDER [--model esen_nano] [--material mp-2133] [--count 60]

The first `count` of the displaced supercells that `phonondb-v1` asks of a PhononDB crystal (ZnO in wurtzite: 1,254 of
72 atoms), evaluated by one force field in float32 on one thread: through `evaluate` (energies, forces, stresses in
batches), and through an ASE calculator, one `get_forces` a supercell. CPU seconds, and the largest difference of a
force component. Result in benchmarks/results/force_stage.json.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from ase.io import read

from esen_flows.forcefield.ase_calculator import ForceFieldCalculator
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.lattice.adapter import plan_displacements
from esen_flows.schemas.property_lookup import named_protocol

RESULT = Path(__file__).parent / "results/force_stage.json"


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="esen_nano")
    parser.add_argument("--material", default="mp-2133")
    parser.add_argument("--count", type=int, default=60)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    structures = read(asked.data / "phononDB-PBE-structures.extxyz", ":")
    atoms = next(one for one in structures if one.info["mp_id"] == asked.material)
    protocol = named_protocol("conductivity", "phonondb-v1", atoms.info).displacement
    plans = plan_displacements(
        atoms,
        np.array(protocol.fc2_supercell),
        np.array(protocol.fc3_supercell),
        protocol.displacement_angstrom,
        protocol.symprec_angstrom,
    )
    assert plans.fc3 is not None  # a plan for conductivity
    supercells = plans.fc3.supercells
    chosen = supercells[: asked.count]
    force_field = load_force_field(asked.model, dtype="float32")
    force_field.evaluate(chosen[:2])
    start = time.process_time()
    batched = [result.forces for result in force_field.evaluate(chosen)]
    seconds = time.process_time() - start
    serial, start = [], time.process_time()
    calculator = ForceFieldCalculator(load_force_field(asked.model, dtype="float32"))
    for supercell in chosen:
        work = supercell.copy()
        work.calc = calculator
        serial.append(work.get_forces())
    serial_seconds = time.process_time() - start
    document = {
        "model": asked.model,
        "material": f"{atoms.info['name']} ({asked.material}, space group {atoms.info['symm.no']})",
        "supercells_of_the_protocol": len(supercells),
        "atoms": len(chosen[0]),
        "supercells_measured": len(chosen),
        "cpu_seconds_batched": round(seconds, 2),
        "cpu_seconds_ase_one_by_one": round(serial_seconds, 2),
        "ratio": round(serial_seconds / seconds, 2),
        "largest_force_difference_ev_per_angstrom": float(np.abs(np.array(batched) - np.array(serial)).max()),
        "cpu_seconds_of_all_extrapolated": round(seconds * len(supercells) / len(chosen)),
    }
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

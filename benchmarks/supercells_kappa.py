"""kappa of silicon from the 111 DFT supercells of phono3py's Si-PBE example, by DFT and by force fields on the same.

    python benchmarks/supercells_kappa.py nequix_mp_pft --folder ../shared/data/phono3py/Si-PBE

writes benchmarks/results/supercells_kappa_<model>.json. All but the forces is fixed: the DFT cell, fc2 and fc3 from
the same displaced 64-atom supercells, RTA at 300 K, mesh 11^3, no isotopes.
"""

import argparse
import json
import os
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import phono3py
from ase import Atoms

from esen_flows.forcefield.load import load_force_field
from esen_flows.schemas.card import resolve_model

RESULTS = Path(__file__).parent / "results"


def kappa(folder: Path, forces: np.ndarray) -> float:
    """RTA conductivity at 300 K in W/m/K from the forces (eV/Angstrom) of the example's displaced supercells."""
    crystal = phono3py.load(folder / "phono3py_disp.yaml", produce_fc=False, log_level=0)
    crystal.forces = forces
    crystal.produce_fc2()
    crystal.symmetrize_fc2()
    crystal.produce_fc3()
    crystal.symmetrize_fc3()
    crystal.mesh_numbers = [11, 11, 11]
    crystal.init_phph_interaction()
    crystal.run_thermal_conductivity(temperatures=[300.0])
    return float(crystal.thermal_conductivity.kappa[0, 0, :3].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    crystal = phono3py.load(
        arguments.folder / "phono3py_disp.yaml",
        forces_fc3_filename=arguments.folder / "FORCES_FC3",
        produce_fc=False,
        log_level=0,
    )
    cells = crystal.supercells_with_displacements
    structures = [Atoms(c.symbols, cell=c.cell, scaled_positions=c.scaled_positions, pbc=True) for c in cells]
    dft = np.array(crystal.forces)
    of_dft = kappa(arguments.folder, dft)
    print(f"DFT: {of_dft:.2f} W/m/K from {len(cells)} supercells", flush=True)
    for name in arguments.models:
        reference = resolve_model(name)
        force_field = load_force_field(reference.location, dtype=reference.dtype or "float64")
        cpu, begin = os.times(), time.perf_counter()
        results = force_field.evaluate(structures)
        seconds, after = time.perf_counter() - begin, os.times()
        forces = np.array([result.forces for result in results])
        found = {
            "model": name,
            "model_key": force_field.key,
            "dtype": force_field.declaration.dtype,
            "supercells": len(structures),
            "kappa_rta_w_per_m_k": kappa(arguments.folder, forces),
            "dft_kappa_rta_w_per_m_k": of_dft,
            "force_rmse_mev_per_angstrom": 1000 * float(np.sqrt(np.mean((forces - dft) ** 2))),
            "force_slope_on_dft": float((forces * dft).sum() / (dft * dft).sum()),
            "seconds": seconds,
            "cpu_seconds_of_this_process": after.user + after.system - cpu.user - cpu.system,
            "load_average": os.getloadavg(),
            "versions": {package: version(package) for package in ("phono3py", "phonopy", "numpy", "ase")},
        }
        (RESULTS / f"supercells_kappa_{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()

"""Elastic moduli of random binaries by a general force field beside the Materials Project's.

    python benchmarks/elastic.py --model chgnet --data FOLDER [--count 30]

FOLDER holds mp-binary-pbe-elasticity-2025.1.json.gz (matcalc, BSD-3; Materials Project, CC-BY-4.0). The first binaries
of a random order with at most `MOST_ATOMS` atoms; strains of 0.5 and 1 % with both signs, positions relaxed. A crystal
whose relaxation fails is listed with the reason. Results in benchmarks/results/elastic_<model>.json, written after each
crystal.
"""

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from esen_flows.errors import EsenFlowsError
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.elastic import elastic_tensor, strained_stresses
from esen_flows.physics.relax import relax
from esen_flows.schemas.elastic import StrainProtocol
from esen_flows.schemas.protocols import RelaxProtocol

RESULTS = Path(__file__).parent / "results"
MOST_ATOMS, SEED = 6, 0
RELAX = RelaxProtocol(fmax_ev_per_angstrom=1e-3, symmetry="lock", optimizer="lbfgs")
STRAIN = StrainProtocol(relax=RelaxProtocol(fmax_ev_per_angstrom=1e-3, relax_cell=False, optimizer="lbfgs"))


def main() -> None:
    """Compute, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="chgnet")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=30)
    asked = parser.parse_args()
    with gzip.open(asked.data / "mp-binary-pbe-elasticity-2025.1.json.gz") as packed:
        entries = [each for each in json.load(packed) if len(each["structure"]["sites"]) <= MOST_ATOMS]
    order = np.random.default_rng(SEED).permutation(len(entries))[: asked.count]
    force_field, rows = load_force_field(asked.model), []
    for number in order:
        rows.append(row := measured(entries[number], force_field))
        print(json.dumps(row), flush=True)
        result = {"model": asked.model, "seed": SEED, "most_atoms": MOST_ATOMS, **errors(rows), "crystals": rows}
        (RESULTS / f"elastic_{asked.model}.json").write_text(json.dumps(result, indent=1) + "\n")


def measured(entry: dict[str, Any], force_field: ForceField) -> dict[str, Any]:
    """Moduli of one crystal, or why there are none."""
    structure = entry["structure"]
    symbols = [site["species"][0]["element"] for site in structure["sites"]]
    fractions = [site["abc"] for site in structure["sites"]]
    atoms = Atoms(symbols, scaled_positions=fractions, cell=structure["lattice"]["matrix"], pbc=True)
    known = {"mp_id": entry["mp_id"], "formula": entry["formula"], "atoms": len(atoms)}
    known |= {"k_dft_gpa": entry["bulk_modulus_vrh"], "g_dft_gpa": entry["shear_modulus_vrh"]}
    began = time.perf_counter()
    try:
        start = relax(atoms, force_field, RELAX).structure.to_atoms()
        found = elastic_tensor(strained_stresses(start, force_field, STRAIN))
    except EsenFlowsError as error:
        return {**known, "failure": f"{type(error).__name__}: {error}"}
    return {
        **known,
        "k_gpa": round(found.bulk_modulus_gpa, 2),
        "k_interval_gpa": round(found.bulk_modulus_interval_gpa, 2),
        "g_gpa": round(found.shear_modulus_gpa, 2),
        "g_interval_gpa": round(found.shear_modulus_interval_gpa, 2),
        "independent": found.independent,
        "stable": found.stable,
        "seconds": round(time.perf_counter() - began, 1),
    }


def errors(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Errors of the stable crystals."""
    stable = [row for row in rows if row.get("stable")]
    found: dict[str, Any] = {"finished": sum("k_gpa" in row for row in rows), "stable": len(stable)}
    for name in ("k", "g"):
        differences = np.array([row[f"{name}_gpa"] - row[f"{name}_dft_gpa"] for row in stable])
        if len(differences):
            found[f"{name}_mean_absolute_error_gpa"] = round(float(np.abs(differences).mean()), 2)
            found[f"{name}_median_absolute_error_gpa"] = round(float(np.median(np.abs(differences))), 2)
            found[f"{name}_mean_error_gpa"] = round(float(differences.mean()), 2)
    return found


if __name__ == "__main__":
    main()

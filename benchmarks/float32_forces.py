"""Forces in float32 against float64: how far a relaxation may go in single precision.

    python benchmarks/float32_forces.py --output benchmarks/results/float32_forces.json

Rattled cells (0.1 Angstrom, fixed seed) of the shipped networks: the largest and the root-mean-square difference of
force components, beside the largest force.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from esen_flows.forcefield.load import load_force_field

CELLS = {
    "esen_silicon": [("Si", "diamond", 5.43, 1), ("Si", "diamond", 5.43, 3)],
    "esen_nano": [("MgO", "rocksalt", 4.21, 1), ("NaCl", "rocksalt", 5.64, 1), ("NaCl", "rocksalt", 5.64, 3)],
}


def difference(name: str, atoms: Atoms) -> dict[str, Any]:
    """Differences of the forces of one structure in eV/Angstrom."""
    single, double = (
        load_force_field(name, dtype=dtype).evaluate([atoms])[0].forces for dtype in ("float32", "float64")
    )
    off = np.abs(np.asarray(single, float) - double)
    return {
        "model": name,
        "formula": atoms.get_chemical_formula(),
        "atoms": len(atoms),
        "largest_force": float(np.abs(double).max()),
        "largest_difference": float(off.max()),
        "rms_difference": float(np.sqrt((off**2).mean())),
    }


def main() -> None:
    """Read the command line, compute and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    output = parser.parse_args().output
    rows = []
    for name, cells in CELLS.items():
        for symbols, lattice, a, times in cells:
            atoms = bulk(symbols, lattice, a, cubic=True) * (times, times, times)
            atoms.rattle(0.1, seed=times)
            rows.append(difference(name, atoms))
            print(rows[-1])
    output.write_text(json.dumps({"unit": "eV/Angstrom", "rattle_angstrom": 0.1, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""SevenNet-0 and CHGNet in this process and in a child: the same numbers, in float64 and float32.

    python benchmarks/calculator_equality.py --python /path/to/environment/bin/python

writes benchmarks/results/calculator_equality.json. Run it in an environment with sevenn and chgnet; --python is the
interpreter of the child, which may be the same. In float32 the child runs the packages' own calculators, one structure
after the other, where this process evaluates batches.
"""

import argparse
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.environments import install
from esen_flows.forcefield.load import load_force_field
from esen_flows.schemas.card import find_card

HERE = Path(__file__).resolve().parent


def structures() -> list[Atoms]:
    found = [
        bulk("Si", cubic=True),
        bulk("NaCl", "rocksalt", a=5.64, cubic=True),
        bulk("GaAs", "zincblende", a=5.75).repeat(2),
        bulk("Fe", a=2.83, cubic=True).repeat((3, 1, 1)),
    ]
    for seed, atoms in enumerate(found):
        atoms.rattle(0.05, seed=seed)
    return found


def deviations(first: ForceField, second: ForceField) -> dict[str, float]:
    """Largest differences: energy per atom (eV), forces (eV/Angstrom), stress (eV/Angstrom^3)."""
    cells = structures()
    pairs = list(zip(cells, first.evaluate(cells), second.evaluate(cells), strict=True))
    return {
        "energy_ev_per_atom": max(abs(one.energy - other.energy) / len(cell) for cell, one, other in pairs),
        "forces_ev_per_angstrom": max(float(np.abs(one.forces - other.forces).max()) for _, one, other in pairs),
        "stress_ev_per_angstrom3": max(float(np.abs(one.stress - other.stress).max()) for _, one, other in pairs),
        "largest_force_ev_per_angstrom": max(float(np.abs(one.forces).max()) for _, one, _ in pairs),
        "largest_energy_ev": max(abs(one.energy) for _, one, _ in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    python = parser.parse_args().python
    found: dict[str, object] = {}
    for name in ("sevennet_0", "chgnet"):
        path = HERE / "calculators" / f"{name}.yaml"
        install(find_card(str(path))[0], python=python)
        for dtype in ("float64", "float32"):
            here, apart = load_force_field(name, dtype=dtype), load_force_field(path, dtype=dtype)
            row = deviations(here, apart)
            found[f"{name} {dtype}"] = {**row, "same_key": here.key == apart.key, "model_key": here.key}
            print(name, dtype, json.dumps(found[f"{name} {dtype}"]), flush=True)
    found["versions"] = {package: version(package) for package in ("torch", "sevenn", "chgnet", "ase", "numpy")}
    found["load_average"] = os.getloadavg()
    (HERE / "results" / "calculator_equality.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What an orientation error does to relaxations: free and locked ones of PhononDB's 103 crystals, randomly turned.

    python benchmarks/orientation_lock.py --data FOLDER [--model chgnet] [--amplitude 0.005]

The force field gets an artificial error: a harmonic of degree 4 of each atom's neighbours about axes fixed in space
(`tests/orientation_error.py`), so that it no longer knows the symmetry of a crystal. FOLDER holds
phononDB-PBE-structures.extxyz. Every crystal is turned by a random rotation and relaxed with its cell (FIRE, 1e-3
eV/Angstrom, at most --steps steps), free and locked; its space group before (symprec 0.01) and after (1e-2 and 1e-5) is
spglib's. Written to benchmarks/results/orientation_lock_<model>.json.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from ase.io import read

from esen_flows.errors import EsenFlowsError
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.relax import relax_many
from esen_flows.physics.symmetry import space_group_number
from esen_flows.schemas.protocols import RelaxProtocol

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from orientation_error import OrientationError  # noqa: E402
from symmetry_lock import turned  # noqa: E402


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="chgnet")
    parser.add_argument("--amplitude", type=float, default=0.005, help="size of the error in eV")
    parser.add_argument("--steps", type=int, default=150)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    inner = load_force_field(asked.model, dtype="float32")
    force_field = OrientationError(inner, asked.amplitude)
    crystals = [
        turned(one, number) for number, one in enumerate(read(asked.data / "phononDB-PBE-structures.extxyz", ":"))
    ]
    rows = [{"name": atoms.info["name"], "space_group": space_group_number(atoms, 0.01)} for atoms in crystals]
    bare, wrong = inner.evaluate(crystals), force_field.evaluate(crystals)
    stress = [np.sqrt(np.mean((a.stress - b.stress) ** 2)) for a, b in zip(bare, wrong, strict=True)]
    energy = [abs(a.energy - b.energy) / len(b.forces) for a, b in zip(bare, wrong, strict=True)]
    result = {
        "force_field": inner.label,
        "amplitude_ev": asked.amplitude,
        "error_energy_ev_per_atom": float(np.mean(energy)),
        "error_stress_ev_per_angstrom3": float(np.mean(stress)),
        "max_steps": asked.steps,
        "crystals_total": len(rows),
    }
    for symmetry in ("lock", "free"):
        start, before = time.process_time(), force_field.force_evaluations
        protocol = RelaxProtocol(max_steps=asked.steps, symmetry=symmetry, keep_unconverged=True)
        steps = 0
        for index, outcome in relax_many(crystals, force_field, protocol):
            if isinstance(outcome, EsenFlowsError):
                rows[index][symmetry] = f"{type(outcome).__name__}: {outcome}"
                continue
            last, steps = outcome.structure.to_atoms(), steps + outcome.n_steps + 1
            groups = {f"{symmetry}_{digits}": space_group_number(last, symprec) for digits, symprec in SYMPRECS.items()}
            rows[index].update(groups | {f"steps_{symmetry}": outcome.n_steps})
        result[symmetry] = {
            **{f"kept_at_{d}": sum(row.get(f"{symmetry}_{d}") == row["space_group"] for row in rows) for d in SYMPRECS},
            "steps": steps,
            "evaluations": force_field.force_evaluations - before,
            "cpu_seconds": time.process_time() - start,
        }
        result["crystals"] = rows
        (ROOT / "benchmarks" / "results" / f"orientation_lock_{asked.model}.json").write_text(
            json.dumps(result, indent=1) + "\n"
        )
    print(json.dumps({name: value for name, value in result.items() if name != "crystals"}, indent=1))


SYMPRECS = {"1e-2": 1e-2, "1e-5": 1e-5}

if __name__ == "__main__":
    main()

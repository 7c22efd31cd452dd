"""What an orientation error does to relaxations: free and locked ones of PhononDB's 103 crystals, randomly turned.

    python benchmarks/orientation_lock.py --data FOLDER [--model spheres] [--amplitude 0.005]

The force field gets an artificial error: a harmonic of degree 4 of each atom's neighbours about axes fixed in space
(`tests/orientation_error.py`), so that it no longer knows the symmetry of a crystal. FOLDER holds
phononDB-PBE-structures.extxyz. Every crystal is turned by a random rotation and relaxed with its cell (FIRE, 1e-3
eV/Angstrom, at most --steps steps) with `symmetry=lock` and `symmetry=free`; its space group before (symprec 0.01) and
after (1e-2 and 1e-5) is spglib's. Written to benchmarks/results/orientation_lock_<model>.json.

The default force field, "spheres", is a stand-in that covers all elements and costs nothing: a Lennard-Jones potential
whose lengths are sums of covalent radii. It is no model of any of the crystals; what is measured, whether the layer
keeps a space group that the forces break, does not depend on that. `--model chgnet` took 46 CPU seconds locked and
131 free, with 60 steps.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import covalent_radii
from ase.io import read

from esen_flows.data.neighbors import neighbor_pairs
from esen_flows.errors import EsenFlowsError
from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.relax import relax_many
from esen_flows.physics.symmetry import space_group_number
from esen_flows.schemas.protocols import RelaxProtocol
from esen_flows.structures.inputs import AnyStructures, as_structures

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from orientation_error import OrientationError  # noqa: E402
from symmetry_lock import turned  # noqa: E402

SYMPRECS = {"1e-2": 1e-2, "1e-5": 1e-5}
CUTOFF_ANGSTROM, WELL_EV = 5.0, 0.3


class Spheres(ForceField):
    """Lennard-Jones potential with an envelope, minimum of a pair at the sum of covalent radii."""

    key, label = "spheres", "spheres"
    declaration = Declaration(True, "O3", False, None, "float64", cutoff_angstrom=CUTOFF_ANGSTROM)

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        """Energies, forces and stresses."""
        given = as_structures(structures)
        self.force_evaluations += len(given)
        return [self._one(atoms) for atoms in given]

    def _one(self, atoms: Any) -> Evaluation:
        pairs = neighbor_pairs(atoms, CUTOFF_ANGSTROM)
        i, j, vectors = pairs.target.numpy(), pairs.source.numpy(), pairs.vectors.numpy()
        radii, r = covalent_radii[atoms.numbers], np.linalg.norm(vectors, axis=1)
        sixth = ((radii[i] + radii[j]) / r) ** 6
        window, slope = (1 - (r / CUTOFF_ANGSTROM) ** 2) ** 3, -6 * r * (1 - (r / CUTOFF_ANGSTROM) ** 2) ** 2
        bare, steep = WELL_EV * (sixth**2 - 2 * sixth), WELL_EV * 12 * (sixth - sixth**2) / r
        gradients = ((steep * window + bare * slope / CUTOFF_ANGSTROM**2) / r / 2)[:, None] * vectors
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i, gradients)
        np.add.at(forces, j, -gradients)
        return Evaluation(float((bare * window).sum()) / 2, forces, vectors.T @ gradients / atoms.get_volume())


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="spheres")
    parser.add_argument("--amplitude", type=float, default=0.005, help="size of the error in eV")
    parser.add_argument("--steps", type=int, default=25)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    inner = Spheres() if asked.model == "spheres" else load_force_field(asked.model, dtype="float32")
    force_field = OrientationError(inner, asked.amplitude)
    given = read(asked.data / "phononDB-PBE-structures.extxyz", ":")
    crystals = [turned(one, number) for number, one in enumerate(given)]
    rows = [{"name": atoms.info["name"], "space_group": space_group_number(atoms, 0.01)} for atoms in crystals]
    both = list(zip(inner.evaluate(crystals), force_field.evaluate(crystals), strict=True))
    result: dict[str, Any] = {
        "force_field": inner.label,
        "amplitude_ev": asked.amplitude,
        "error_mean_abs_energy_ev_per_atom": float(
            np.mean([abs(a.energy - b.energy) / len(a.forces) for a, b in both])
        ),
        "error_rms_force_ev_per_angstrom": float(
            np.sqrt(np.mean(np.concatenate([(a.forces - b.forces).ravel() for a, b in both]) ** 2))
        ),
        "error_rms_stress_ev_per_angstrom3": float(np.sqrt(np.mean([(a.stress - b.stress) ** 2 for a, b in both]))),
        "max_steps": asked.steps,
        "crystals_total": len(rows),
    }
    for symmetry in ("lock", "free"):
        result[symmetry] = _relaxed(symmetry, crystals, force_field, rows, asked.steps)
        result["crystals"] = rows
        path = ROOT / "benchmarks" / "results" / f"orientation_lock_{asked.model}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "crystals"}, indent=1))


def _relaxed(
    symmetry: str, crystals: list[Any], force_field: ForceField, rows: list[Any], steps: int
) -> dict[str, Any]:
    """Space groups after relaxations, written into the rows, and their number and cost."""
    start, before, done = time.process_time(), force_field.force_evaluations, 0
    protocol = RelaxProtocol(max_steps=steps, symmetry=symmetry, keep_unconverged=True)
    for index, outcome in relax_many(crystals, force_field, protocol):
        if isinstance(outcome, EsenFlowsError):
            rows[index][f"error_{symmetry}"] = f"{type(outcome).__name__}: {outcome}"
            continue
        last, done = outcome.structure.to_atoms(), done + outcome.n_steps
        rows[index].update({f"{symmetry}_{name}": space_group_number(last, one) for name, one in SYMPRECS.items()})
        rows[index][f"steps_{symmetry}"] = outcome.n_steps
    kept = {
        f"kept_at_{name}": sum(row.get(f"{symmetry}_{name}") == row["space_group"] for row in rows) for name in SYMPRECS
    }
    cost = {"steps": done, "evaluations": force_field.force_evaluations - before, "cpu_s": time.process_time() - start}
    return kept | cost


if __name__ == "__main__":
    main()

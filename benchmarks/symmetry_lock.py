"""Which relaxations keep the space group: free and locked, of PhononDB's 103 crystals in random orientations.

    python benchmarks/symmetry_lock.py --data FOLDER [--model chgnet]

FOLDER holds phononDB-PBE-structures.extxyz. Every crystal is turned by a random rotation and relaxed with its cell
(FIRE on FrechetCellFilter, 1e-3 eV/Angstrom, at most 300 steps) with `symmetry=free` and `symmetry=lock`; its space
group before (symprec 0.01) and after (1e-5) is spglib's. Written to benchmarks/results/symmetry_lock_<model>.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from scipy.spatial.transform import Rotation

from esen_flows.errors import EsenFlowsError
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.relax import relax_many
from esen_flows.physics.symmetry import space_group_number
from esen_flows.schemas.protocols import RelaxProtocol

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="chgnet")
    parser.add_argument("--dtype", default="float32")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    force_field = load_force_field(asked.model, dtype=asked.dtype)
    known = force_field.declaration.elements
    crystals = [
        turned(atoms, number) for number, atoms in enumerate(read(asked.data / "phononDB-PBE-structures.extxyz", ":"))
    ]
    crystals = [atoms for atoms in crystals if known is None or set(atoms.numbers.tolist()) <= known]
    before = [space_group_number(atoms, 0.01) for atoms in crystals]
    rows = [{"name": a.info["name"], "space_group": group} for a, group in zip(crystals, before, strict=True)]
    for symmetry in ("lock", "free"):
        protocol = RelaxProtocol(max_steps=300, symmetry=symmetry, keep_unconverged=True)
        for index, outcome in relax_many(crystals, force_field, protocol):
            if isinstance(outcome, EsenFlowsError):
                rows[index][symmetry] = f"{type(outcome).__name__}: {outcome}"
                continue
            group = space_group_number(outcome.structure.to_atoms(), 1e-5)
            rows[index].update({symmetry: group, f"steps_{symmetry}": outcome.n_steps})
            rows[index][f"energy_ev_per_atom_{symmetry}"] = outcome.energy_per_atom_ev
    kept = {name: sum(row[name] == row["space_group"] for row in rows) for name in ("lock", "free")}
    result = {"force_field": force_field.label, "crystals_total": len(rows), "kept": kept, "crystals": rows}
    (RESULTS / f"symmetry_lock_{asked.model}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{force_field.label}: of {len(rows)} crystals, {kept['lock']} locked and {kept['free']} free ones keep theirs"
    )


def turned(atoms: Atoms, seed: int) -> Atoms:
    """The crystal in a random orientation."""
    result = atoms.copy()
    rotation = Rotation.random(random_state=seed).as_matrix()
    result.set_cell(np.asarray(atoms.cell.array) @ rotation.T, scale_atoms=True)
    return result


if __name__ == "__main__":
    main()

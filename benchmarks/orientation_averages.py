"""Averages over rotations compared: what is left of the orientation error, against the number of evaluations.

    python benchmarks/orientation_averages.py
    python benchmarks/orientation_averages.py --checkpoint pet_nano --element Si

Rattled cubic cells, rotations about Cartesian axes ("lab"), so that no average profits from the axes of a
crystal; residuals are root mean squares against lebedev:50x12+inversion (1200 rotations, exact to the degree 11).
Without --checkpoint the force field is a small edge transformer with random weights, whose dependence on the
orientation has parts of all degrees and no physics. Written to results/orientation_averages.json (of a checkpoint:
orientation_averages_NAME.json).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk

from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.network.edge_transformer.config import EdgeTransformerConfig
from esen_flows.network.edge_transformer.edge_transformer import EdgeTransformer
from esen_flows.physics.force_symmetry import symmetrized
from esen_flows.schemas.force_symmetry import ForceSymmetry

RESULTS = Path(__file__).parent / "results"
REFERENCE = "lebedev:50x12+inversion+lab"
AVERAGES = (
    "random:60:1+lab", "tetrahedral+inversion+lab", "octahedral+inversion+lab", "icosahedral+lab",
    "lebedev:6x7+inversion+lab", "icosahedral+inversion+lab", "lebedev:14x11+inversion+lab",
)  # fmt: skip


def random_network() -> ForceField:
    """An edge transformer with random weights."""
    torch.manual_seed(0)
    config = EdgeTransformerConfig(width=16, num_gnn_layers=1, num_heads=2, cutoff_angstrom=3.5, max_num_elements=30)
    checkpoint = Checkpoint(EdgeTransformer(config), 1.0, {29: 0.0}, (29,), model_key="e" * 64)
    return NetworkForceField(checkpoint, label="edge transformer, random weights")


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint")
    parser.add_argument("--element", default="Cu", help="with a cubic cell in ASE's tables")
    parser.add_argument("--structures", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    bare = load_force_field(asked.checkpoint) if asked.checkpoint else random_network()
    structures = []
    for seed in range(asked.structures):
        atoms = bulk(asked.element, cubic=True)
        atoms.rattle(0.1, seed=seed)
        structures.append(atoms)

    def evaluated(text: str | None) -> tuple[np.ndarray, np.ndarray, int, float]:
        """Energies per atom, forces, evaluations of one structure, CPU seconds."""
        symmetry = None if text is None else ForceSymmetry.model_validate(text)
        start, before = time.process_time(), bare.force_evaluations
        results = symmetrized(bare, "as_is", symmetry).evaluate(structures)
        energies = np.array([one.energy / len(one.forces) for one in results])
        count = (bare.force_evaluations - before) // len(structures)
        return energies, np.concatenate([one.forces for one in results]), count, time.process_time() - start

    energies, forces, *_ = evaluated(REFERENCE)
    rows = []
    for text in (None, *AVERAGES):
        energy, force, count, seconds = evaluated(text)
        row = {"average": text or "none", "evaluations": count, "cpu_s": seconds}
        row["energy_rms_mev_per_atom"] = 1e3 * float(np.sqrt(np.mean((energy - energies) ** 2)))
        row["force_rms_mev_per_angstrom"] = 1e3 * float(np.sqrt(np.mean((force - forces) ** 2)))
        rows.append(row)
        print(row, flush=True)
    result = {"force_field": bare.label, "reference": REFERENCE, "structures": len(structures), "averages": rows}
    result["force_rms_ev_per_angstrom"] = float(np.sqrt(np.mean(forces**2)))
    result["element"] = asked.element
    of = f"_{Path(asked.checkpoint).stem}" if asked.checkpoint else ""
    (RESULTS / f"orientation_averages{of}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""CPU time of a relaxation step outside the network, for many small crystals in one batch.

    python benchmarks/host_time.py [--crystals 500] [--steps 20] [--model esen_silicon]

The force field is a shipped one whose derivatives (`network/derivatives.py`, the network included) are replaced by
zeros, with a small constant force so that atoms and cells move. What remains is neighbour tables, edges, optimiser,
cell variables and bookkeeping. One thread, FIRE with the cell free, float64, memory kept as in a worker. Results in
benchmarks/results/host_time.json: microseconds of CPU time per structure and step, and neighbours per atom, for
crystals of 8 atoms and for 60 unlike crystals of 30 atoms. `--profile` prints the functions that took longest.
"""

import argparse
import cProfile
import io
import json
import os
import pstats
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from esen_flows.cli.machine import tune_allocator
from esen_flows.data.batch import GraphBatch
from esen_flows.data.neighbors import neighbor_pairs
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.network.derivatives import EnergyForcesStress
from esen_flows.physics.relax import relax_many
from esen_flows.schemas.protocols import RelaxProtocol


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--crystals", type=int, default=500)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--model", default="esen_silicon")
    parser.add_argument("--profile", action="store_true", help="print the profile")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tune_allocator()
    force_field = without_network(options.model)
    small, large = crystals_of_8(options.crystals), unlike_crystals(60)
    profile = cProfile.Profile()
    row_small = measured(force_field, small, options.steps)
    row_large = measured(force_field, large, options.steps)
    profile.enable()
    measured(force_field, small, 5)
    profile.disable()
    text = io.StringIO()
    pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(25)
    result = {
        "what": "CPU time outside the network, FIRE on positions and cells, float64, one thread",
        "cutoff_angstrom": force_field.declaration.cutoff_angstrom,
        "crystals_of_8_atoms": row_small,
        "unlike_crystals_of_30_atoms": row_large,
        "load_average": os.getloadavg(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }
    path = Path(__file__).parent / "results" / "host_time.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path.read_text())
    if options.profile:
        print(text.getvalue())


def without_network(model: str) -> NetworkForceField:
    """A shipped force field whose energies are zero and whose forces are constant."""
    force_field = load_force_field(model)
    assert isinstance(force_field, NetworkForceField)
    force_field._compute = constant_forces  # type: ignore[method-assign]
    return force_field


def constant_forces(batch: GraphBatch) -> EnergyForcesStress:
    """Zero energy; a force of 0.05 eV/Angstrom along x and a stress of 1e-4 eV/Angstrom^3."""
    forces = batch.vectors.new_zeros(len(batch.numbers), 3)
    forces[:, 0] = 0.05
    stress = torch.eye(3, dtype=forces.dtype).expand(batch.n_systems, 3, 3) * 1e-4
    return EnergyForcesStress(
        forces.new_zeros(batch.n_systems, dtype=torch.float64), forces.new_zeros(len(batch.numbers)), forces, stress
    )


def crystals_of_8(count: int) -> list[Atoms]:
    """Strained and rattled conventional cells of silicon."""
    return [strained(bulk("Si", cubic=True), seed) for seed in range(count)]


def unlike_crystals(count: int) -> list[Atoms]:
    """Crystals of 30 atoms at random places in random cells, no two alike."""
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        atoms = bulk("Si", a=5.47).repeat((5, 3, 1))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.1 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        made.append(atoms)
    return made


def strained(atoms: Atoms, seed: int) -> Atoms:
    """A copy with random strain and displacements."""
    strain = 0.02 * np.random.default_rng(seed).normal(size=(3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


def measured(force_field: NetworkForceField, structures: list[Atoms], steps: int) -> dict[str, Any]:
    """CPU microseconds per structure and step: the median of all steps, their mean, and the first step."""
    protocol = RelaxProtocol(max_steps=steps, fmax_ev_per_angstrom=1e-9, keep_unconverged=True, parity="as_is")
    moments: list[float] = []

    def watch(index: int, n_steps: int, fmax: float) -> None:
        if index == 0:
            moments.append(time.process_time())

    began = time.process_time()
    # Documents (symmetry, volumes) are made after the last step, and are not counted.
    for _ in relax_many(structures, force_field, protocol, atoms_at_once=10**9, watch=watch):
        break
    each = [1e6 * (after - before) / len(structures) for before, after in pairwise(moments)]
    atoms = structures[0]
    cutoff = force_field.declaration.cutoff_angstrom
    assert cutoff is not None
    return {
        "structures": len(structures),
        "atoms_each": len(atoms),
        "neighbours_per_atom": round(len(neighbor_pairs(atoms, cutoff).source) / len(atoms), 1),
        "steps": len(each),
        "microseconds_per_structure_and_step_median": round(median(each), 1),
        "microseconds_per_structure_and_step_mean": round(sum(each) / len(each), 1),
        # Other processes share caches and cores, which makes CPU time longer too; never shorter.
        "microseconds_per_structure_and_step_fastest": round(min(each), 1),
        "microseconds_per_structure_before_the_first_step": round(1e6 * (moments[0] - began) / len(structures), 1),
    }


if __name__ == "__main__":
    main()

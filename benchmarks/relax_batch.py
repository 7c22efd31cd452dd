"""Relaxation in batches beside ASE one by one: the same minima, and at which cost.

    python benchmarks/relax_batch.py cells [--model esen_silicon] [--count 200]
    python benchmarks/relax_batch.py wbm --data FOLDER [--count 50]

`cells`: strained and rattled cells of 2 to 8 atoms (diamond, hexagonal diamond) of a force field of ours, FIRE on
FrechetCellFilter to 0.01 eV/Angstrom, float64, one thread; CPU time of ASE 3.29 with our calculator, one structure
after the other, over that of `relax_many`. `wbm`: the first crystals of a random sample of WBM (Materials Project
structures with exchanged elements; FOLDER holds wbm-random-pbe52-equilibrium-2025.1.json.gz, BSD-3, WBM CC-BY-4.0),
rattled by 0.02 Angstrom, by CHGNet: through `relax_many`, and through ASE with CHGNet's own calculator. Results in
benchmarks/results/relax_batch_<what>.json.
"""

import argparse
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from esen_flows.errors import EsenFlowsError
from esen_flows.forcefield.ase_calculator import ForceFieldCalculator
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.relax import relax_many
from esen_flows.schemas.documents import RelaxOutput
from esen_flows.schemas.protocols import RelaxProtocol

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cells", "wbm"))
    parser.add_argument("--model")
    parser.add_argument("--count", type=int)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--optimizer", default="fire", choices=("fire", "lbfgs"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.what == "cells":
        result = cells(asked.model or "esen_silicon", asked.count or 200, asked.optimizer)
    else:
        result = wbm(asked.count or 50, asked.data)
    result["versions"] = {"ase": ase.__version__, "torch": torch.__version__}
    path = RESULTS / f"relax_batch_{asked.what}{'' if asked.optimizer == 'fire' else '_' + asked.optimizer}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "structures"}, indent=1))


def cells(model: str, count: int, optimizer: str) -> dict[str, Any]:
    """Small silicon cells by one of our own force fields."""
    force_field = load_force_field(model)
    hexagonal = Atoms(
        "Si4",
        scaled_positions=[(1 / 3, 2 / 3, 0.0), (1 / 3, 2 / 3, 0.375), (2 / 3, 1 / 3, 0.5), (2 / 3, 1 / 3, 0.875)],
        cell=[3.86, 3.86, 6.32, 90, 90, 120],
        pbc=True,
    )
    primitive = bulk("Si", a=5.467)
    shapes = (
        primitive,
        hexagonal,
        primitive.repeat((1, 1, 3)),
        bulk("Si", a=5.467, cubic=True),
        hexagonal.repeat((1, 1, 2)),
    )
    rng = np.random.default_rng(1)
    structures = []
    for index in range(count):
        atoms = shapes[index % len(shapes)].copy()
        strain = 0.02 * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.positions += 0.05 * rng.normal(size=(len(atoms), 3))
        structures.append(atoms)
    protocol = RelaxProtocol(fmax_ev_per_angstrom=0.01, keep_unconverged=True, optimizer=optimizer)
    force_field.evaluate(structures[:5])  # compiled and warm for both
    return compared(structures, force_field, lambda: ForceFieldCalculator(force_field), protocol)


def wbm(count: int, folder: Path) -> dict[str, Any]:
    """Random crystals by a force field of another package."""
    with gzip.open(folder / "wbm-random-pbe52-equilibrium-2025.1.json.gz") as stream:
        rows = json.load(stream)
    structures = []
    for number, row in enumerate(rows[:count]):
        atoms = AseAtomsAdaptor.get_atoms(Structure.from_dict(row["structure"]))
        plain = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
        plain.rattle(0.02, seed=number)
        structures.append(plain)
    from chgnet.model.dynamics import CHGNetCalculator

    calculator = CHGNetCalculator(use_device="cpu")
    protocol = RelaxProtocol(fmax_ev_per_angstrom=0.05, keep_unconverged=True)
    return compared(structures, load_force_field("chgnet", dtype="float32"), lambda: calculator, protocol)


def compared(
    structures: list[Atoms], force_field: ForceField, calculator: Callable[[], Calculator], protocol: RelaxProtocol
) -> dict[str, Any]:
    """Energies (eV/atom), steps and CPU seconds of both ways."""
    start = time.process_time()
    ours = dict(relax_many(structures, force_field, protocol))
    seconds = time.process_time() - start
    rows, theirs_seconds = [], 0.0
    for index, atoms in enumerate(structures):
        outcome = ours[index]
        row: dict[str, Any] = {"formula": atoms.get_chemical_formula(), "atoms": len(atoms)}
        work = atoms.copy()
        work.calc = calculator()
        start = time.process_time()
        optimizer = FIRE(FrechetCellFilter(work), logfile=None)
        converged = optimizer.run(fmax=protocol.fmax_ev_per_angstrom, steps=protocol.max_steps)
        theirs_seconds += time.process_time() - start
        row.update(steps_ase=optimizer.nsteps, converged_ase=bool(converged))
        if isinstance(outcome, EsenFlowsError):
            row["failure"] = str(outcome)
        else:
            row.update(difference_of(outcome, work))
        rows.append(row)
    both = [row for row in rows if row.get("converged") and row["converged_ase"]]
    return {
        "force_field": force_field.label,
        "protocol": protocol.model_dump(mode="json"),
        "structures_total": len(structures),
        "converged_both": len(both),
        "largest_energy_difference_mev_per_atom": max(abs(row["energy_mev_per_atom"]) for row in both),
        "largest_volume_difference_percent": max(abs(row["volume_percent"]) for row in both),
        "same_number_of_steps": sum(row["steps"] == row["steps_ase"] for row in both),
        "cpu_seconds_batched": round(seconds, 1),
        "cpu_seconds_ase_one_by_one": round(theirs_seconds, 1),
        "ratio": round(theirs_seconds / seconds, 2),
        "structures": rows,
    }


def difference_of(outcome: RelaxOutput, work: Atoms) -> dict[str, Any]:
    """Ours minus ASE's."""
    energy = outcome.energy_per_atom_ev - work.get_potential_energy() / len(work)
    volume = outcome.volume_per_atom_angstrom3 * len(work) / work.get_volume() - 1
    return {
        "converged": outcome.converged,
        "steps": outcome.n_steps,
        "energy_mev_per_atom": float(1000 * energy),
        "volume_percent": float(100 * volume),
    }


if __name__ == "__main__":
    main()

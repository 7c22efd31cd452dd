"""What the predicted cost of a campaign's members rests on: steps of relaxations and numbers of displacements.

    python benchmarks/campaign_cost.py FOLDER [COUNT]

FOLDER holds wbm-random-pbe52-equilibrium-2025.1.json.gz (matcalc, BSD-3; WBM CC-BY-4.0): crystals of WBM, relaxed by
DFT. The first COUNT (default 24) of at most 10 atoms, rattled by 0.02 Angstrom, are relaxed by CHGNet with FIRE to 1e-4
eV/Angstrom; the step at which the largest force first falls below each threshold is noted. Of 100 crystals the numbers
of displaced supercells are counted that phonopy and phono3py want, beside the order of the point group, the atoms of
the primitive cell and those of the supercell. Results, and the fits that esen_flows.campaigns.cost takes, in
benchmarks/results/campaign_cost.json.
"""

import gzip
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import spglib
import torch
from ase import Atoms
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.lattice.adapter import plan_displacements
from esen_flows.physics.relax import relax_many
from esen_flows.physics.symmetry import conventional_cell
from esen_flows.schemas.protocols import RelaxProtocol

THRESHOLDS = (0.05, 0.02, 0.01, 1e-3, 1e-4)
LARGEST_FC3 = 40  # atoms; larger supercells only multiply the pairs
CRYSTALS = 100
HEAVIEST = 83  # phonopy has no masses of some elements beyond


def crystals(folder: Path) -> list[Atoms]:
    """All crystals of the sample."""
    with gzip.open(folder / "wbm-random-pbe52-equilibrium-2025.1.json.gz", "rt") as stream:
        rows = json.load(stream)
    return [Atoms(AseAtomsAdaptor.get_atoms(Structure.from_dict(row["structure"]))) for row in rows]


def steps(found: list[Atoms], count: int) -> dict[str, Any]:
    """Steps to each threshold, the mean over crystals; the start counts as step 0."""
    small = [atoms.copy() for atoms in found if len(atoms) <= 10][:count]
    for number, atoms in enumerate(small):
        atoms.calc = None
        atoms.rattle(0.02, seed=number)
    reached: list[dict[float, int]] = [{} for _ in small]

    def watch(index: int, step: int, fmax: float) -> None:
        for threshold in THRESHOLDS:
            if fmax <= threshold:
                reached[index].setdefault(threshold, step)

    protocol = RelaxProtocol(fmax_ev_per_angstrom=min(THRESHOLDS), max_steps=1000, keep_unconverged=True)
    for _ in relax_many(small, load_force_field("chgnet"), protocol, watch=watch):
        pass
    means = {str(t): float(np.mean([one.get(t, protocol.max_steps) for one in reached])) for t in THRESHOLDS}
    slope, at_one = np.polyfit(-np.log10(THRESHOLDS), list(means.values()), 1)
    return {
        "crystals": len(small),
        "mean_steps": means,
        "not_reached": {str(t): sum(t not in one for one in reached) for t in THRESHOLDS},
        "fit": {"steps_at_1_ev_per_angstrom": float(at_one), "steps_per_decade": float(slope)},
    }


def displacements(found: list[Atoms]) -> dict[str, Any]:
    """Numbers of displaced supercells, and a power law in the order of the point group for each order."""
    rows = []
    for atoms in [one for one in found if one.numbers.max() <= HEAVIEST][:CRYSTALS]:
        unit = conventional_cell(atoms, 1e-5)
        cell = (unit.cell.array, unit.get_scaled_positions(), unit.numbers)
        operations = spglib.get_symmetry(cell, symprec=1e-5)
        order = len(np.unique(operations["rotations"], axis=0))
        primitive = len(spglib.find_primitive(cell, symprec=1e-5)[2])
        fc2 = np.diag(np.ceil(15.0 / (unit.cell.lengths() + 1e-3)).astype(int))
        row = {"order": order, "primitive": primitive}
        row["n2"] = len(plan_displacements(unit, fc2, None, 0.01, 1e-5).fc2.supercells)  # type: ignore[union-attr]
        if len(unit) <= LARGEST_FC3:
            one = np.eye(3, dtype=int)
            try:
                third = plan_displacements(unit, one, one, 0.03, 1e-5).fc3
            except ValueError:  # of phono3py, where symmetry is on the verge of its tolerance
                continue
            row |= {"atoms_fc3": len(unit), "n3": len(third.supercells)}  # type: ignore[union-attr]
        rows.append(row)
        print(row, flush=True)
    with_third = [row for row in rows if "n3" in row]
    return {
        "crystals": rows,
        "fit_n2": power([row["n2"] / (6 * row["primitive"]) for row in rows], [row["order"] for row in rows]),
        "fit_n3": power(
            [row["n3"] / (36 * row["primitive"] * row["atoms_fc3"]) for row in with_third],
            [row["order"] for row in with_third],
        ),
    }


def power(ratios: list[float], orders: list[int]) -> dict[str, float]:
    """ratio = factor * order^exponent by least squares of logarithms, and the scatter around it."""
    exponent, factor = np.polyfit(np.log(orders), np.log(ratios), 1)
    rest = np.log(ratios) - factor - exponent * np.log(orders)
    return {"factor": float(np.exp(factor)), "exponent": float(exponent), "scatter_factor": float(np.exp(rest.std()))}


def main() -> None:
    """Measure, write, print."""
    torch.set_num_threads(1)
    found = crystals(Path(sys.argv[1]))
    result = {
        "displacements": displacements(found),
        "steps": steps(found, int(sys.argv[2]) if len(sys.argv) > 2 else 24),
        "load_average": os.getloadavg(),
        "versions": {name: version(name) for name in ("ase", "chgnet", "phonopy", "phono3py", "torch", "esen_flows")},
    }
    path = Path(__file__).parent / "results" / "campaign_cost.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({**result, "displacements": {**result["displacements"], "crystals": "..."}}, indent=1))


if __name__ == "__main__":
    main()

"""Inputs of the campaign `wbm_random`: random crystals of WBM, strained and rattled, and DFT's results of them.

    python benchmarks/wbm_random.py --data ../shared/data --folder ~/wbm_random
    esen-flows campaign plan ~/wbm_random/spec.yaml

The initial structures of WBM are not in that data, so that the relaxations start from DFT's relaxed structures after a
random strain and random displacements (fixed seed). Hull distances are those of published figures, for the compositions
that occur there: members of one composition have one difference of formation energy and hull distance.
"""

import argparse
import csv
import gzip
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import write
from pymatgen.core import Composition, Structure

from esen_flows.metrics.formation_energy import formation_energy, read_elemental_references

SEED = 20260716
STRAIN = 0.02  # standard deviation of each component of a symmetric strain
RATTLE_ANGSTROM = 0.05  # standard deviation of each coordinate
CRYSTALS = "matcalc/wbm-random-pbe52-equilibrium-2025.1.json.gz"
ELEMENTS = "matbench_discovery/2023-02-07-mp-elemental-reference-entries.json.gz"
FIGURES = "matbench_discovery/wbm-dft-subset-from-figures.csv.gz"
SPEC = """\
# {count} random crystals of WBM from strained and rattled structures: benchmarks/wbm_random.py made the files.
name: {name}
description: >-
  Relaxations of {count} random crystals of WBM by CHGNet from DFT's structures after a random strain of {strain:.0%}
  and displacements of {rattle} Angstrom (seed {seed}).
property: relax
structures:
  file: start.extxyz
models: chgnet
settings:
  optimizer: fire
  fmax_ev_per_angstrom: 0.05  # the leaderboard's default
  max_steps: 500
  symmetry: free
  keep_unconverged: true
dtype: float32
require: [conservative]
benchmark: discovery
energy_corrections: contained
target_minutes: 5
"""


def shifts(data: Path) -> dict[str, float]:
    """Formation energy minus hull distance in eV/atom, by reduced formula."""
    found = defaultdict(list)
    with gzip.open(data / FIGURES, "rt") as file:
        for row in csv.DictReader(file):
            formula = Composition(row["formula"]).reduced_formula
            found[formula].append(float(row["e_form_per_atom_dft"]) - float(row["e_above_hull_dft"]))
    return {formula: float(np.median(values)) for formula, values in found.items()}


def write_gz(path: Path, text: str) -> None:
    """Compressed without a date, so that the same inputs give the same bytes."""
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def write_inputs(data: Path, folder: Path, count: int, name: str) -> None:
    """Write start structures, DFT's results and the specification of the first `count` crystals of a random order."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = json.loads(gzip.decompress((data / CRYSTALS).read_bytes()))
    dice = np.random.default_rng(SEED)
    rows = [rows[i] for i in dice.permutation(len(rows))]
    references = read_elemental_references(data / ELEMENTS)
    hull = shifts(data)
    starts, summary, dft = [], [], []
    for row in rows[:count]:
        structure = Structure.from_dict(row["structure"])
        atoms = structure.to_ase_atoms()
        strain = dice.normal(0, STRAIN, (3, 3))
        strain = (strain + strain.T) / 2
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        atoms.positions += dice.normal(0, RATTLE_ANGSTROM, atoms.positions.shape)
        atoms.info = {"material_id": row["material_id"]}
        atoms.calc = None
        starts.append(atoms)
        e_form = formation_energy(row["corrected_energy"], structure.composition, references)
        shift = hull.get(structure.composition.reduced_formula)
        distance = "" if shift is None else f"{e_form - shift:.6f}"
        summary.append((row["material_id"], structure.composition.formula, f"{e_form:.6f}", distance, True))
        relaxed = structure.to_ase_atoms()
        relaxed.calc, relaxed.info = None, {"material_id": row["material_id"]}
        dft.append(relaxed)
    write(folder / "start.extxyz", starts, format="extxyz")
    columns = "material_id,formula,e_form_per_atom_mp2020_corrected"
    columns += ",e_above_hull_mp2020_corrected_ppd_mp,unique_prototype"
    lines = [columns, *(",".join(map(str, each)) for each in summary)]
    write_gz(folder / "wbm-summary.csv.gz", "\n".join(lines) + "\n")
    write(folder / "wbm-relaxed-atoms.extxyz", dft, format="extxyz")
    shutil.copyfile(data / ELEMENTS, folder / Path(ELEMENTS).name)
    text = SPEC.format(count=len(starts), name=name, strain=STRAIN, rattle=RATTLE_ANGSTROM, seed=SEED)
    (folder / "spec.yaml").write_text(text)
    known = sum(each[3] != "" for each in summary)
    print(f"{folder}: {len(starts)} crystals, {known} with a known hull distance")


def main() -> None:
    """Read the command line and write the inputs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of matcalc/ and matbench_discovery/")
    parser.add_argument("--folder", type=Path, required=True, help="folder to write")
    parser.add_argument("--count", type=int, default=972, help="number of crystals")
    parser.add_argument("--name", default="wbm_random", help="name of the campaign")
    arguments = parser.parse_args()
    write_inputs(arguments.data, arguments.folder, arguments.count, arguments.name)


if __name__ == "__main__":
    main()

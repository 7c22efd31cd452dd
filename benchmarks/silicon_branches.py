"""The transverse acoustic branches of silicon, which an orientation error splits and the symmetry layer joins again.

    python benchmarks/silicon_branches.py [--amplitude 0.2]

esen_silicon with an artificial orientation error (`tests/orientation_error.py`), a supercell of 16 atoms in a generic
orientation, all 12 displacements of both atoms by 0.01 Angstrom, no symmetry imposed on force constants: what is drawn
is what the forces say. With `project` the displacements are those that symmetry leaves (one), as in a phonon flow,
because a projection makes forces symmetric about each displacement and not those of different displacements alike.
Writes benchmarks/results/silicon_branches.json and docs/figures/silicon_branches.png.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.rotations import random_rotations
from esen_flows.forcefield.symmetry_images import turned
from esen_flows.physics.force_symmetry import along, symmetrized
from esen_flows.schemas.force_symmetry import ForceSymmetry

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from orientation_error import OrientationError  # noqa: E402

LATTICE_ANGSTROM, DISPLACEMENT_ANGSTROM, POINTS = 5.46, 0.01, 41
CASES = {
    "esen_silicon": (False, None, False),
    "with an orientation error": (True, None, False),
    "and force_symmetry = project": (True, "project", True),
    "and force_symmetry = octahedral": (True, "octahedral", False),
}


def branches(crystal: Atoms, force_field: ForceField, *, reduced: bool) -> tuple[np.ndarray, int]:
    """(points, 6) frequencies in THz from Gamma to X, and the number of displacements."""
    cell = PhonopyAtoms(symbols=crystal.get_chemical_symbols(), cell=crystal.cell.array, scaled_positions=SCALED)
    phonon = Phonopy(cell, supercell_matrix=np.diag([2, 2, 2]), primitive_matrix="P", is_symmetry=reduced)
    phonon.generate_displacements(distance=DISPLACEMENT_ANGSTROM, is_plusminus=not reduced or "auto", is_diagonal=False)
    supercells = [
        Atoms(one.symbols, positions=one.positions, cell=one.cell, pbc=True)
        for one in phonon.supercells_with_displacements
    ]
    phonon.forces = np.array([result.forces for result in along(force_field, crystal).evaluate(supercells)])
    phonon.produce_force_constants()
    path = np.linspace([0.0, 0.0, 0.0], [0.5, 0.0, 0.5], POINTS)
    return np.array(phonon.run_qpoints(path).frequencies), len(supercells)


SCALED = bulk("Si").get_scaled_positions()


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--amplitude", type=float, default=0.2, help="size of the error in eV")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    silicon = load_force_field("esen_silicon")
    wrong = OrientationError(silicon, asked.amplitude)
    crystal = turned(bulk("Si", a=LATTICE_ANGSTROM), random_rotations(1, np.random.default_rng(4)).matrices[0])
    rows: list[dict[str, Any]] = []
    for name, (with_error, text, reduced) in CASES.items():
        symmetry = None if text is None else ForceSymmetry.model_validate(text)
        force_field = symmetrized(wrong if with_error else silicon, "as_is", symmetry)
        start, before = time.process_time(), silicon.force_evaluations
        frequencies, displacements = branches(crystal, force_field, reduced=reduced)
        split = np.abs(frequencies[:, 1] - frequencies[:, 0])[1:]
        rows.append(
            {
                "case": name,
                "displacements": displacements,
                "evaluations": silicon.force_evaluations - before,
                "cpu_s": time.process_time() - start,
                "largest_splitting_of_ta_thz": float(split[POINTS // 4 :].max()),
                "largest_acoustic_at_gamma_thz": float(np.abs(frequencies[0, :3]).max()),
                "frequencies_thz": np.round(frequencies, 6).tolist(),
            }
        )
        print({key: value for key, value in rows[-1].items() if key != "frequencies_thz"}, flush=True)
    result = {"amplitude_ev": asked.amplitude, "lattice_angstrom": LATTICE_ANGSTROM, "cases": rows}
    (ROOT / "benchmarks" / "results" / "silicon_branches.json").write_text(json.dumps(result) + "\n")
    draw(rows, ROOT / "docs" / "figures" / "silicon_branches.png")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """The acoustic branches, and by how much the transverse ones differ."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    x = np.linspace(0, 1, POINTS)
    styles = (
        {"color": "0.7", "lw": 4},
        {"color": "C3", "lw": 1.2},
        {"color": "C0", "ls": "--"},
        {"color": "k", "ls": ":"},
    )
    for row, style in zip(rows, styles, strict=True):
        frequencies = np.array(row["frequencies_thz"])[:, :3]
        left.plot(x, frequencies, **style)
        right.semilogy(x[1:], np.maximum(frequencies[1:, 1] - frequencies[1:, 0], 1e-6), label=row["case"], **style)
    left.set_ylabel("Frequency (THz)")
    right.set_ylabel("Splitting of the TA branches (THz)")
    right.legend(frameon=False, fontsize=8, loc="center right")
    for axis in (left, right):
        axis.set_xticks([0, 1], ["Γ", "X"])
        axis.set_xlim(0, 1)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()

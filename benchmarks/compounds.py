"""Simple crystals by any force field: lattice constant, bulk modulus, phonons, thermal conductivity; two side by side.

    python benchmarks/compounds.py measure sevennet_l3i5 [--only MgO KCl]
    python benchmarks/compounds.py measure esen_nano
    python benchmarks/compounds.py compare esen_nano sevennet_l3i5

`measure` writes benchmarks/results/compounds_<model>.json, crystal by crystal: what is there for the same model is not
computed again. `compare` prints a table and draws compounds_<model>.png.

Crystals: those of models/esen_nano/data.yaml and silicon, from the lattice constants written there. Protocol, the same
for every force field: relax (FIRE, fmax 1e-4 eV/Angstrom, symmetry kept); Birch-Murnaghan through seven volumes within
+-6 % (atoms relaxed, c/a kept); displacement 0.03 Angstrom, averaged with the inverted cell where a model has no parity
of its own; fc2 in 64 atoms (wurtzite 72); fc3 in 16 atoms (wurtzite 32), pairs of displaced atoms up to second
neighbours (wurtzite: first neighbours); RTA at 300 K on 11 x 11 x 11 (wurtzite 11 x 11 x 7), no isotopes, no Born
charges. Small third-order cells make the same comparison at a twentieth of the cost; they are not converged.
"""

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from ase import Atoms
from ase.eos import EquationOfState
from ase.units import GPa
from matplotlib import pyplot as plt
from rich.console import Console
from rich.table import Table

from esen_flows.data.prototypes import Crystal, perfect
from esen_flows.data.recipes import read_recipe
from esen_flows.errors import ImaginaryModesError
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.lattice.conductivity import conductivity
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.phonon import phonon
from esen_flows.physics.relax import relax
from esen_flows.schemas.protocols import (
    ConductivityProtocol,
    DisplacementProtocol,
    HarmonicProtocol,
    PhononProtocol,
    RelaxProtocol,
    TransportProtocol,
)

HERE = Path(__file__).parent
RECIPE = HERE.parent / "models/esen_nano/data.yaml"
SILICON = Crystal("Si", "diamond", ("Si",), 5.46667)  # as models/esen_silicon has it from the same labeller
RELAX = RelaxProtocol(fmax_ev_per_angstrom=1e-4, max_steps=1000, symmetry="fix")
FIXED_CELL = RELAX.model_copy(update={"relax_cell": False})
VOLUME_STRAINS = np.linspace(-0.06, 0.06, 7)
TWICE_PRIMITIVE = ((0, 1, 1), (1, 0, 1), (1, 1, 0))  # of the conventional face-centred cell
PROPERTIES = {
    "lattice_angstrom": "a (Å)",
    "bulk_modulus_gpa": "B (GPa)",
    "max_frequency_thz": "highest frequency (THz)",
    "kappa_w_per_m_k": "kappa 300 K (W/m/K)",
}


def displacements(crystal: Crystal) -> DisplacementProtocol:
    """The supercells of a crystal."""
    if crystal.prototype == "wurtzite":
        cells: dict[str, Any] = {"fc2_supercell": (3, 3, 2), "fc3_supercell": (2, 2, 2)}
        cutoff = 0.7 * crystal.lattice_angstrom
    else:
        cells = {"fc2_supercell": (2, 2, 2), "fc3_supercell": TWICE_PRIMITIVE}
        cutoff = 0.75 * crystal.lattice_angstrom
    return DisplacementProtocol(order=3, displacement_angstrom=0.03, fc3_pair_cutoff_angstrom=cutoff, **cells)


def bulk_modulus(atoms: Atoms, force_field: ForceField) -> float:
    """In GPa, of a relaxed cell."""
    volumes, energies = [], []
    for strain in VOLUME_STRAINS:
        cell = atoms.copy()
        cell.set_cell(atoms.cell[:] * (1.0 + strain) ** (1 / 3), scale_atoms=True)
        relaxed = relax(cell, force_field, FIXED_CELL)
        volumes.append(cell.get_volume())
        energies.append(relaxed.energy_per_atom_ev * len(cell))
    _, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit(warn=False)
    return float(modulus / GPa)


def measured(crystal: Crystal, force_field: ForceField) -> dict[str, Any]:
    """All numbers of one crystal; kappa is None where it is dynamically unstable on the mesh."""
    start, evaluations = time.process_time(), force_field.force_evaluations
    atoms = relax(perfect(crystal), force_field, RELAX).structure.to_atoms()
    hexagonal = crystal.prototype == "wurtzite"
    lengths = atoms.cell.lengths()
    row: dict[str, Any] = {
        "crystal": crystal.name,
        "prototype": crystal.prototype,
        "lattice_angstrom": float(lengths[0]) if hexagonal else float(np.cbrt(4.0 * atoms.get_volume())),
        "c_over_a": float(lengths[2] / lengths[0]) if hexagonal else None,
        "bulk_modulus_gpa": bulk_modulus(atoms, force_field),
    }
    forces = displaced_forces(atoms, force_field, displacements(crystal))
    harmonic = phonon(forces, HarmonicProtocol.of(PhononProtocol(mesh=(12, 12, 12))))
    row["verdict"] = harmonic.verdict
    row["max_frequency_thz"] = harmonic.max_frequency_thz
    row["min_frequency_thz"] = harmonic.min_frequency_thz
    mesh = (11, 11, 7) if hexagonal else (11, 11, 11)
    protocol = ConductivityProtocol(mesh=mesh, temperatures_kelvin=(300.0,), methods=("rta",))
    try:
        result = conductivity(forces, TransportProtocol.of(protocol))
        row["kappa_w_per_m_k"] = float(result.methods["rta"].kappa_w_per_m_k[0, :3].mean())
    except ImaginaryModesError as error:
        row["kappa_w_per_m_k"], row["why_no_kappa"] = None, str(error)
    row["force_evaluations"] = force_field.force_evaluations - evaluations
    row["cpu_seconds"] = round(time.process_time() - start, 1)
    return row


def result_file(model: str) -> Path:
    """Where the numbers of a model are kept."""
    return HERE / "results" / f"compounds_{Path(model).stem}.json"


def measure(model: str, only: list[str]) -> None:
    """Every crystal that is not there yet."""
    force_field = load_force_field(model)
    path = result_file(model)
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("model_key") != force_field.key:
        found = {"model": model, "model_key": force_field.key, "label": force_field.label, "crystals": []}
    known = {row["crystal"] for row in found["crystals"]}
    crystals = [SILICON, *read_recipe(RECIPE).crystals]
    for crystal in crystals:
        if crystal.name in known or (only and crystal.name not in only):
            continue
        row = measured(crystal, force_field)
        found["crystals"].append(row)
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(row), flush=True)


def compare(model: str, reference: str) -> None:
    """A table, and one panel per property."""
    ours, theirs = (
        {row["crystal"]: row for row in json.loads(result_file(name).read_text())["crystals"]}
        for name in (model, reference)
    )
    names = [name for name in theirs if name in ours]
    table = Table(title=f"{model} against {reference}")
    for column in ("crystal", *PROPERTIES.values(), "verdict"):
        table.add_column(column, justify="right")
    for name in names:
        cells = [_pair(ours[name][key], theirs[name][key]) for key in PROPERTIES]
        table.add_row(name, *cells, f"{ours[name]['verdict']} / {theirs[name]['verdict']}")
    Console(width=140).print(table)
    figure, axes = plt.subplots(2, 2, figsize=(9, 8), constrained_layout=True)
    for axis, (key, title) in zip(axes.flat, PROPERTIES.items(), strict=True):
        both = [(theirs[n][key], ours[n][key], n) for n in names if None not in (ours[n][key], theirs[n][key])]
        x, y = np.array([(a, b) for a, b, _ in both]).T
        ends = [0.9 * min(x.min(), y.min()), 1.1 * max(x.max(), y.max())]
        axis.plot(ends, ends, color="0.7", lw=1)
        axis.scatter(x, y, s=14, zorder=3)
        for a, b, name in both:
            axis.annotate(
                name.replace("_wurtzite", " w"), (a, b), fontsize=6, xytext=(3, -6), textcoords="offset points"
            )
        if key != "lattice_angstrom":
            axis.set_xscale("log")
            axis.set_yscale("log")
        error = 100 * np.abs(y / x - 1)
        axis.set_title(f"{title}: off by {np.median(error):.1f} % (median), {error.max():.1f} % (largest)", fontsize=9)
        axis.set_xlabel(reference)
        axis.set_ylabel(model)
    figure.savefig(result_file(model).with_suffix(".png"), dpi=130)


def _pair(ours: float | None, theirs: float | None) -> str:
    return " / ".join("-" if value is None else f"{value:.4g}" for value in (ours, theirs))


def main() -> None:
    """Measure, or compare what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "compare"])
    parser.add_argument("models", nargs="+", help="card names or checkpoint paths")
    parser.add_argument("--only", nargs="+", default=[], help="names of crystals")
    arguments = parser.parse_args()
    if arguments.what == "compare":
        for model, reference in pairwise(arguments.models):
            compare(model, reference)
        return
    for model in arguments.models:
        measure(model, arguments.only)


if __name__ == "__main__":
    main()

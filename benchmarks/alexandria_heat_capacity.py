"""Heat capacities at 300 K of 30 binaries by CHGNet against DFT's.

    python benchmarks/alexandria_heat_capacity.py alexandria-binary-pbe-phonon-2025.1.json.gz [--displacement 0.01]

The structures and DFT's values are Alexandria's (CC-BY-4.0), as MatCalc packs them. Drawn at random with a fixed seed
among the crystals whose supercell of at least 8 Angstrom has at most 128 atoms and needs at most 8 displacements.
Protocol: mdr-esen, apart from the supercells, which the file does not say. Continues where an interrupted run stopped.
"""

import argparse
import gzip
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pymatgen.core import Structure

from esen_flows.campaigns.cost import displaced_supercells
from esen_flows.errors import EsenFlowsError
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.phonon import phonon
from esen_flows.physics.relax import relax
from esen_flows.schemas.named_protocols import mdr_esen_protocol
from esen_flows.schemas.protocols import HarmonicProtocol, PhononProtocol

RESULTS = Path(__file__).parent / "results"
COUNT, SEED, LEAST_LENGTH, MOST_ATOMS, MOST_DISPLACEMENTS = 30, 0, 8.0, 128, 8


def main() -> None:
    """Compute what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--displacement", type=float, default=0.01, help="Angstrom")
    parser.add_argument("--model", default="chgnet")
    given = parser.parse_args()
    torch.set_num_threads(1)
    suffix = "" if given.displacement == 0.01 else f"_{given.displacement:g}"
    path = RESULTS / f"alexandria_heat_capacity_{given.model}{suffix}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["crystals"] if path.exists() else []
    protocol = protocol_of(given.displacement)
    force_field = load_force_field(given.model, dtype="float64")
    for entry in chosen(json.loads(gzip.decompress(given.file.read_bytes())), protocol)[len(rows) :]:
        rows.append(computed(entry, protocol, force_field))
        path.write_text(json.dumps(summary(rows, given.model, protocol), indent=1) + "\n")
        print(rows[-1], flush=True)


def protocol_of(displacement_angstrom: float) -> PhononProtocol:
    """mdr-esen with supercells by their length."""
    published = mdr_esen_protocol({})
    changes = {"displacement_angstrom": displacement_angstrom, "fc2_min_length_angstrom": LEAST_LENGTH}
    return published.model_copy(update={"displacement": published.displacement.model_copy(update=changes)})


def chosen(entries: list[dict[str, Any]], protocol: PhononProtocol) -> list[dict[str, Any]]:
    """The crystals, in the order in which they are drawn."""
    found: list[dict[str, Any]] = []
    for number in np.random.default_rng(SEED).permutation(len(entries)):
        atoms = Structure.from_dict(entries[number]["structure"]).to_ase_atoms()
        cells = displaced_supercells(atoms, protocol.displacement)
        if cells and cells[0].atoms <= MOST_ATOMS and cells[0].count <= MOST_DISPLACEMENTS:
            found.append({**entries[number], "atoms": atoms})
        if len(found) == COUNT:
            break
    return found


def computed(entry: dict[str, Any], protocol: PhononProtocol, force_field: Any) -> dict[str, Any]:
    """One crystal: heat capacities per mole of primitive cells."""
    start = time.process_time()
    row: dict[str, Any] = {"mp_id": entry["mp_id"], "formula": entry["formula"], "dft": entry["heat_capacity"]}
    try:
        relaxed = relax(entry["atoms"], force_field, protocol.relax)
        forces = displaced_forces(relaxed.structure.to_atoms(), force_field, protocol.displacement)
        found = phonon(forces, HarmonicProtocol.of(protocol))
    except EsenFlowsError as error:
        return {**row, "failure": f"{type(error).__name__}: {error}"}
    room = list(protocol.temperatures_kelvin).index(300.0)
    # DFT's values are per mole of the cell in the file, ours of the primitive one.
    cells = len(entry["atoms"]) / len(found.structure.numbers)
    return {
        **row,
        "cv": round(cells * float(found.heat_capacity_j_per_k_mol[room]), 4),
        "verdict": found.verdict,
        "supercell_atoms": int(forces.forces_fc2.shape[1]),
        "displacements": len(forces.forces_fc2),
        "cpu_seconds": round(time.process_time() - start, 2),
    }


def summary(rows: list[dict[str, Any]], model: str, protocol: PhononProtocol) -> dict[str, Any]:
    """The table with its means."""
    done = [row for row in rows if "cv" in row]
    errors = np.array([row["cv"] - row["dft"] for row in done])
    atoms = np.array([row["dft"] for row in done])
    return {
        "model": model,
        "protocol": protocol.model_dump(mode="json"),
        "unit": "J/K per mol of cells, 300 K",
        "crystals_done": len(done),
        "mae": round(float(np.abs(errors).mean()), 4) if done else None,
        "mean_error": round(float(errors.mean()), 4) if done else None,
        "mean_absolute_relative_error": round(float(np.abs(errors / atoms).mean()), 5) if done else None,
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in done), 1),
        "versions": {name: version(name) for name in ("torch", "phonopy")},
        "cpu": platform.processor() or platform.machine(),
        "threads": 1,
        "crystals": rows,
    }


if __name__ == "__main__":
    main()

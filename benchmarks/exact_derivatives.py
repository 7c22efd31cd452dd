"""What exact second derivatives cost, in force calls, and how far finite displacements are from them.

    python benchmarks/exact_derivatives.py

writes benchmarks/results/exact_derivatives_<device>.json. Crystals are diamond silicon in supercells of the cubic cell.
`first` is one Hessian-vector product by itself, `further` each one after it (the gradient is built once); a compact
Hessian is 6 of them. The 3.2M network has random weights. Seconds are medians; other work on the machine moves them,
processor seconds (of which the ratios are) less than wall seconds.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from esen_flows.cli.machine import tune_allocator
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.network.esen.config import PUBLISHED
from esen_flows.network.esen.esen import ESEN
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.harmonic import HarmonicLattice
from esen_flows.schemas.protocols import DisplacementProtocol

LATTICE_ANGSTROM = 5.46663  # of esen_silicon
REPETITIONS, FURTHER = 5, 4
Timing = dict[str, float]


def supercell(repeats: int) -> Atoms:
    """Cubic cells of silicon, 8 atoms each."""
    return bulk("Si", "diamond", a=LATTICE_ANGSTROM, cubic=True).repeat(repeats)


def published_size(device: str, dtype: Any) -> NetworkForceField:
    """The 3.2M network with random weights."""
    torch.manual_seed(0)
    network = ESEN(PUBLISHED["esen_3.2m"])
    return NetworkForceField(Checkpoint(network, 1.0, {}, (14,), model_key="random"), device=device, dtype=dtype)


def timed(work: Callable[[], Any], repetitions: int = REPETITIONS) -> Timing:
    """Median wall and processor seconds after one call for warming up."""
    work()
    wall, processor = [], []
    for _ in range(repetitions):
        start = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return {"seconds": median(wall), "cpu_seconds": median(processor)}


def costs(force_field: NetworkForceField, atoms: Atoms) -> dict[str, Any]:
    """Force call, products and compact Hessian of one supercell."""
    directions = np.random.default_rng(0).normal(size=(1 + FURTHER, len(atoms), 3))
    force = timed(lambda: force_field.evaluate([atoms]))
    first = timed(lambda: force_field.hessian_vector_products(atoms, directions[:1]))
    several = timed(lambda: force_field.hessian_vector_products(atoms, directions))
    further = {name: (several[name] - first[name]) / FURTHER for name in first}
    rows = [0, 1]  # the two atoms of the primitive cell
    return {
        "atoms": len(atoms),
        "force_call": force,
        "first": first,
        "further": further,
        "first_in_force_calls": first["cpu_seconds"] / force["cpu_seconds"],
        "further_in_force_calls": further["cpu_seconds"] / force["cpu_seconds"],
        "compact_hessian": timed(lambda: force_field.hessian(atoms, rows), 3),
    }


def deviations(device: str) -> dict[str, dict[str, float]]:
    """Largest deviation of force constants from exact ones in float64, relative to the largest; 64 atoms of silicon."""
    protocol = DisplacementProtocol(fc2_supercell=(2, 2, 2))
    changes: dict[str, dict[str, Any]] = {
        f"{step} A": {"displacement_angstrom": step} for step in (0.03, 0.01, 0.003, 0.001, 0.0003)
    }
    changes["autodiff"] = {"force_constants": "autodiff"}
    constants: dict[str, dict[str, np.ndarray]] = {"float64": {}, "float32": {}}
    for dtype, found in constants.items():
        force_field = load_force_field("esen_silicon", device=device, dtype=dtype)  # type: ignore[arg-type]
        for name, change in changes.items():
            forces = displaced_forces(supercell(1), force_field, protocol.model_copy(update=change))
            found[name] = HarmonicLattice(forces).force_constants
    exact = constants["float64"]["autodiff"]
    return {
        dtype: {name: float(np.abs(values - exact).max() / np.abs(exact).max()) for name, values in found.items()}
        for dtype, found in constants.items()
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    tune_allocator()
    silicon, large = load_force_field("esen_silicon", device=device), published_size(device, "float32")
    result = {
        "costs": {
            "esen_silicon float64": [costs(silicon, supercell(n)) for n in (1, 2, 3)],
            "3.2M float32": [costs(large, supercell(n)) for n in (1, 2)],
        },
        "deviations": deviations(device),
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "versions": {name: version(name) for name in ("torch", "phonopy", "esen_flows")},
    }
    path = Path(__file__).parent / "results" / f"exact_derivatives_{device.split(':')[0]}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()

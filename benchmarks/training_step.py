"""A training step of this package and of the public reference, side by side: same weights, batch, losses and allocator.

    python benchmarks/training_step.py [--environments FOLDER] [--device cuda]

FOLDER holds the environments that `reference_env.sh` makes. Writes benchmarks/results/training_step_<device>.json. The
losses and gradient norms of both sides are in it: that they agree says that the same thing was timed.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from esen_speed import HERE, OURS, REFERENCES, run, write_weights
from esen_speed_cases import Case, structure

from esen_flows.data.neighbors import pair_table
from esen_flows.network.esen.config import PUBLISHED

WORKER = "training_step_worker.py"
CASES = [Case("esen_3.2m", "Si", 64), Case("esen_3.2m", "Si", 216)]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--environments", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = [measure(case, options) for case in CASES]
    document = {"device": options.device, "threads": options.threads, "load_average": os.getloadavg(),
                "date": time.strftime("%Y-%m-%d"), "rows": rows}  # fmt: skip
    path = HERE / "results" / f"training_step_{options.device.split(':')[0]}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    for row in rows:
        print(
            f"{row['model']}/{row['atoms']}: {row['seconds']:.3g} s, {row['cpu_seconds']:.3g} CPU s; {row['ratio_cpu']}"
        )


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    config = PUBLISHED[case.model]
    atoms = structure(case.structure, case.atoms)
    pairs = pair_table(atoms, config.cutoff_angstrom)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(
            folder / "system.npz", numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array,
            source=pairs.source, target=pairs.target, shifts=pairs.shifts.long(), label_energy=np.array(0.0),
            label_forces=random.normal(size=(len(atoms), 3)), label_stress=0.01 * random.normal(size=(3, 3)),
        )  # fmt: skip
        write_weights(folder, config)
        names = ("num_layers", "lmax", "mmax", "sphere_channels", "hidden_channels", "edge_channels")
        published = {n: getattr(config, n) for n in (*names, "num_distance_basis", "norm_type", "use_envelope")}
        task = {"threads": options.threads, "repeats": options.repeats, "device": options.device, "dtype": case.dtype,
                "options": {**published, "cutoff": config.cutoff_angstrom, "direct_forces": False}}  # fmt: skip
        (folder / "task.json").write_text(json.dumps(task))
        pythons = {OURS: Path(sys.executable)}
        for reference, environment in REFERENCES.items() if options.environments else ():
            pythons[reference] = options.environments / environment / "bin" / "python"
        found = {name: run(name, python, folder, "tuned", options, WORKER) for name, python in pythons.items()}
    mine = found.pop(OURS)
    whole = {name: answer for name, answer in found.items() if "error" not in answer}
    ratios = {f"ratio_{short}": {n: a[f"{long}"] / mine[long] for n, a in whole.items()}
              for short, long in (("cpu", "cpu_seconds"), ("wall", "seconds"))}  # fmt: skip
    return {"model": case.model, "structure": case.structure, "atoms": case.atoms, "edges": len(pairs.source),
            "dtype": case.dtype, **mine, **ratios, "reference": found}  # fmt: skip


if __name__ == "__main__":
    main()

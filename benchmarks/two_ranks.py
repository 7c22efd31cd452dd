"""Steps per second of a training on one process and on two, one thread each, with the same global batches.

    python benchmarks/two_ranks.py

writes benchmarks/results/two_ranks.json. Both train the small network of models/esen_silicon on rattled silicon with
labels of that model, for the same number of steps; the first ones are not timed. The losses of both are compared.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import yaml
from ase.build import bulk

from esen_flows.data.folders import write_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.forcefield.load import load_force_field
from esen_flows.training.metrics import read_rows

ROOT = Path(__file__).parents[1]
WARM_UP_STEPS, STEPS, STRUCTURES_PER_BATCH = 10, 40, 4
CHANGES = {"epochs": 1, "validate_every_epochs": 1, "edges_per_batch": 1_000_000, "warmup_steps": 5,
           "structures_per_batch": STRUCTURES_PER_BATCH, "group_share": None, "dtype": "float32"}  # fmt: skip


def main() -> None:
    """Measure and write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder / "data")
        stage = yaml.safe_load((ROOT / "models/esen_silicon/training.yaml").read_text()) | CHANGES
        (folder / "stage.yaml").write_text(yaml.safe_dump(stage))
        rows = {ranks: run(folder, ranks) for ranks in (1, 2)}
    rates = {ranks: rate(found) for ranks, found in rows.items()}
    losses = [np.array([row["loss"] for row in found]) for found in rows.values()]
    document = {
        "device": "cpu, one thread a process",
        "steps_per_second": {str(ranks): value for ranks, value in rates.items()},
        "speed_up": rates[2] / rates[1],
        "largest_relative_difference_of_losses": float(np.max(np.abs(losses[0] / losses[1] - 1))),
        "structures_per_batch": STRUCTURES_PER_BATCH,
        "load_average": os.getloadavg(),
        "versions": {name: version(name) for name in ("torch", "esen_flows")},
        "date": time.strftime("%Y-%m-%d"),
    }
    path = ROOT / "benchmarks/results/two_ranks.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(path.read_text())


def make_data(folder: Path) -> None:
    """64-atom cells, as many as the steps need and some to validate."""
    labeller = load_force_field("esen_silicon", dtype="float32")
    items = []
    for seed in range((WARM_UP_STEPS + STEPS) * STRUCTURES_PER_BATCH + 8):
        atoms = bulk("Si", a=5.466, cubic=True) * (2, 2, 2)
        atoms.rattle(0.03, seed=seed)
        (result,) = labeller.evaluate([atoms])
        items.append(LabelledStructure(atoms, result.energy, result.forces, result.stress))
    write_dataset(folder, items)


def run(folder: Path, ranks: int) -> list[dict[str, float]]:
    """The rows of steps.csv of a training on so many processes."""
    output = folder / f"{ranks}_ranks"
    command = [str(Path(sys.executable).with_name("esen-flows")), "train", str(folder / "stage.yaml"), "--data",
               str(folder / "data"), "--folder", str(output), "--validation-fraction", "0.03"]  # fmt: skip
    if ranks > 1:
        torchrun = str(Path(sys.executable).with_name("torchrun"))
        command = [torchrun, "--nproc-per-node", str(ranks), "--master-port", "29513", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ESEN_FLOWS_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return read_rows(output / "steps.csv")


def rate(rows: list[dict[str, float]]) -> float:
    """Steps per second after the warm-up."""
    later = [row for row in rows if row["step"] >= WARM_UP_STEPS]
    return (later[-1]["step"] - later[0]["step"]) / (later[-1]["seconds"] - later[0]["seconds"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

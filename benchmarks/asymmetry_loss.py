"""Direct forces trained with and without a loss on the asymmetry of their Jacobian, at about equal cost.

    xz -dc benchmarks/data/nano.xyz.xz > nano.xyz
    OMP_NUM_THREADS=1 python benchmarks/asymmetry_loss.py nano.xyz --folder asymmetry

Networks of width 16 on the NaCl and MgO of the data, from random weights. A step with the term costs more, so that
stages with it have fewer epochs. Measured: held-out errors, asymmetry of the Jacobian and work around loops of rattled
cells, drift of the energy. Trainings and rows of benchmarks/results/asymmetry_loss.json that are there are not
repeated; --trial prints the cost of an epoch instead.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from conservation_variants import BASE, STEP_FS, SYSTEMS, VARIANTS

from esen_flows.data.dataset import Dataset, subset
from esen_flows.data.importing import read_dataset
from esen_flows.data.splits import split_by_material
from esen_flows.errors import EsenFlowsError
from esen_flows.files import written_whole
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.conservation.jacobian import asymmetry, jacobian_by_differences, loop_work
from esen_flows.physics.md.dynamics import molecular_dynamics_many
from esen_flows.schemas.md import MDProtocol
from esen_flows.training.config import TrainingConfig, config_from_dict
from esen_flows.training.evaluate import evaluate_dataset
from esen_flows.training.metrics import STEPS_NAME, read_rows
from esen_flows.training.train import train

RESULTS = Path(__file__).parent / "results" / "asymmetry_loss.json"
NAMES = ("NaCl", "MgO")
STAGE = {
    **BASE, **VARIANTS["width 16"], **VARIANTS["direct forces"], "validate_every_epochs": 1000, "edges_per_batch": 1000,
}  # fmt: skip
# Coefficient of the term and epochs: all but the second setting take about the same CPU time.
SETTINGS = ((0.0, 36), (0.0, 15), (1.0, 15), (10.0, 15))
SEEDS = (1,)
PICOSECONDS, KELVIN = 2.0, 600.0


def data(path: Path) -> tuple[Dataset, Dataset]:
    """Training and held-out structures of the two crystals, of at most 8 atoms."""
    everything = read_dataset(path)
    wanted = [set(SYSTEMS[name].get_chemical_symbols()) for name in NAMES]
    small = [(i, item.atoms) for i, item in enumerate(everything) if len(item.atoms) <= 8]
    chosen = [i for i, atoms in small if set(atoms.get_chemical_symbols()) in wanted]
    dataset = subset(everything, chosen)
    return split_by_material(dataset, 0.15, seed=0).apply(dataset)


def stage(weight: float, seed: int, epochs: int) -> TrainingConfig:
    return config_from_dict({**STAGE, "asymmetry_weight": weight, "seed": seed, "epochs": epochs})


def rattled(count: int = 1) -> list[Atoms]:
    found = []
    for name in NAMES:
        for seed in range(count):
            atoms = SYSTEMS[name].copy()
            atoms.rattle(0.05, seed=seed)
            found.append(atoms)
    return found


def drifts(force_field: ForceField) -> dict[str, Any]:
    """Slope of the total energy and its interval (meV/atom/ps), or why there is none, by system."""
    protocol = MDProtocol(
        ensemble="nve", n_steps=round(1000 * PICOSECONDS / STEP_FS), time_step=STEP_FS, temperature=KELVIN
    )
    found: dict[str, Any] = {}
    for index, outcome in molecular_dynamics_many([SYSTEMS[name] for name in NAMES], force_field, protocol):
        if isinstance(outcome, EsenFlowsError):
            found[NAMES[index]] = f"{type(outcome).__name__}: {outcome}"
        else:
            assert outcome.drift is not None  # there are hundreds of frames
            drift = outcome.drift
            found[NAMES[index]] = [drift.slope_mev_per_atom_ps, drift.slope_interval_mev_per_atom_ps]
    return found


def measured(force_field: ForceField, validation: Dataset) -> dict[str, Any]:
    """Errors on held-out structures, and by how much the forces fail to be a gradient."""
    random = np.random.default_rng(0)
    cells = rattled()
    return {
        "test": evaluate_dataset(force_field, validation)["all"],
        "jacobian_asymmetry": [asymmetry(jacobian_by_differences(force_field, atoms, 0.005)) for atoms in cells],
        "relative_loop_work": [loop_work(force_field, atoms, random, 0.2, 24)[1] for atoms in cells],
        "drift": drifts(force_field),
    }


def trial(training: Dataset, validation: Dataset, folder: Path) -> None:
    for weight in sorted({weight for weight, _ in SETTINGS}):
        begin = time.process_time()
        train(stage(weight, 1, 1), training, validation, folder / f"trial-{weight:g}")
        print(f"weight {weight:g}: {time.process_time() - begin:.1f} CPU seconds for an epoch and its validation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="labelled structures: nano.xyz")
    parser.add_argument("--folder", type=Path, default=Path("asymmetry"), help="folder of the trainings")
    parser.add_argument("--trial", action="store_true", help="only measure what an epoch costs")
    asked = parser.parse_args()
    training, validation = data(asked.data)
    if asked.trial:
        return trial(training, validation, asked.folder)
    for seed in SEEDS:
        for weight, epochs in SETTINGS:
            name = f"weight {weight:g}, {epochs} epochs, seed {seed}"
            rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            if name in rows:
                continue
            folder = asked.folder / name.replace(" ", "_").replace(",", "")
            path = train(stage(weight, seed, epochs), training, validation, folder)
            row: dict[str, Any] = {"weight": weight, "seed": seed, "epochs": epochs}
            row["training_cpu_seconds"] = read_rows(folder / STEPS_NAME)[-1]["cpu_seconds"]  # of resumed ones too
            row |= measured(load_force_field(str(path), dtype="float64"), validation)
            with written_whole(RESULTS) as temporary:
                temporary.write_text(json.dumps(rows | {name: row}, indent=1) + "\n")
            print(name, json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

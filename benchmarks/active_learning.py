"""Training on frames of the student's own dynamics, against as many random frames.

    OMP_NUM_THREADS=1 python benchmarks/active_learning.py --folder learning

Teacher: esen_nano. Student: an eSEN of one layer of width 16 for NaCl, first trained on 20 rattled cells of 8 atoms.
Two rounds then add 20 frames each: those of its own dynamics with the largest errors ("teacher"), random ones of its
own dynamics ("random"), or further rattled cells ("rattled"). All have the same number of frames and epochs, unless the
teacher's forces on a random frame are too large to learn; to find the largest errors the teacher labels all frames of a
round. At the end all students run other trajectories, on whose frames they are judged against the teacher (without
those on which its forces are too large, whose number is kept), and so are they on frames of the teacher's dynamics,
which are the same for all. Each seed has its own cells and weights, and its own velocities in a round; those of round n
are those of round n - 1 of the next seed. An interrupted run continues.
Result in benchmarks/results/active_learning.json; `--draw` draws docs/figures/active_learning.png from it.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from ase import Atoms
from ase.build import bulk
from conservation_variants import BASE, VARIANTS
from matplotlib import pyplot as plt

from esen_flows.data.dataset import Dataset, mixture
from esen_flows.data.importing import read_dataset
from esen_flows.files import written_whole
from esen_flows.forcefield.checkpoint import Checkpoint, load
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.active_learning.rounds import Materials, active_learning
from esen_flows.schemas.active_learning import ActiveLearningSpec, RoundRecord
from esen_flows.schemas.card import checkpoint_path, read_card
from esen_flows.training.config import config_from_dict
from esen_flows.training.evaluate import evaluate_dataset
from esen_flows.training.label import label
from esen_flows.training.train import train

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "active_learning.json"
FIGURE = ROOT / "docs" / "figures" / "active_learning.png"
CELL = bulk("NaCl", "rocksalt", a=5.69, cubic=True)
FRAMES, ROUNDS, HELD_OUT, EPOCHS = 20, 2, 20, (60, 20)
STAGE = {
    **BASE, **VARIANTS["width 16"], "num_layers": 1, "cutoff_angstrom": 4.5, "epochs": EPOCHS[0],
    "validate_every_epochs": 1000, "edges_per_batch": 1000, "warmup_steps": 20, "ema_decay": 0.95,
}  # fmt: skip
LATER = {**STAGE, "epochs": EPOCHS[1], "learning_rate": 0.001}
ARMS = ("teacher", "random", "rattled")
KINDS = ("own", "frames_of_the_teacher", "held_out")


def rattled(count: int, seed: int) -> list[Atoms]:
    """Cells like those of the group cell8 of models/esen_nano/data.yaml."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        atoms = CELL.copy()
        atoms.set_cell(atoms.cell * (1 + random.uniform(-0.08, 0.08)) ** (1 / 3), scale_atoms=True)
        amplitude = np.exp(random.uniform(np.log(0.01), np.log(0.15)))
        atoms.positions += amplitude * random.standard_normal((len(atoms), 3))
        found.append(atoms)
    return found


def specification(seed: int, **changes: Any) -> ActiveLearningSpec:
    return ActiveLearningSpec(
        teacher="esen_nano", students=("student",), structures=("NaCl",), data=("rattled",), frames_per_round=FRAMES,
        temperatures_kelvin=(800.0, 1600.0), duration_ps=1.6, seed=seed, **changes,
    )  # fmt: skip


def judged(
    folder: Path, seed: int, student: Checkpoint, teacher: ForceField, data: Dataset, held_out: Dataset
) -> RoundRecord:
    """A student on trajectories that none was trained on: with other velocities."""
    spec = specification(1000 * seed + 500, rounds=0)
    return active_learning(spec, Materials([student], teacher, [CELL], data, held_out), folder)[0]


def labelled(folder: Path, name: str, count: int, seed: int, teacher: ForceField) -> Dataset:
    path = folder / f"{name}.xyz"
    return read_dataset(path if path.is_file() else label(rattled(count, seed), teacher, path, batch_size=8))


def run(folder: Path, seed: int) -> dict[str, Any]:
    """Trainings and measurements of all students."""
    begin = time.process_time()
    teacher = load_force_field("esen_nano")
    data = labelled(folder, "data", FRAMES, 100 * seed + 1, teacher)
    held_out = labelled(folder, "held_out", HELD_OUT, 100 * seed + 2, teacher)
    first = load(train(config_from_dict({**STAGE, "seed": 1 + seed}), data, held_out, folder / "first"))
    students, growth = {"start": folder / "first" / "checkpoint.safetensors"}, {}
    for arm in ARMS[:2]:
        materials = Materials([first], teacher, [CELL], data, held_out, config_from_dict(LATER))
        records = active_learning(specification(1000 * seed, rounds=ROUNDS, choose=arm), materials, folder / arm)
        growth[arm] = [record.model_dump(mode="json") for record in records]
        students[arm] = folder / arm / records[-1].checkpoint
    path, grown = students["start"], [data]
    for number in range(1, ROUNDS + 1):
        grown.append(labelled(folder, f"more-{number}", FRAMES, 100 * seed + 2 + number, teacher))
        together = mixture([(one, 1) for one in grown])
        path = train(config_from_dict(LATER), together, held_out, folder / f"rattled-{number}", initial=load(path))
    students["rattled"] = path
    judged(folder / "judged-labeller", seed, load(checkpoint_path(read_card("esen_nano"))), teacher, data, held_out)
    common = read_dataset(next((folder / "judged-labeller").rglob("own.xyz")))
    found = {}
    for name, at in students.items():
        record = judged(folder / f"judged-{name}", seed, load(at), teacher, data, held_out)
        errors = evaluate_dataset(load_force_field(str(at)), common)["all"]
        found[name] = {**record.model_dump(mode="json"), "frames_of_the_teacher": errors}
    return {
        "students": found,
        "growth": growth,
        "cpu_seconds_of_this_call": round(time.process_time() - begin, 1),
    }


def draw() -> None:
    """Errors on own frames, on the teacher's and on held-out rattled cells: mean and range over the seeds."""
    seeds = list(json.loads(RESULTS.read_text())["seeds"].values())
    names = {"start": "start", "rattled": "more rattled cells", "random": "own frames,\nrandom",
             "teacher": "own frames,\nlargest errors"}  # fmt: skip
    figure, axes = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
    places = np.arange(len(names))
    kinds = {"own": "frames of its own dynamics", "frames_of_the_teacher": "frames of the teacher's dynamics",
             "held_out": "held-out rattled cells"}  # fmt: skip
    for shift, (kind, title) in zip((-0.27, 0, 0.27), kinds.items(), strict=True):
        each = np.array(
            [[one["students"][name][kind]["force_mae_mev_per_angstrom"] for name in names] for one in seeds]
        )
        mean = each.mean(axis=0)
        bars = axes.bar(places + shift, mean, 0.25, label=title)
        axes.errorbar(places + shift, mean, [mean - each.min(axis=0), each.max(axis=0) - mean], fmt="none", color="k")
        axes.bar_label(bars, fmt="%.0f", fontsize=8, label_type="center", color="w")
    axes.set_xticks(places, list(names.values()))
    axes.set(ylabel="force MAE against the teacher (meV/Å)", yscale="log")
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.22), ncols=3, fontsize=8)
    figure.savefig(FIGURE, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("learning"), help="folder of the trainings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds to run")
    parser.add_argument("--draw", action="store_true", help="only draw")
    asked = parser.parse_args()
    for seed in () if asked.draw else asked.seeds:
        result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"seeds": {}}
        result["frames"] = {"first": FRAMES, "per_round": FRAMES, "rounds": ROUNDS}
        result["seeds"][str(seed)] = run(asked.folder / f"seed-{seed}", seed)
        with written_whole(RESULTS) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n")
        for name, row in result["seeds"][str(seed)]["students"].items():
            print(seed, name, *(row[kind]["force_mae_mev_per_angstrom"] for kind in KINDS), flush=True)
    draw()


if __name__ == "__main__":
    main()

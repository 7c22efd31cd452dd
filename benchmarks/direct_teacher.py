"""A conservative student of a teacher with direct forces, audited beside it.

    OMP_NUM_THREADS=1 python benchmarks/direct_teacher.py nano.xyz TEACHER --folder direct_teacher

TEACHER is a checkpoint with direct forces for NaCl and MgO, such as that of `weight 0` of asymmetry_loss.py or the
variant "direct forces" of conservation_variants.py. It labels the NaCl and MgO of the data anew (energies, direct
forces, stresses of its head), on which a conservative network of width 16 is trained; a second one is trained on the
labels that the teacher was trained on. All three are judged on held-out structures with these original labels, and by
the asymmetry of their Jacobian, work around loops and drift of the energy. Result in
benchmarks/results/direct_teacher.json; parts that are there are not repeated.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from asymmetry_loss import STAGE, data, measured
from conservation_variants import BASE, VARIANTS

from esen_flows.data.dataset import Dataset
from esen_flows.data.importing import read_dataset
from esen_flows.files import written_whole
from esen_flows.forcefield.load import load_force_field
from esen_flows.training.config import config_from_dict
from esen_flows.training.evaluate import evaluate_dataset
from esen_flows.training.label import label
from esen_flows.training.train import train

RESULTS = Path(__file__).parent / "results" / "direct_teacher.json"
EPOCHS = 15
CONSERVATIVE = {
    **BASE, **VARIANTS["width 16"], "epochs": EPOCHS, "validate_every_epochs": 1000,
    "edges_per_batch": STAGE["edges_per_batch"],
}  # fmt: skip


def relabelled(original: Dataset, teacher: str, path: Path) -> Dataset:
    """The structures of a dataset with the teacher's labels."""
    if not path.is_file():
        structures = [item.atoms for item in original]
        label(structures, load_force_field(teacher), path, batch_size=16)
    return read_dataset(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="labelled structures: nano.xyz")
    parser.add_argument("teacher", help="checkpoint with direct forces")
    parser.add_argument("--folder", type=Path, default=Path("direct_teacher"), help="folder of labels and trainings")
    asked = parser.parse_args()
    training, validation = data(asked.data)
    taught = relabelled(validation, asked.teacher, asked.folder / "held_out.xyz")
    for name in ("teacher, direct forces", "student of the teacher", "student of the original labels"):
        rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        if name in rows:
            continue
        path, begin = asked.teacher, time.process_time()
        if not name.startswith("teacher"):
            own = name == "student of the teacher"
            labels = relabelled(training, asked.teacher, asked.folder / "labels.xyz") if own else training
            folder = asked.folder / ("student" if own else "control")
            path = str(train(config_from_dict(CONSERVATIVE), labels, validation, folder))
        row: dict[str, Any] = {"training_and_labels_cpu_seconds": round(time.process_time() - begin, 1)}
        force_field = load_force_field(path, dtype="float64")
        row |= measured(force_field, validation)
        row |= {"against_teacher": evaluate_dataset(force_field, taught)["all"]}
        with written_whole(RESULTS) as temporary:
            temporary.write_text(json.dumps(rows | {name: row}, indent=1) + "\n")
        print(name, json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

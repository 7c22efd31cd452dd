"""Static errors of a force field on DFT's frames, as a campaign with `benchmark: static-errors`.

    python benchmarks/static_errors.py esen_nano --data FOLDER [--sample 500] [--dtype float64]

FOLDER holds frames in files *.xyz.gz with energies, forces and stresses; measured were the five files of MatterSim's
test sets (microsoft/mattersim at 2966303, MIT): a stand-in for the 5,000 frames of sAlex, which are not published, and
mostly of the same source, MPtrj and Alexandria. Frames with an element that the force field was not trained on are left
out, and those with a set of elements of its training structures are a subset of their own. Everything is stored in the
database of ESEN_FLOWS_DATA_DIR, so that a repeated run computes nothing again. Written to
benchmarks/results/static_errors_<model>.json.
"""

import argparse
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from esen_flows.campaigns.benchmark import campaign_metrics
from esen_flows.campaigns.plan import plan
from esen_flows.campaigns.reproduce import compute_here
from esen_flows.campaigns.spec import read_spec
from esen_flows.data.folders import is_dataset_folder, open_dataset, write_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.screening import BadRecord
from esen_flows.data.sources.read import read_source
from esen_flows.schemas.card import ModelReference, resolve_model
from esen_flows.settings import get_settings
from esen_flows.store.connection import open_store
from esen_flows.structures.checks import outside_of
from esen_flows.version import __version__

RESULTS = Path(__file__).parent / "results"
SPEC = """\
name: static_errors_{model}
description: {description}
property: static
structures: {{dataset: {dataset}{sample}}}
models: {model}
dtype: {dtype}
require: [covers_elements]
duplicates: merge
benchmark: static-errors
"""
DESCRIPTION = "A stand-in for the test set of sAlex, MatterSim's test frames"


def main() -> None:
    """Compute what is not stored yet, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sample", type=int, help="number of frames drawn; default: all")
    parser.add_argument("--dtype", default="float64", choices=("float32", "float64"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = resolve_model(asked.model)
    files = sorted(asked.data.glob("*.xyz.gz"))
    # The folder is part of the campaign's identity, so that it has to be the same in a repeated run.
    folder = get_settings().data_dir / "static_errors" / asked.model
    dataset = open_dataset(folder) if is_dataset_folder(folder) else write_dataset(folder, frames(files, model))
    sample = "" if asked.sample is None else f", sample: {asked.sample}"
    text = SPEC.format(model=asked.model, description=DESCRIPTION, dataset=folder, sample=sample, dtype=asked.dtype)
    with TemporaryDirectory() as scratch:
        (Path(scratch) / "spec.yaml").write_text(text)
        spec = read_spec(scratch)
    store = open_store()
    plan(store, spec, text)
    compute_here(store, spec.name)
    (found,) = campaign_metrics(store, spec.name)
    failed = [row["material"] for row in found.materials if row["state"] != "finished"]
    result = {
        "force_field": model.label,
        "model_key": model.key,
        "dtype": asked.dtype,
        "data": f"{DESCRIPTION}: {', '.join(file.name.partition('.')[0] for file in files)}",
        "frames_of_covered_elements": len(dataset),
        "frames_compared": found.done["frames"],
        "not_computed": failed,
        "errors": found.done,
        "intervals_95": found.intervals,
        "esen_flows": __version__,
        "torch": torch.__version__,
        "device": platform.processor() or platform.machine(),
        "threads": 1,
        "load_average": os.getloadavg(),
    }
    path = RESULTS / f"static_errors_{asked.model}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path.read_text())


def frames(files: list[Path], model: ModelReference) -> Iterator[LabelledStructure | BadRecord]:
    """Frames whose elements the force field covers, with the subset that they belong to."""
    for file in files:
        name = file.name.partition(".")[0]
        for item in read_source(file):
            if isinstance(item, BadRecord):
                yield item
            elif model.elements is None or set(item.atoms.numbers.tolist()) <= set(model.elements):
                inside = model.chemical_systems is not None and outside_of(item.atoms, model) is None
                yield replace(item, group=f"{name}, inside of the domain" if inside else name)


if __name__ == "__main__":
    main()

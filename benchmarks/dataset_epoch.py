"""A million records on disk: how long until an epoch's first batch, and what the loader holds.

    OMP_NUM_THREADS=1 python benchmarks/dataset_epoch.py [--records 1000000] [--folder /tmp/esen_epoch]

writes benchmarks/results/dataset_epoch.json. One process writes the records (random crystals of 20 to 40 atoms,
rigidly shifted copies of a thousand of them, so that edges are counted once for each of the thousand). Another one,
with the files put out of the page cache, opens the folder as a training does: identity, edge counts, order of the epoch
by the recipe of eSEN-30M-MP (512 structures a batch), first batch as tensors; then it reads every record of the epoch
in its random order. References and scale, which a fresh training fits once, are timed on their own. The data are
removed.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from esen_flows.assets import asset_dir
from esen_flows.data.dataset import from_structures
from esen_flows.data.edge_counts import keep_edges
from esen_flows.data.folders import open_dataset, write_dataset
from esen_flows.data.labelled import LabelledStructure

RESULT = Path(__file__).parent / "results" / "dataset_epoch.json"
PROTOTYPES = 1000
CUTOFF_ANGSTROM = 6.0
BATCHES_AS_TENSORS = 10


def main() -> None:
    """Write, measure in a process of its own, write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/esen_epoch"))
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--read", action="store_true", help="only read what is there; for the process of its own")
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.folder)))
        return
    try:
        written = write(options.folder, options.records)
        command = [sys.executable, __file__, "--read", "--folder", str(options.folder)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    finally:
        shutil.rmtree(options.folder, ignore_errors=True)
    result = {
        "device": f"cpu, {platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_average": os.getloadavg(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "versions": {name: version(name) for name in ("esen_flows", "torch", "numpy", "ase", "vesin")},
        "records": options.records,
        **written,
        **json.loads(done.stdout.splitlines()[-1]),
    }
    options.result.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def crystal(random: np.random.Generator) -> Atoms:
    """20 to 40 atoms of three elements, 12 Angstrom^3 each, no two closer than 1.4 Angstrom."""
    n = int(random.integers(20, 41))
    length = (12.0 * n) ** (1 / 3)
    cell = length * (np.eye(3) + random.uniform(-0.1, 0.1, size=(3, 3)))
    side = int(np.ceil(n ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)[:n]
    positions = (grid / side) @ cell + random.normal(scale=0.1, size=(n, 3))
    return Atoms(random.choice(random.choice(np.arange(3, 84), 3), n), positions=positions, cell=cell, pbc=True)


def records(count: int, prototypes: list[Atoms]) -> Iterator[LabelledStructure]:
    """Copies of the prototypes in turn, shifted as a whole, ten to a material, with random labels."""
    random = np.random.default_rng(1)
    for number in range(count):
        atoms = prototypes[number % len(prototypes)].copy()
        atoms.positions += random.uniform(0, 1, size=3)
        stress = random.normal(scale=0.01, size=(3, 3))
        forces = random.normal(scale=0.5, size=(len(atoms), 3))
        energy = -6.0 * len(atoms) + random.normal()
        yield LabelledStructure(atoms, energy, forces, (stress + stress.T) / 2, "", f"mp-{number // 10}")


def write(folder: Path, count: int) -> dict[str, Any]:
    """Write the records and their edge counts."""
    random = np.random.default_rng(0)
    prototypes = [crystal(random) for _ in range(PROTOTYPES)]
    started = time.perf_counter()
    dataset = write_dataset(folder, records(count, prototypes), provenance={"synthetic": True})
    seconds = time.perf_counter() - started
    few = from_structures(records(PROTOTYPES, prototypes))
    started = time.perf_counter()
    edges = few.edge_counts(CUTOFF_ANGSTROM).astype(np.int32)
    per_record = (time.perf_counter() - started) / PROTOTYPES
    (tables,) = dataset._tables
    keep_edges(tables, CUTOFF_ANGSTROM, np.resize(edges, count))
    for path in folder.iterdir():  # out of the page cache, so that reading starts from the disk
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return {
        "atoms_per_record": round(float(dataset.n_atoms.mean()), 2),
        "edges_per_record": round(float(edges.mean()), 1),
        "gigabytes_on_disk": round(sum(path.stat().st_size for path in folder.iterdir()) / 1e9, 3),
        "write_seconds": round(seconds, 1),
        "edge_count_milliseconds_per_record": round(1e3 * per_record, 3),
    }


def read(folder: Path) -> dict[str, Any]:
    """What a training does until its first batch, and a whole epoch of reading."""
    from esen_flows.data.references import fit_references, force_scale
    from esen_flows.training.batches import plan_epoch
    from esen_flows.training.config import read_config
    from esen_flows.training.frames import collate, make_frame

    config = read_config(asset_dir("models") / "esen_30m_mp" / "finetune_40.yaml")
    references = dict.fromkeys(range(1, 119), -6.0)
    imported = peak_gigabytes()
    started = time.perf_counter()
    dataset = open_dataset(folder)
    opened = time.perf_counter()
    identity = dataset.key
    edges = dataset.edge_counts(CUTOFF_ANGSTROM)
    plan = plan_epoch(dataset, edges, config, 0)
    planned = time.perf_counter()
    for number in range(min(BATCHES_AS_TENSORS, len(plan))):
        picks = plan.batch(number)
        collate([make_frame(dataset[pick.index], config.network, references) for pick in picks])
        if number == 0:
            first = time.perf_counter()
    tensors, made = time.perf_counter(), number
    for number in range(len(plan)):
        for pick in plan.batch(number):
            if len(dataset[pick.index].atoms) != dataset.n_atoms[pick.index]:
                raise RuntimeError(f"record {pick.index} of {identity} is another one")
    epoch = time.perf_counter()
    held = peak_gigabytes()
    fit_references(dataset)
    force_scale(dataset)
    fitted = time.perf_counter()
    return {
        "structures_per_batch": config.structures_per_batch,
        "batches_of_the_epoch": len(plan),
        "open_seconds": round(opened - started, 3),
        "open_to_order_of_epoch_seconds": round(planned - started, 3),
        "open_to_first_batch_seconds": round(first - started, 3),
        "batch_as_tensors_seconds": round((tensors - first) / made, 3),
        "read_epoch_seconds": round(epoch - tensors, 1),
        "records_read_per_second": round(len(dataset) / (epoch - tensors)),
        "fit_references_and_scale_seconds": round(fitted - epoch, 1),
        "peak_gigabytes_imports_alone": round(imported, 3),
        "peak_gigabytes_after_the_epoch": round(held, 3),
        "peak_gigabytes_after_fitting": round(peak_gigabytes(), 3),
    }


def peak_gigabytes() -> float:
    """Most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()

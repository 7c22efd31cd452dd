"""Batches against single calls, and what neighbour lists cost, in one run.

    OMP_NUM_THREADS=2 python benchmarks/batching.py [--repeats 5] [--atoms 64,216,1000,8000]

writes benchmarks/results/batching.json. Times are medians over interleaved repetitions, so that other work on the
machine meets all alike; CPU seconds beside wall seconds tell how much of it there was. Batches: the shipped laptop
model. Neighbour lists: a network of the published 3.2M configuration with random weights, float32.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from ase import Atoms
from ase.build import bulk

from esen_flows.cli.machine import tune_allocator
from esen_flows.data.batch_state import BatchState
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.network.esen.config import PUBLISHED
from esen_flows.network.esen.esen import ESEN

MODEL = "esen_silicon"
# Cells of 2 to 20 atoms, as multiples of the primitive one.
MULTIPLES = (
    (1, 1, 1),
    (2, 1, 1),
    (3, 1, 1),
    (2, 2, 1),
    (5, 1, 1),
    (3, 2, 1),
    (7, 1, 1),
    (2, 2, 2),
    (3, 3, 1),
    (5, 2, 1),
)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--atoms", default="64,216,1000,8000", help="sizes of which neighbour lists are timed")
    options = parser.parse_args()
    tune_allocator()
    rows = [small_structures(dtype, options.repeats) for dtype in ("float32", "float64")]
    rows.append(displaced_supercells(options.repeats))
    rows += [neighbor_lists(int(atoms), options.repeats) for atoms in options.atoms.split(",")]
    result = {
        "device": f"cpu, {platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "allocator": "as esen-flows sets it: memory is kept",
        "repeats": options.repeats,
        "load_average": os.getloadavg(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "versions": {name: version(name) for name in ("torch", "vesin", "ase", "esen_flows")},
        "rows": rows,
    }
    path = Path(__file__).parent / "results" / "batching.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path.read_text())


def interleaved(work: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Medians of wall and CPU seconds of each, after two calls that are not counted."""
    wall: dict[str, list[float]] = {name: [] for name in work}
    cpu: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(repeats + 2):
        for name, call in work.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            call()
            if repeat >= 2:
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - start_cpu)
    seconds = {f"{name}_seconds": median(values) for name, values in wall.items()}
    return seconds | {f"{name}_cpu_seconds": median(values) for name, values in cpu.items()}


def rattled(atoms: Atoms, seed: int) -> Atoms:
    """A copy whose atoms are off their places by 0.05 Angstrom."""
    copy = atoms.copy()
    copy.rattle(0.05, seed=seed)
    return copy


def n_edges(force_field: NetworkForceField, structures: list[Atoms]) -> int:
    """Of all of them together."""
    return int(BatchState.of(structures, once=True).edges(force_field.network.config.cutoff_angstrom).counts.sum())


def small_structures(dtype: Any, repeats: int) -> dict[str, Any]:
    """64 small cells in one batch, one by one, and one large cell with about as many edges."""
    force_field = cast(NetworkForceField, load_force_field(MODEL, dtype=dtype))
    primitive = bulk("Si", "diamond", a=5.43)
    cells = [rattled(primitive * MULTIPLES[seed % len(MULTIPLES)], seed) for seed in range(64)]
    large = rattled(bulk("Si", "diamond", a=5.43, cubic=True) * (5, 4, 4), 0)
    work = {
        "batch": lambda: force_field.evaluate(cells),
        "single_calls": lambda: [force_field.evaluate([atoms]) for atoms in cells],
        "large_structure": lambda: force_field.evaluate([large]),
        "two_atoms": lambda: force_field.evaluate(cells[:1]),
        "neighbor_lists_of_batch": lambda: BatchState.of(cells, once=True).edges(5.0),
    }
    row = interleaved(work, repeats)
    edges, edges_of_large = n_edges(force_field, cells), n_edges(force_field, [large])
    ratios = {}
    for kind in ("seconds", "cpu_seconds"):
        ratios[f"single_over_batch_{kind}"] = row[f"single_calls_{kind}"] / row[f"batch_{kind}"]
        per_edge, of_large = row[f"batch_{kind}"] / edges, row[f"large_structure_{kind}"] / edges_of_large
        ratios[f"per_edge_over_large_structure_{kind}"] = per_edge / of_large
    what = {"what": "64 structures of 2-20 atoms", "model": MODEL, "dtype": dtype}
    return (
        what | {"edges": edges, "edges_of_large_structure": edges_of_large, "atoms_of_large": len(large)} | row | ratios
    )


def displaced_supercells(repeats: int) -> dict[str, Any]:
    """Neighbour lists of 32 displaced supercells of one crystal: in one batch, and one by one."""
    perfect = bulk("Si", "diamond", a=5.43, cubic=True) * (3, 3, 3)
    cells = []
    for atom in range(32):
        cells.append(perfect.copy())
        cells[-1].positions[atom, 0] += 0.03
    work = {
        "batch": lambda: BatchState.of(cells, once=True).edges(6.0),
        "one_by_one": lambda: [BatchState.of([atoms], once=True).edges(6.0) for atoms in cells],
    }
    row = interleaved(work, repeats)
    ratio = row["one_by_one_seconds"] / row["batch_seconds"]
    return {"what": "neighbour lists of 32 displaced supercells", "atoms": len(perfect)} | row | {"ratio": ratio}


def neighbor_lists(atoms: int, repeats: int) -> dict[str, Any]:
    """A force call, a search, and a list from kept pairs as in the next step of a trajectory."""
    torch.manual_seed(0)
    network = ESEN(PUBLISHED["esen_3.2m"])
    force_field = NetworkForceField(Checkpoint(network, 1.0, {}, (14,), model_key="0" * 64), dtype="float32")
    n = round((atoms / 8) ** (1 / 3))
    cell = rattled(bulk("Si", "diamond", a=5.43, cubic=True) * (n, n, n), 0)
    kept = BatchState.of([cell])
    kept.edges(6.0)
    shift = torch.from_numpy(rattled(cell, 1).positions - cell.positions)
    work = {
        "force_call": lambda: force_field.evaluate([cell]),
        "search": lambda: BatchState.of([cell], once=True).edges(6.0),
        "kept_list": lambda: kept.moved(kept.positions + shift).edges(6.0),
    }
    row = interleaved(work, repeats)
    shares = {}
    for kind in ("seconds", "cpu_seconds"):
        for name in ("search", "kept_list"):
            shares[f"{name}_share_of_{kind}"] = row[f"{name}_{kind}"] / row[f"force_call_{kind}"]
    what = {"what": "neighbour list", "model": "esen_3.2m", "dtype": "float32", "atoms": len(cell)}
    return what | {"edges": n_edges(force_field, [cell])} | row | shares


if __name__ == "__main__":
    main()

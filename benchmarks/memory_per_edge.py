"""Memory per edge of energy, forces and stress: of living tensors, of the process, and as estimated.

    python benchmarks/memory_per_edge.py

writes benchmarks/results/memory_per_edge.json. Each evaluation runs in a process of its own, on cells of 8 rattled
silicon atoms in one batch; what does not grow with the batch is taken off by the difference of two sizes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import torch
from ase.build import bulk

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.esen.config import PUBLISHED
from esen_flows.network.esen.esen import ESEN
from esen_flows.network.esen.memory import bytes_per_edge

CELLS = {"esen_3.2m": (4, 16), "esen_30m_mp": (1, 4)}
ALLOCATORS = {"default": {}, "kept": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}}


def main() -> None:
    """Measure and write, or (with --cells) measure one and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=CELLS)
    parser.add_argument("--dtype", choices=("float32", "float64"))
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--cells", type=int)
    options = parser.parse_args()
    if options.cells:
        print(json.dumps(one(options.model, getattr(torch, options.dtype), options.compiled, options.cells)))
        return
    rows = [row(*case) for case in product(CELLS, ("float32", "float64"), (False, True))]
    versions = {name: version(name) for name in ("torch", "esen_flows")}
    result = {
        "device": f"cpu, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions,
        "rows": rows,
    }
    path = Path(__file__).parent / "results" / "memory_per_edge.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path.read_text())


def row(model: str, dtype: str, compiled: bool) -> dict[str, Any]:
    """Kilobytes per edge of one configuration."""
    found: dict[str, Any] = {"model": model, "dtype": dtype, "compiled": compiled}
    estimate = bytes_per_edge(PUBLISHED[model], getattr(torch, dtype), frozen=compiled)
    found["estimated_kb"] = estimate / 1e3
    for allocator, variables in ALLOCATORS.items():
        few, many = (_run(model, dtype, compiled, cells, variables) for cells in CELLS[model])
        more = many["edges"] - few["edges"]
        found["tensors_kb"] = (many["tensors"] - few["tensors"]) / more / 1e3
        found[f"process_{allocator}_kb"] = (many["process"] - few["process"]) / more / 1e3
    return found


def _run(model: str, dtype: str, compiled: bool, cells: int, variables: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--model", model, "--dtype", dtype, "--cells", str(cells)]
    done = subprocess.run(
        command + ["--compiled"] * compiled, env=os.environ | variables, capture_output=True, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def one(model: str, dtype: torch.dtype, compiled: bool, cells: int) -> dict[str, Any]:
    """Bytes at their peak, of the process and of tensors."""
    network = ESEN(PUBLISHED[model]).to(dtype).eval()
    network.requires_grad_(False)
    if compiled:
        network.freeze()
    structures = []
    for seed in range(cells):
        structures.append(bulk("Si", cubic=True))
        structures[-1].rattle(0.05, seed=seed)
    graphs = [Graph.from_atoms(atoms, network.config.cutoff_angstrom) for atoms in structures]
    batch = GraphBatch.collate(graphs, dtype=dtype)
    energy_forces_stress(network, batch)
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        energy_forces_stress(network, batch)
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return {"edges": batch.n_edges, "process": process, "tensors": most}


if __name__ == "__main__":
    main()

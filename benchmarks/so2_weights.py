"""Complex against real SO(2) weights: parameters, and seconds of a training step and of an evaluation, in one run.

    python benchmarks/so2_weights.py

writes benchmarks/results/so2_weights.json. Both networks see the same 64-atom silicon cells with random weights; times
are medians over interleaved repetitions, so that other work on the machine meets both alike.
"""

import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from ase.build import bulk

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.esen.config import ESENConfig
from esen_flows.network.esen.esen import ESEN

SIZES = {
    "esen_silicon": {"sphere_channels": 32, "hidden_channels": 32, "edge_channels": 32, "cutoff_angstrom": 5.0},
    "esen_3.2m": {},
}
REPETITIONS = 9


def seconds(network: ESEN, graph: GraphBatch, training: bool) -> float:
    """One evaluation, or one evaluation with the gradient of a loss on its forces."""
    network.requires_grad_(training)
    start = time.perf_counter()
    result = energy_forces_stress(network, graph, create_graph=training)
    if training:
        (result.forces.square().sum() + result.energy.sum()).backward()
        network.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def measure(sizes: dict[str, float]) -> dict[str, dict[str, float]]:
    """Parameters and times of both kinds of weights, float32."""
    atoms = bulk("Si", "diamond", a=5.47, cubic=True) * (2, 2, 2)
    atoms.rattle(0.05, seed=0)
    torch.manual_seed(0)
    networks = {kind: ESEN(ESENConfig(**sizes, so2_weights=kind)) for kind in ("complex", "real")}
    graph = GraphBatch.collate([Graph.from_atoms(atoms, networks["real"].config.cutoff_angstrom)], dtype=torch.float32)
    times: dict[str, dict[str, list[float]]] = {kind: {"evaluation": [], "training_step": []} for kind in networks}
    for _ in range(REPETITIONS + 1):
        for kind, network in networks.items():
            times[kind]["evaluation"].append(seconds(network, graph, False))
            times[kind]["training_step"].append(seconds(network, graph, True))
    rows = {}
    for kind, network in networks.items():
        taken = {f"{name}_seconds": median(values[1:]) for name, values in times[kind].items()}
        rows[kind] = {"parameters": sum(p.numel() for p in network.parameters()), **taken}
    rows["real_over_complex"] = {name: rows["real"][name] / rows["complex"][name] for name in rows["real"]}
    return {"edges": {"count": graph.n_edges}, **rows}


def main() -> None:
    """Measure and write."""
    result = {
        "models": {name: measure(sizes) for name, sizes in SIZES.items()},
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "versions": {name: version(name) for name in ("torch", "esen_flows")},
    }
    path = Path(__file__).parent / "results" / "so2_weights.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()

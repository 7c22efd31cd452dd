"""One process of `training_step`: load an implementation, time steps of one optimiser on one batch.

    python training_step_worker.py FOLDER IMPLEMENTATION

reads FOLDER/task.json, system.npz and the weights, and prints one line of JSON. A step is energy, forces and stress
with their graph kept, the loss (per-atom energy, 2-norm of forces, stress), its gradient and an AdamW step. Neighbour
lists are made before, on both sides.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from esen_speed_floor import Timing, timed
from esen_speed_worker import cpu_peak_mb, versions
from torch import Tensor, nn

WARM_UP = 2
WEIGHTS = {"energy": 20.0, "forces": 20.0, "stress": 5.0}
Predict = Callable[[], dict[str, Tensor]]  # energy (1,), forces (atoms, 3), stress (3, 3)


def main() -> None:
    """Measure what the task says."""
    folder, implementation = Path(sys.argv[1]), sys.argv[2]
    task = json.loads((folder / "task.json").read_text())
    torch.set_num_threads(task["threads"])
    system = dict(np.load(folder / "system.npz"))
    make = ours if implementation == "esen_flows" else theirs
    parameters, predict = make(implementation, folder, task, system)
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, weight_decay=1e-3)
    labels = {name: torch.from_numpy(system[f"label_{name}"]).float() for name in WEIGHTS}
    n_atoms = len(system["numbers"])
    losses: list[float] = []

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        found = predict()
        energy = (found["energy"].reshape(()) - labels["energy"]).abs() / n_atoms
        forces = torch.linalg.vector_norm(found["forces"].reshape(-1, 3) - labels["forces"], dim=1).mean()
        stress = (found["stress"].reshape(3, 3) - labels["stress"]).abs().mean()
        loss = WEIGHTS["energy"] * energy + WEIGHTS["forces"] * forces + WEIGHTS["stress"] * stress
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))

    for _ in range(WARM_UP):
        step()
    calls: list[Timing] = [timed(step, task["device"]) for _ in range(task["repeats"])]
    norm = sum(float(p.grad.square().sum()) for p in parameters if p.grad is not None) ** 0.5
    answer = {name: median(getattr(call, name) for call in calls) for name in ("seconds", "cpu_seconds")}
    print(
        json.dumps(
            answer
            | {"peak_mb": cpu_peak_mb(), "first_loss": losses[0], "gradient_norm": norm, "calls": [*map(asdict, calls)]}
            | {"load_average": os.getloadavg(), "versions": versions()}
        )
    )


def ours(
    implementation: str, folder: Path, task: dict[str, Any], system: dict[str, np.ndarray]
) -> tuple[list[nn.Parameter], Predict]:
    """This package, as its training loop calls it."""
    from ase import Atoms

    from esen_flows.data.batch import Graph, GraphBatch
    from esen_flows.forcefield.checkpoint import load
    from esen_flows.network.derivatives import energy_forces_stress

    network = load(folder / "native.safetensors").network
    atoms = Atoms(system["numbers"], positions=system["positions"], cell=system["cell"], pbc=True)
    graph = Graph.from_atoms(atoms, network.config.cutoff_angstrom)
    batch = GraphBatch.collate([graph], dtype=torch.float32, device=task["device"])

    def predict() -> dict[str, Tensor]:
        found = energy_forces_stress(network, batch, create_graph=True)
        return {"energy": found.energy, "forces": found.forces, "stress": found.stress}

    return list(network.parameters()), predict


def theirs(
    implementation: str, folder: Path, task: dict[str, Any], system: dict[str, np.ndarray]
) -> tuple[list[nn.Parameter], Predict]:
    """A reference, in training mode."""
    from reference_model import reference_modules

    backbone, head, batch = reference_modules(implementation, folder, task, system)
    backbone.train()
    head.train()

    def predict() -> dict[str, Tensor]:
        data = batch(torch.from_numpy(system["positions"]))
        found: dict[str, Tensor] = head(data, backbone(data))
        return found

    return [*backbone.parameters(), *head.parameters()], predict


if __name__ == "__main__":
    main()

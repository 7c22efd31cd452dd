"""A tiny network's stages, and copper to train it on, for the tests of training jobs."""

from typing import Any

from ase import Atoms
from ase.build import bulk

STAGE = {
    "num_layers": 1, "lmax": 1, "mmax": 1, "sphere_channels": 8, "hidden_channels": 8, "edge_channels": 8,
    "num_distance_basis": 8, "cutoff_angstrom": 4.0, "epochs": 3, "edges_per_batch": 250, "learning_rate": 0.005,
    "weight_decay": 0.001, "warmup_steps": 2, "clip_norm": 100.0, "ema_decay": 0.9, "loss": "absolute",
    "energy_weight": 20.0, "force_weight": 20.0, "stress_weight": 5.0, "seed": 0,
}  # fmt: skip
DENS = {"direct_forces": True, "direct_stress": "source_target", "denoising": True}


def stage(**changes: Any) -> dict[str, Any]:
    """A conservative stage, changed."""
    return STAGE | changes


def crystals(count: int = 12, seed: int = 0) -> list[Atoms]:
    """Rattled copper in two groups."""
    made = []
    for index in range(count):
        atoms = bulk("Cu", "fcc", a=3.5 + 0.02 * (index % 6), cubic=True)
        atoms.rattle(0.08, seed=100 * seed + index)
        atoms.info |= {"group": "fcc" if index % 3 else "other", "material": f"Cu-{index}"}
        made.append(atoms)
    return made

"""Small stages and data that the tests of the training room share."""

from ase.build import bulk
from ase.calculators.lj import LennardJones

from esen_flows.data.dataset import Dataset, from_structures
from esen_flows.data.labelled import LabelledStructure
from esen_flows.training.config import TrainingConfig, config_from_dict

STAGE = {
    "num_layers": 1, "lmax": 2, "mmax": 2, "sphere_channels": 8, "hidden_channels": 8, "edge_channels": 8,
    "num_distance_basis": 8, "cutoff_angstrom": 5.0, "epochs": 6, "edges_per_batch": 400, "learning_rate": 0.01,
    "weight_decay": 0.001, "warmup_steps": 5, "clip_norm": 20.0, "ema_decay": 0.9, "loss": "relative",
    "energy_weight": 5.0, "force_weight": 1.0, "stress_weight": 0.5, "seed": 0,
}  # fmt: skip
DIRECT = {
    "direct_forces": True, "direct_stress": "source_target", "loss": "absolute", "energy_weight": 20.0,
    "force_weight": 20.0, "stress_weight": 5.0,
}  # fmt: skip
DENS = {**DIRECT, "denoising": True}


def stage(**changes: object) -> TrainingConfig:
    """A conservative stage of a tiny network, changed."""
    return config_from_dict(STAGE | changes)


def argon(count: int = 24, seed: int = 0) -> list[LabelledStructure]:
    """Rattled, strained fcc argon with Lennard-Jones labels (epsilon 10.4 meV, sigma 3.4 Angstrom)."""
    structures = []
    for index in range(count):
        atoms = bulk("Ar", "fcc", a=5.2 + 0.02 * (index % 6), cubic=True)
        atoms.rattle(0.08, seed=seed + index)
        atoms.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=8.0, smooth=True)
        labels = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
        structures.append(LabelledStructure(atoms.copy(), *labels, group="fcc"))
    return structures


def argon_data() -> tuple[Dataset, Dataset]:
    """20 structures to train on, and 4 held out."""
    structures = argon()
    return from_structures(structures[:20]), from_structures(structures[20:])

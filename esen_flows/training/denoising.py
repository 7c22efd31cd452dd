"""DeNS (denoising non-equilibrium structures, arXiv 2403.09549): noise on some batches, to be predicted.

All randomness is a function of seed, epoch, batch and place in the batch: nothing of it has to be saved, and it does
not depend on how many processes share a batch.
"""

from dataclasses import dataclass

import numpy as np

from esen_flows.training.config import TrainingConfig

_COIN, _NOISE = 1, 2  # streams of the seed; a plan of an epoch draws from [seed, epoch]


@dataclass(frozen=True)
class Noise:
    """What was done to a structure.

    Attributes
    ----------
    displacement_angstrom
        (n, 3) added to the positions; zero for atoms that stayed.
    moved
        (n,) bool.
    """

    displacement_angstrom: np.ndarray
    moved: np.ndarray


def is_noised(config: TrainingConfig, epoch: int, batch: int) -> bool:
    """Whether this batch is noised: all of its structures are, or none."""
    if not config.network.denoising:
        return False
    random = np.random.default_rng([config.seed, epoch, batch, _COIN])
    return bool(random.random() < config.denoising_probability)


def draw_noise(config: TrainingConfig, epoch: int, batch: int, place: int, n_atoms: int) -> Noise:
    """Gaussian noise for the structure at one place of a noised batch."""
    random = np.random.default_rng([config.seed, epoch, batch, _NOISE, place])
    moved = random.random(n_atoms) < config.denoising_atoms
    displacement = config.denoising_std_angstrom * random.standard_normal((n_atoms, 3))
    return Noise(np.where(moved[:, None], displacement, 0.0), moved)

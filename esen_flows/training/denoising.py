"""DeNS (denoising non-equilibrium structures, arXiv 2403.09549): noise on some batches, which the network predicts.

All randomness is a function of seed, epoch, batch and place in the batch. None of it has to be saved, and it does not
depend on how many processes share a batch.
"""

from dataclasses import dataclass

import numpy as np

from esen_flows.training.config import TrainingConfig

_COIN, _NOISE = 1, 2  # streams of the seed; the plan of an epoch draws from [seed, epoch]


@dataclass(frozen=True)
class Noise:
    """The displacements of a noised structure.

    Attributes
    ----------
    displacement_angstrom
        (n, 3) added to the positions; zero for atoms that stay.
    moved
        (n,) bool, which atoms are displaced.
    """

    displacement_angstrom: np.ndarray
    moved: np.ndarray


def is_noised(config: TrainingConfig, epoch: int, batch: int) -> bool:
    """Whether a batch is noised: either all of its structures are, or none.

    Parameters
    ----------
    config
        Settings of the stage.
    epoch, batch
        Numbers of the epoch, and of the batch in it.

    Returns
    -------
    bool
        Always false for networks without `denoising`.
    """
    if not config.network.denoises:
        return False
    random = np.random.default_rng([config.seed, epoch, batch, _COIN])
    return bool(random.random() < config.denoising_probability)


def draw_noise(config: TrainingConfig, epoch: int, batch: int, place: int, n_atoms: int) -> Noise:
    """Draw Gaussian noise for one structure of a noised batch.

    Parameters
    ----------
    config
        Settings of the stage: seed, standard deviation, share of atoms.
    epoch, batch, place
        Numbers of the epoch, of the batch in it, and of the structure in the batch.
    n_atoms
        Atoms of the structure.

    Returns
    -------
    Noise
        Displacements of the atoms.
    """
    random = np.random.default_rng([config.seed, epoch, batch, _NOISE, place])
    moved = random.random(n_atoms) < config.denoising_atoms
    displacement = config.denoising_std_angstrom * random.standard_normal((n_atoms, 3))
    return Noise(np.where(moved[:, None], displacement, 0.0), moved)

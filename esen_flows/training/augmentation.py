"""Random rotations of structures, by which a network learns a symmetry that is not built in.

As for the noise of DeNS, a rotation is a function of seed, epoch, batch and place in the batch.
"""

import numpy as np

_ROTATION = 3  # stream of the seed, beside those of `denoising`


def random_orthogonal(seed: int, epoch: int, batch: int, place: int) -> np.ndarray:
    """Draw a rotation for one structure, uniformly from O(3): half of them are improper.

    Parameters
    ----------
    seed
        Seed of the stage.
    epoch, batch, place
        Numbers of the epoch, of the batch in it, and of the structure in the batch.

    Returns
    -------
    np.ndarray
        (3, 3) orthogonal matrix.
    """
    random = np.random.default_rng([seed, epoch, batch, _ROTATION, place])
    matrix, triangle = np.linalg.qr(random.standard_normal((3, 3)))
    signs: np.ndarray = np.sign(np.diag(triangle))
    return matrix * signs  # without the signs the distribution would not be uniform (Mezzadri, 2007)

"""Other ways to write the same crystal, for tests of what must not depend on them."""

import numpy as np
from ase import Atoms
from scipy.spatial.transform import Rotation


def rewritten(atoms: Atoms, seed: int, noise_angstrom: float = 0.0) -> Atoms:
    """The crystal with other lattice vectors, origin, order of atoms and orientation, and with noise."""
    rng = np.random.default_rng(seed)
    axes = np.eye(3, dtype=int)[rng.permutation(3)]
    axes[0] += rng.choice([-1, 1]) * axes[1]
    axes[2] += rng.choice([-1, 1]) * axes[0]
    if np.linalg.det(axes) < 0:
        axes = -axes
    cell = axes @ atoms.cell.array
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    other = Atoms(atoms.numbers, positions=atoms.positions + rng.random(3) @ cell, cell=cell, pbc=True)
    other.wrap()
    other = other[rng.permutation(len(other))]
    other.set_cell(other.cell.array @ turn.T)
    other.positions = other.positions @ turn.T + rng.uniform(-1, 1, (len(other), 3)) * noise_angstrom
    return other

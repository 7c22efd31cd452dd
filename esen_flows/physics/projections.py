"""Forces and stresses of a batch, projected on the symmetry of each crystal and on the free directions of its atoms."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from esen_flows.data.ragged import Rows, to_device
from esen_flows.physics.symmetry_lock import SymmetryLock


class Projections:
    """Projectors of all structures of a batch.

    Optimisers move along combinations of forces, so that what has no force never moves.

    Parameters
    ----------
    locks
        Symmetry that each structure keeps, or None.
    free_directions
        (atoms, 3, 3) projectors on the directions in which the atoms of a structure may move, or None.
    counts
        Number of atoms of each structure.
    device
        torch device of forces and stresses.
    """

    def __init__(
        self,
        locks: Sequence[SymmetryLock | None],
        free_directions: Sequence[np.ndarray | None],
        counts: Sequence[int],
        device: torch.device,
    ) -> None:
        blocks = [_blocks(lock, free, count) for lock, free, count in zip(locks, free_directions, counts, strict=True)]
        first = np.cumsum([0, *counts[:-1]])
        targets = np.concatenate([block[0] + start for block, start in zip(blocks, first, strict=True)])
        self._pairs = Rows(np.bincount(targets, minlength=int(sum(counts))), device)
        sources = np.concatenate([block[1] + start for block, start in zip(blocks, first, strict=True)])
        self._source = to_device(sources, device)
        self._matrices = to_device(np.concatenate([block[2] for block in blocks]), device)
        stresses = np.array([np.eye(9) if lock is None else lock.stress_projector for lock in locks])
        self._stresses = to_device(stresses, device)

    def forces(self, forces: Tensor) -> Tensor:
        """The part of forces that may act.

        Parameters
        ----------
        forces
            (atoms, 3) in any unit.

        Returns
        -------
        Tensor
            (atoms, 3) in the same unit.
        """
        acting = torch.bmm(self._matrices, forces.index_select(0, self._source).unsqueeze(2)).squeeze(2)
        return self._pairs.reduce(acting)

    def stresses(self, stresses: Tensor) -> Tensor:
        """The part of stresses that has the symmetry of the crystals.

        Parameters
        ----------
        stresses
            (structures, 3, 3) in any unit.

        Returns
        -------
        Tensor
            (structures, 3, 3) in the same unit.
        """
        return torch.bmm(self._stresses, stresses.reshape(-1, 9, 1)).view(-1, 3, 3)


def _blocks(
    lock: SymmetryLock | None, free_directions: np.ndarray | None, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms that get a force, atoms whose force they get, and matrices (pairs, 3, 3)."""
    if lock is not None:  # crystals with fixed atoms have no lock
        return lock.force_blocks
    own = np.arange(count)
    return own, own, np.broadcast_to(np.eye(3), (count, 3, 3)) if free_directions is None else free_directions

"""Linewidths at q-points of a grid from arrays alone, on as many threads as torch may use."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch

from esen_flows.physics.lattice.transport.collisions import CUTOFF_THZ, averaging, linewidth_unit, phonons_on_grid
from esen_flows.physics.lattice.transport.grid import Grid, triplets_of
from esen_flows.physics.lattice.transport.isotopes import isotope_linewidths
from esen_flows.physics.lattice.transport.kernel import Kernel
from esen_flows.physics.lattice.transport.tetrahedra import distinct_tetrahedra
from esen_flows.physics.lattice.transport.vertices import Crystal, VertexTransform, merged_tensor, periodic_modes

# Of a q-point's tensor on two axes of the grid; where it would be larger, the modes of q0 are taken in parts.
TENSOR_BYTES = 400e6
# q-points whose phases go through the sparse tensor together; reading it is what takes the time.
POINTS_AT_ONCE = 4
Item = TypeVar("Item")
Result = TypeVar("Result")


class Linewidths:
    """Linewidths of the phonons of a crystal by three-phonon processes and by isotopes.

    Parameters
    ----------
    crystal
        Third-order force constants.
    grid
        The grid.
    frequencies
        (size, n) in THz, ascending at each point, in the order of `Grid.addresses`; imaginary ones are negative.
    eigenvectors
        (size, n, n) complex with the mode as last index, in phonopy's gauge.
    q_points
        (size, 3) q-points of the eigenvectors in reduced coordinates; any of those that are equivalent.
    temperatures
        (n_temperatures,) in K.
    """

    def __init__(
        self,
        crystal: Crystal,
        grid: Grid,
        frequencies: np.ndarray,
        eigenvectors: np.ndarray,
        q_points: np.ndarray,
        temperatures: Sequence[float],
    ) -> None:
        modes = periodic_modes(crystal, grid, frequencies, eigenvectors, q_points, CUTOFF_THZ)
        self._grid = grid
        self._phonons = phonons_on_grid(grid, distinct_tetrahedra(grid), frequencies, modes, np.asarray(temperatures))
        self._transform = VertexTransform(merged_tensor(crystal, grid), grid, modes)
        self._kernel = Kernel(grid, self._phonons, eigenvectors)

    def by_phonons(self, points: Sequence[int]) -> np.ndarray:
        """Linewidths by three-phonon processes.

        Parameters
        ----------
        points
            Indices of grid points.

        Returns
        -------
        np.ndarray
            (n_temperatures, n_points, n) in THz: half the width at half maximum, 1 / (4 pi lifetime).
        """
        groups = [points[begin : begin + POINTS_AT_ONCE] for begin in range(0, len(points), POINTS_AT_ONCE)]
        found = _on_threads(self._of_group, groups)
        return np.stack([linewidths for group in found for linewidths in group], axis=1)

    def by_isotopes(self, points: Sequence[int], variances: np.ndarray) -> np.ndarray:
        """Linewidths by the mass disorder of isotopes.

        Parameters
        ----------
        points
            Indices of grid points.
        variances
            (n_primitive,) mean squared relative deviations of the isotopes' masses.

        Returns
        -------
        np.ndarray
            (n_points, n) in THz.
        """
        sums = _on_threads(lambda point: self._kernel.isotope_sums(point, variances), points)
        return np.stack([isotope_linewidths(self._phonons, *pair) for pair in zip(points, sums, strict=True)])

    def _of_group(self, points: Sequence[int]) -> list[np.ndarray]:
        return [self._of_point(*pair) for pair in zip(points, self._transform.anchored(points), strict=True)]

    def _of_point(self, point: int, anchored: np.ndarray) -> np.ndarray:
        """(n_temperatures, n) linewidths of one q-point in THz."""
        n, triplets = self._transform.bands, triplets_of(self._grid, point)
        at_once = max(1, min(n, int(TENSOR_BYTES // self._transform.bytes_per_mode)))
        total = np.zeros((len(self._phonons.occupations), n))
        for begin in range(0, n, at_once):
            bands = slice(begin, min(n, begin + at_once))
            partial = self._transform.to_grid(anchored, point, bands)
            total += self._kernel.linewidths(self._transform, partial, triplets, bands)
        return np.asarray(total @ averaging(self._phonons.blocks[point]).T * linewidth_unit(self._grid.size))


def _on_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Results in the order of the items: the same numbers on any number of threads."""
    threads = min(torch.get_num_threads(), len(items))
    with _one_thread_each():
        if threads < 2:
            return [work(item) for item in items]
        # torch keeps the number of threads of an operation by thread.
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Matrix products on the calling thread alone, whose sums then have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

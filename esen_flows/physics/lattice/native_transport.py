"""The arrays of phono3py that our own linewidths need, in the order in which they need them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from phonopy.phonon.tetrahedron_method import get_tetrahedra_relative_gr_grid_address

from esen_flows.physics.lattice.transport.grid import Grid
from esen_flows.physics.lattice.transport.linewidths import Linewidths
from esen_flows.physics.lattice.transport.vertices import Crystal


class NativeLinewidths:
    """Linewidths at grid points that are named as in phono3py.

    Parameters
    ----------
    ph3
        phono3py with third-order force constants and phonons on its mesh.
    temperatures
        In K.
    """

    def __init__(self, ph3: Any, temperatures: Sequence[float]) -> None:
        bz_grid = ph3.grid
        addresses = np.array(bz_grid.addresses)
        self._grid = Grid(
            np.array(bz_grid.D_diag),
            np.array(bz_grid.Q),
            np.array(bz_grid.rotations),
            np.array(get_tetrahedra_relative_gr_grid_address(bz_grid, symmetrize_tetrahedra=True)),
        )
        self._own_index = self._grid.indices(addresses)
        # phono3py keeps points on the zone boundary several times; of each, the one that stands for all.
        unique = np.array(bz_grid.grg2bzg)
        order = unique[np.argsort(self._own_index[unique])]
        frequencies, eigenvectors, _ = ph3.get_phonon_data()
        self._linewidths = Linewidths(
            _crystal(ph3),
            self._grid,
            np.array(frequencies)[order],
            np.array(eigenvectors)[order],
            addresses[order] @ np.array(bz_grid.QDinv).T,
            temperatures,
        )

    def by_phonons(self, grid_points: np.ndarray) -> np.ndarray:
        """Linewidths by three-phonon processes.

        Parameters
        ----------
        grid_points
            Indices in phono3py's grid.

        Returns
        -------
        np.ndarray
            (n_temperatures, n_points, n_bands) in THz.
        """
        return self._linewidths.by_phonons(self._own_index[grid_points].tolist())

    def by_isotopes(self, grid_points: np.ndarray, variances: np.ndarray) -> np.ndarray:
        """Linewidths by isotopes.

        Parameters
        ----------
        grid_points
            Indices in phono3py's grid.
        variances
            (n_primitive,) relative mass variances of the atoms.

        Returns
        -------
        np.ndarray
            (n_points, n_bands) in THz.
        """
        return self._linewidths.by_isotopes(self._own_index[grid_points].tolist(), variances)


def _crystal(ph3: Any) -> Crystal:
    primitive, fc3 = ph3.primitive, np.array(ph3.fc3)
    if len(fc3) != len(primitive):  # the first index of full force constants runs over the supercell
        fc3 = fc3[primitive.p2s_map]
    vectors, multiplicities = primitive.get_smallest_vectors()
    return Crystal(
        fc3,
        np.array(vectors),
        np.array(multiplicities),
        np.array(primitive.scaled_positions),
        np.array(primitive.masses),
        np.array([primitive.p2p_map[atom] for atom in primitive.s2p_map]),
    )

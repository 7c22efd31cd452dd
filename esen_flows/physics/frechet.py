"""Positions and cells of many structures as variables of one minimisation: the logarithm of the deformation.

The variables of a structure are those of ASE's `FrechetCellFilter`, so that an optimiser has the same trajectory: the
positions of its atoms in the undeformed cell, and three more rows for log(F) times the number of atoms, where F is the
deformation with cell = start F^T.
"""

from dataclasses import dataclass

import numpy as np
import torch

from esen_flows.physics.segments import Segments

_ONE = np.eye(3)


@dataclass(frozen=True)
class CellFreedom:
    """How cells may deform.

    Attributes
    ----------
    mask
        Free components of the strain, in Voigt order xx yy zz yz xz xy.
    hydrostatic
        Whether only one strain, equal in all directions, is free.
    constant_volume
        Whether no strain is free that changes the volume to first order.
    """

    mask: tuple[bool, ...] = (True,) * 6
    hydrostatic: bool = False
    constant_volume: bool = False

    @property
    def matrix(self) -> np.ndarray:
        """(3, 3) matrix, one where the strain is free and zero elsewhere."""
        xx, yy, zz, yz, xz, xy = self.mask
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], dtype=float)

    def free_part(self, virials: np.ndarray) -> np.ndarray:
        """The part of virials that acts on free strains.

        Parameters
        ----------
        virials
            (n, 3, 3).

        Returns
        -------
        np.ndarray
            (n, 3, 3).
        """
        return (_isotropic(virials) if self.hydrostatic else virials) * self.matrix


class RelaxationVariables:
    """Positions and cells of structures that are relaxed together.

    Parameters
    ----------
    positions
        (atoms of all structures, 3) in Angstrom.
    cells
        (structures, 3, 3) in Angstrom, lattice vectors as rows.
    counts
        (structures,) atoms of each structure.
    freedom
        How cells may deform; None: cells are constant.
    start
        (structures, 3, 3) undeformed cells in Angstrom.
    """

    def __init__(
        self,
        positions: np.ndarray,
        cells: np.ndarray,
        counts: np.ndarray,
        freedom: CellFreedom | None,
        start: np.ndarray,
    ) -> None:
        self.positions, self.cells, self.freedom, self.start = positions, cells, freedom, start
        self.atoms = Segments(counts)
        self.rows = Segments(counts + 3) if freedom else self.atoms
        own = np.arange(len(self.rows.owner)) - self.rows.starts[self.rows.owner]
        self._is_atom = own < counts[self.rows.owner]

    def select(self, keep: np.ndarray) -> "RelaxationVariables":
        """The variables of selected structures.

        Parameters
        ----------
        keep
            (structures,) bool.

        Returns
        -------
        RelaxationVariables
            New variables.
        """
        positions, counts = self.positions[self.atoms.of(keep)], self.atoms.counts[keep]
        return RelaxationVariables(positions, self.cells[keep], counts, self.freedom, self.start[keep])

    def joined(self, others: "RelaxationVariables") -> "RelaxationVariables":
        """The variables of these structures, followed by those of others.

        Parameters
        ----------
        others
            Variables with the same freedom.

        Returns
        -------
        RelaxationVariables
            New variables.
        """
        pairs = zip(self._columns(), others._columns(), strict=True)
        positions, cells, counts, start = (np.concatenate(pair) for pair in pairs)
        return RelaxationVariables(positions, cells, counts, self.freedom, start)

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.positions, self.cells, self.atoms.counts, self.start

    def split(self) -> list[np.ndarray]:
        """Positions of each structure.

        Returns
        -------
        list[np.ndarray]
            (atoms, 3) in Angstrom for each structure.
        """
        return np.split(self.positions, self.atoms.starts[1:])

    def forces(self, forces: np.ndarray, stresses: np.ndarray) -> np.ndarray:
        """Negative gradient of the energy with respect to the variables.

        Parameters
        ----------
        forces
            (atoms, 3) in eV/Angstrom.
        stresses
            (structures, 3, 3) in eV/Angstrom^3.

        Returns
        -------
        np.ndarray
            (rows, 3) in eV/Angstrom.
        """
        if self.freedom is None:
            return forces
        deformation = self._deformation()
        volumes = np.abs(np.linalg.det(self.cells))
        virial = self.freedom.free_part(-volumes[:, None, None] * stresses)
        gradient = _exp_adjoint(_logarithm(deformation), virial @ np.linalg.inv(_transposed(deformation)))
        if self.freedom.constant_volume:
            gradient = gradient - _isotropic(gradient)
        result = np.empty((len(self.rows.owner), 3))
        result[self._is_atom] = _rows_times(forces, deformation[self.atoms.owner])
        result[~self._is_atom] = (gradient / self.atoms.counts[:, None, None]).reshape(-1, 3)
        return result

    def coordinates(self) -> np.ndarray:
        """Values of the variables.

        Returns
        -------
        np.ndarray
            (rows, 3) in Angstrom.
        """
        if self.freedom is None:
            return self.positions
        deformation = self._deformation()
        result = np.empty((len(self.rows.owner), 3))
        result[self._is_atom] = self._undeformed(deformation)
        result[~self._is_atom] = (_logarithm(deformation) * self.atoms.counts[:, None, None]).reshape(-1, 3)
        return result

    def move(self, step: np.ndarray) -> None:
        """Change positions and cells by a step of the variables.

        Parameters
        ----------
        step
            (rows, 3) in Angstrom.
        """
        if self.freedom is None:
            self.positions = self.positions + step
            return
        deformation = self._deformation()
        undeformed = self._undeformed(deformation) + step[self._is_atom]
        change = step[~self._is_atom].reshape(-1, 3, 3) / self.atoms.counts[:, None, None]
        strained = _exponential(_logarithm(deformation) + change)
        # Masked again, because the exponential of a masked logarithm has other components, of second order.
        allowed = (_transposed(strained) - _ONE) * self.freedom.matrix + _ONE
        self.cells = self.start @ allowed
        self.positions = _rows_times(undeformed, allowed[self.atoms.owner])

    def _deformation(self) -> np.ndarray:
        """(structures, 3, 3) deformations F with cell = start F^T."""
        return _transposed(np.linalg.solve(self.start, self.cells))

    def _undeformed(self, deformation: np.ndarray) -> np.ndarray:
        return _rows_times(self.positions, np.linalg.inv(_transposed(deformation))[self.atoms.owner])


def _rows_times(vectors: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Each row vector (n, 3) times its matrix (n, 3, 3)."""
    return np.einsum("ai,aij->aj", vectors, matrices)


def _transposed(matrices: np.ndarray) -> np.ndarray:
    return matrices.transpose(0, 2, 1)


def _isotropic(matrices: np.ndarray) -> np.ndarray:
    """(n, 3, 3) unit matrices times a third of the trace."""
    third = np.trace(matrices, axis1=1, axis2=2) / 3
    return np.asarray(third[:, None, None] * _ONE)


def _exponential(matrices: np.ndarray) -> np.ndarray:
    result: np.ndarray = torch.linalg.matrix_exp(torch.from_numpy(np.ascontiguousarray(matrices))).numpy()
    return result


def _exp_adjoint(matrices: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Gradient of <exp(A), G> with respect to A, which is the derivative of exp at A^T along G.

    It is a block of the exponential of a larger matrix: Higham, Functions of Matrices (2008), eq. 3.16.
    """
    block = np.zeros((len(matrices), 6, 6))
    block[:, :3, :3] = block[:, 3:, 3:] = _transposed(matrices)
    block[:, :3, 3:] = directions
    return _exponential(block)[:, :3, 3:]


def _logarithm(matrices: np.ndarray) -> np.ndarray:
    """Principal logarithms of (n, 3, 3): square roots until near one, then the series of 2 atanh((F - 1)/(F + 1)).

    Within 0.05 of one, the terms beyond the 13th power are below rounding.
    """
    root, halvings = matrices, 0
    while np.abs(root - _ONE).max(initial=0.0) > 0.05 and halvings < 20:
        root, halvings = _square_root(root), halvings + 1
    u = _transposed(np.linalg.solve(_transposed(root + _ONE), _transposed(root - _ONE)))
    power, total, square = u, u, u @ u
    for odd in range(3, 15, 2):
        power = power @ square
        total = total + power / odd
    return np.asarray(2.0 ** (halvings + 1) * total)


def _square_root(matrices: np.ndarray) -> np.ndarray:
    """Principal square roots by the product form of Denman and Beavers' iteration, which converges quadratically."""
    root, inverse = matrices, np.broadcast_to(_ONE, matrices.shape)
    for _ in range(12):
        root, inverse = 0.5 * (root + np.linalg.inv(inverse)), 0.5 * (inverse + np.linalg.inv(root))
    return root

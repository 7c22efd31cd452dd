"""Positions and cells of many crystals as variables of one minimisation: the logarithm of the deformation.

The variables of a structure are those of ASE's `FrechetCellFilter`: atoms in the undeformed cell, and three more rows
for the logarithm of the deformation times the number of atoms, so that an optimiser follows the same path.
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
        Voigt xx yy zz yz xz xy, components of the strain that are free.
    hydrostatic
        one strain in all directions only; constant_volume : none that changes the volume to first order.
    """

    mask: tuple[bool, ...] = (True,) * 6
    hydrostatic: bool = False
    constant_volume: bool = False

    @property
    def matrix(self) -> np.ndarray:
        """(3, 3) ones where the strain is free."""
        xx, yy, zz, yz, xz, xy = self.mask
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], dtype=float)

    def of_virial(self, virial: np.ndarray) -> np.ndarray:
        """(n, 3, 3) virials of which only what is free is left."""
        return (_isotropic(virial) if self.hydrostatic else virial) * self.matrix


class Crystals:
    """Structures on their way: positions, cells and the cells that they started from.

    Parameters
    ----------
    positions
        (structures' atoms, 3) Angstrom.
    cells
        (structures, 3, 3) Angstrom, lattice vectors as rows.
    counts
        (structures,) atoms of each.
    freedom
        None: cells stay.
    start
        (structures, 3, 3) undeformed cells; default: `cells`.
    """

    def __init__(
        self,
        positions: np.ndarray,
        cells: np.ndarray,
        counts: np.ndarray,
        freedom: CellFreedom | None,
        start: np.ndarray | None = None,
    ) -> None:
        self.positions, self.cells, self.freedom = positions, cells, freedom
        self.start = cells if start is None else start
        self.atoms = Segments(counts)
        self.rows = Segments(counts + 3) if freedom else self.atoms
        own = np.arange(len(self.rows.owner)) - self.rows.starts[self.rows.owner]
        self._is_atom = own < counts[self.rows.owner]

    def select(self, keep: np.ndarray) -> "Crystals":
        """Those that `keep`, (structures,) bool, says."""
        counts = self.atoms.counts[keep]
        return Crystals(self.positions[self.atoms.of(keep)], self.cells[keep], counts, self.freedom, self.start[keep])

    def joined(self, others: "Crystals") -> "Crystals":
        """These, followed by others."""
        pairs = zip(self._columns(), others._columns(), strict=True)
        positions, cells, counts, start = (np.concatenate(pair) for pair in pairs)
        return Crystals(positions, cells, counts, self.freedom, start)

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.positions, self.cells, self.atoms.counts, self.start

    def split(self) -> list[np.ndarray]:
        """Positions of each structure, (atoms, 3) Angstrom."""
        return np.split(self.positions, self.atoms.starts[1:])

    def forces(self, forces: np.ndarray, stresses: np.ndarray) -> np.ndarray:
        """Minus the gradient of the energy by the variables, (rows, 3) eV/Angstrom.

        Parameters
        ----------
        forces
            (atoms, 3) eV/Angstrom; stresses : (structures, 3, 3) eV/Angstrom^3.
        """
        if self.freedom is None:
            return forces
        deformation = self._deformation()
        volumes = np.abs(np.linalg.det(self.cells))
        virial = self.freedom.of_virial(-volumes[:, None, None] * stresses)
        gradient = _exp_adjoint(_logarithm(deformation), virial @ np.linalg.inv(_transposed(deformation)))
        if self.freedom.constant_volume:
            gradient = gradient - _isotropic(gradient)
        result = np.empty((len(self.rows.owner), 3))
        result[self._is_atom] = _rows_times(forces, deformation[self.atoms.owner])
        result[~self._is_atom] = (gradient / self.atoms.counts[:, None, None]).reshape(-1, 3)
        return result

    def coordinates(self) -> np.ndarray:
        """The variables, (rows, 3) Angstrom."""
        if self.freedom is None:
            return self.positions
        deformation = self._deformation()
        result = np.empty((len(self.rows.owner), 3))
        result[self._is_atom] = self._undeformed(deformation)
        result[~self._is_atom] = (_logarithm(deformation) * self.atoms.counts[:, None, None]).reshape(-1, 3)
        return result

    def move(self, step: np.ndarray) -> None:
        """Change the variables by `step`, (rows, 3) Angstrom."""
        if self.freedom is None:
            self.positions = self.positions + step
            return
        deformation = self._deformation()
        undeformed = self._undeformed(deformation) + step[self._is_atom]
        change = step[~self._is_atom].reshape(-1, 3, 3) / self.atoms.counts[:, None, None]
        strained = _exponential(_logarithm(deformation) + change)
        allowed = (_transposed(strained) - _ONE) * self.freedom.matrix + _ONE
        self.cells = self.start @ allowed
        self.positions = _rows_times(undeformed, allowed[self.atoms.owner])

    def _deformation(self) -> np.ndarray:
        """(structures, 3, 3) F with cell = start F^T."""
        return _transposed(np.linalg.solve(self.start, self.cells))

    def _undeformed(self, deformation: np.ndarray) -> np.ndarray:
        return _rows_times(self.positions, np.linalg.inv(_transposed(deformation))[self.atoms.owner])


def _rows_times(vectors: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    return np.einsum("ai,aij->aj", vectors, matrices)


def _transposed(matrices: np.ndarray) -> np.ndarray:
    return matrices.transpose(0, 2, 1)


def _isotropic(matrices: np.ndarray) -> np.ndarray:
    """(n, 3, 3) ones times a third of the trace."""
    third = np.trace(matrices, axis1=1, axis2=2) / 3
    return np.asarray(third[:, None, None] * _ONE)


def _exponential(matrices: np.ndarray) -> np.ndarray:
    result: np.ndarray = torch.linalg.matrix_exp(torch.from_numpy(np.ascontiguousarray(matrices))).numpy()
    return result


def _exp_adjoint(matrices: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Gradient of <exp(A), G> by A: the derivative of exp at A^T along G, as a block of a larger exponential.

    Higham, Functions of Matrices (2008), eq. 3.16.
    """
    block = np.zeros((len(matrices), 6, 6))
    block[:, :3, :3] = block[:, 3:, 3:] = _transposed(matrices)
    block[:, :3, 3:] = directions
    return _exponential(block)[:, :3, 3:]


def _logarithm(matrices: np.ndarray) -> np.ndarray:
    """Principal logarithm of (n, 3, 3): square roots until near one, then the series of 2 atanh((F - 1)/(F + 1))."""
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

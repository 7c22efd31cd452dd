"""Positions and cells of many structures as variables of one minimisation: the logarithm of the deformation.

The variables of a structure are those of ASE's `FrechetCellFilter`, so that an optimiser has the same trajectory: the
positions of its atoms in the undeformed cell, and three more rows for log(F) times the number of atoms, where F is the
deformation with cell = start F^T.
"""

from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from esen_flows.data.batch_state import BatchState
from esen_flows.data.cells import determinant, inverse
from esen_flows.data.ragged import Rows, to_device
from esen_flows.physics.matrices import exponential, exponential_adjoint, logarithm


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

    @cached_property
    def matrix(self) -> Tensor:
        """(3, 3) matrix, one where the strain is free and zero elsewhere."""
        xx, yy, zz, yz, xz, xy = self.mask
        return torch.tensor([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], dtype=torch.float64)

    def free_part(self, virials: Tensor) -> Tensor:
        """The part of virials that acts on free strains.

        Parameters
        ----------
        virials
            (n, 3, 3).

        Returns
        -------
        Tensor
            (n, 3, 3).
        """
        virials = _isotropic(virials) if self.hydrostatic else virials
        return virials if all(self.mask) else virials * self.matrix.to(virials.device)


class RelaxationVariables:
    """Positions and cells of structures that are relaxed together.

    Parameters
    ----------
    state
        The structures at their present geometry.
    freedom
        How cells may deform; None: cells are constant.
    start
        (structures, 3, 3) undeformed cells in Angstrom.
    """

    def __init__(self, state: BatchState, freedom: CellFreedom | None, start: Tensor) -> None:
        self.freedom, self.start, self.atoms = freedom, start, state.atoms
        self.undeformed, self._log_strain = state.positions, torch.zeros_like(start)
        if freedom is not None:
            transposed = torch.bmm(inverse(start), state.cells)  # F^T, with cell = start F^T
            self._log_strain = logarithm(transposed.transpose(1, 2))
            self.undeformed = _rows_times(state.positions, state.atoms.spread(inverse(transposed)))

    @cached_property
    def rows(self) -> Rows:
        """Rows of the variables: the atoms of each structure, and three more for its cell if that may deform."""
        return Rows(self.atoms.counts + 3, self.atoms.device) if self.freedom else self.atoms

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """Row numbers of all atoms, and of all cells."""
        owner = np.repeat(np.arange(len(self.atoms.counts)), self.atoms.counts)
        of_atoms = np.arange(self.atoms.total) + 3 * owner
        of_cells = (self.rows.starts + self.atoms.counts)[:, None] + np.arange(3)
        return to_device(of_atoms, self.atoms.device), to_device(of_cells.ravel(), self.atoms.device)

    def select(self, structures: np.ndarray) -> "RelaxationVariables":
        """The variables of some structures.

        Parameters
        ----------
        structures
            Numbers of structures, in any order.

        Returns
        -------
        RelaxationVariables
            New variables.
        """
        places, new = to_device(structures, self.atoms.device), copy(self)
        new._forget()
        new.atoms = Rows(self.atoms.counts[structures], self.atoms.device)
        new.undeformed = self.undeformed.index_select(0, self.atoms.of(structures))
        new.start, new._log_strain = (each.index_select(0, places) for each in (self.start, self._log_strain))
        return new

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
        new = copy(self)
        new._forget()
        new.atoms = Rows(np.concatenate((self.atoms.counts, others.atoms.counts)), self.atoms.device)
        new.undeformed = torch.cat((self.undeformed, others.undeformed))
        new.start = torch.cat((self.start, others.start))
        new._log_strain = torch.cat((self._log_strain, others._log_strain))
        return new

    def _forget(self) -> None:
        for name in ("rows", "_places"):
            self.__dict__.pop(name, None)

    def forces(self, state: BatchState, forces: Tensor, stresses: Tensor) -> Tensor:
        """Negative gradient of the energy with respect to the variables.

        Parameters
        ----------
        state
            The structures at their present geometry.
        forces
            (atoms, 3) in eV/Angstrom.
        stresses
            (structures, 3, 3) in eV/Angstrom^3.

        Returns
        -------
        Tensor
            (rows, 3) in eV/Angstrom.
        """
        if self.freedom is None:
            return forces
        transposed = torch.bmm(inverse(self.start), state.cells)
        volumes = determinant(state.cells).abs()
        virial = self.freedom.free_part(-volumes.view(-1, 1, 1) * stresses)
        gradient = exponential_adjoint(self._log_strain, virial @ inverse(transposed))
        if self.freedom.constant_volume:
            gradient = gradient - _isotropic(gradient)
        of_atoms = _rows_times(forces, self.atoms.spread(transposed.transpose(1, 2)))
        return self._row_values(of_atoms, gradient / self._n_atoms)

    def coordinates(self) -> Tensor:
        """Values of the variables.

        Returns
        -------
        Tensor
            (rows, 3) in Angstrom.
        """
        if self.freedom is None:
            return self.undeformed
        return self._row_values(self.undeformed, self._log_strain * self._n_atoms)

    def moved(self, state: BatchState, step: Tensor) -> tuple["RelaxationVariables", BatchState]:
        """Variables and structures after a step.

        Parameters
        ----------
        state
            The structures at their present geometry.
        step
            (rows, 3) in Angstrom.

        Returns
        -------
        tuple[RelaxationVariables, BatchState]
            New variables, and new structures with the same neighbour tables.
        """
        new = copy(self)
        if self.freedom is None:
            new.undeformed = self.undeformed + step
            return new, state.moved(new.undeformed)
        of_atoms, of_cells = self._places
        new.undeformed = self.undeformed + step.index_select(0, of_atoms)
        change = step.index_select(0, of_cells).view(-1, 3, 3) / self._n_atoms
        new._log_strain = self._log_strain + change
        transposed = exponential(new._log_strain).transpose(1, 2)
        if not all(self.freedom.mask):
            # Masked again, because the exponential of a masked logarithm has other components, of second order.
            one = torch.eye(3, dtype=transposed.dtype, device=transposed.device)
            transposed = (transposed - one) * self.freedom.matrix.to(transposed) + one
            new._log_strain = logarithm(transposed.transpose(1, 2))
        positions = _rows_times(new.undeformed, self.atoms.spread(transposed))
        return new, state.moved(positions, torch.bmm(self.start, transposed))

    @property
    def _n_atoms(self) -> Tensor:
        return self.atoms.offsets.diff().view(-1, 1, 1)

    def _row_values(self, of_atoms: Tensor, of_cells: Tensor) -> Tensor:
        """(rows, 3) values of the variables from those of atoms (atoms, 3) and cells (structures, 3, 3)."""
        result = torch.empty((self.rows.total, 3), dtype=of_atoms.dtype, device=of_atoms.device)
        result.index_copy_(0, self._places[0], of_atoms)
        return result.index_copy_(0, self._places[1], of_cells.reshape(-1, 3))


def _rows_times(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Each row vector (n, 3) times its matrix (n, 3, 3)."""
    return torch.bmm(vectors.unsqueeze(1), matrices).squeeze(1)


def _isotropic(matrices: Tensor) -> Tensor:
    """(n, 3, 3) unit matrices times a third of the trace."""
    third = matrices.diagonal(dim1=1, dim2=2).sum(dim=1) / 3
    return third.view(-1, 1, 1) * torch.eye(3, dtype=matrices.dtype, device=matrices.device)

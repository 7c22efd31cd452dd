"""Many structures as tensors on one device, with neighbour tables that stay with them from step to step."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from esen_flows.data.cells import determinant
from esen_flows.data.neighbor_tables import Edges, NeighborTables
from esen_flows.data.neighbors import MINIMUM_DISTANCE_ANGSTROM, checked_cell
from esen_flows.data.ragged import Rows, to_device, to_host
from esen_flows.errors import StructureError


@dataclass
class BatchState:
    """Structures at one geometry, as `ForceField.evaluate_batch` takes them.

    Tensors are on one device and are never changed in place: `moved` gives the state at another geometry. Positions are
    never wrapped into the cell.

    Attributes
    ----------
    templates
        One ASE structure for each, with its elements, periodicity, charge and spin; positions and cells are those at
        which it entered.
    atoms
        Which atoms belong to which structure.
    numbers
        (atoms,) int64 atomic numbers.
    positions
        (atoms, 3) float64 in Angstrom.
    cells
        (structures, 3, 3) float64 lattice vectors as rows in Angstrom, with a vector of length one where a direction
        has none.
    is_crystal
        (structures,) bool, whether all three directions are periodic.
    tables
        Neighbour pairs within cutoff + skin; None before a force field has made them.
    known
        (3, structures) rows of `NeighborTables.status` at this geometry, on the host; None before they are read.
    """

    templates: list[Atoms]
    atoms: Rows
    numbers: Tensor
    positions: Tensor
    cells: Tensor
    is_crystal: Tensor
    tables: NeighborTables | None = None
    known: np.ndarray | None = field(default=None, repr=False)

    @classmethod
    def of(cls, structures: Sequence[Atoms], device: torch.device | str = "cpu") -> Self:
        """The state of structures.

        Parameters
        ----------
        structures
            ASE structures of any sizes and periodicities, which are copied.
        device
            torch device; that of the force field (`ForceField.device`).

        Returns
        -------
        BatchState
            The structures at their present geometry.

        Raises
        ------
        StructureError
            A structure has no atoms or has NaN, or a periodic direction has no lattice vector.

        Examples
        --------
        >>> from ase.build import bulk
        >>> from esen_flows import load_force_field
        >>> force_field = load_force_field("esen_silicon")
        >>> state = BatchState.of([bulk("Si"), bulk("Si", cubic=True)], force_field.device)
        >>> result = force_field.evaluate_batch(state)
        >>> tuple(result.energy.shape), tuple(result.forces.shape), tuple(result.stress.shape)
        ((2,), (10, 3), (2, 3, 3))
        >>> moved = state.moved(state.positions + 0.01 * result.forces)  # the neighbour tables go along
        """
        device = torch.device(device)
        for index, atoms in enumerate(structures):
            if len(atoms) == 0:
                raise StructureError(f"structure {index} has no atoms; leave it out")
        cells = np.array([checked_cell(atoms) for atoms in structures]).reshape(-1, 3, 3)
        templates = []
        for atoms in structures:
            template = atoms.copy()
            template.info.update(atoms.info)
            templates.append(template)
        none = np.zeros((0, 3))
        return cls(
            templates,
            Rows(np.array([len(atoms) for atoms in structures], dtype=np.int64), device),
            to_device(np.concatenate([none[:, 0], *(a.numbers for a in structures)]).astype(np.int64), device),
            to_device(np.concatenate([none, *(a.positions for a in structures)]), device),
            to_device(cells, device),
            to_device(np.array([atoms.pbc.all() for atoms in structures], dtype=bool), device),
        )

    @property
    def n_systems(self) -> int:
        """Number of structures."""
        return len(self.templates)

    @property
    def device(self) -> torch.device:
        """Device of all tensors."""
        return self.positions.device

    @property
    def volumes(self) -> Tensor:
        """(structures,) volumes in Angstrom^3, NaN where a direction is not periodic."""
        return torch.where(self.is_crystal, determinant(self.cells).abs(), torch.nan)

    @property
    def system(self) -> Tensor:
        """(atoms,) int64 structure of each atom."""
        return self.atoms.owner

    def moved(self, positions: Tensor, cells: Tensor | None = None) -> Self:
        """The same structures at another geometry.

        Parameters
        ----------
        positions
            (atoms, 3) float64 in Angstrom.
        cells
            (structures, 3, 3) float64 in Angstrom; default: the present ones.

        Returns
        -------
        BatchState
            New state with the same neighbour tables.
        """
        return replace(self, positions=positions, cells=self.cells if cells is None else cells, known=None)

    def turned(self, matrices: Tensor) -> Self:
        """The images of the structures under orthogonal matrices, with their neighbour tables.

        An improper matrix is a rotation, which turns positions and cell, times the inversion, which turns the positions
        alone: a lattice is its own inverse.

        Parameters
        ----------
        matrices
            (structures, 3, 3) float64 orthogonal matrices for column vectors.

        Returns
        -------
        BatchState
            New state.
        """
        signs = determinant(matrices).sign()
        proper = signs[:, None, None] * matrices.transpose(1, 2)
        positions = torch.bmm(self.positions.unsqueeze(1), self.atoms.spread(matrices.transpose(1, 2))).squeeze(1)
        tables = None if self.tables is None else self.tables.turned(proper, signs)
        return replace(self, positions=positions, cells=torch.bmm(self.cells, proper), tables=tables, known=None)

    def select(self, structures: Sequence[int] | np.ndarray) -> Self:
        """Some of the structures.

        Parameters
        ----------
        structures
            Their numbers, in any order.

        Returns
        -------
        BatchState
            New state with their neighbour tables.
        """
        chosen = np.asarray(structures, dtype=np.int64)
        rows, places = self.atoms.of(chosen), to_device(chosen, self.device)
        return replace(
            self,
            templates=[self.templates[index] for index in chosen],
            atoms=Rows(self.atoms.counts[chosen], self.device),
            numbers=self.numbers.index_select(0, rows),
            positions=self.positions.index_select(0, rows),
            cells=self.cells.index_select(0, places),
            is_crystal=self.is_crystal.index_select(0, places),
            tables=None if self.tables is None else self.tables.select(chosen),
            known=None if self.known is None else self.known[:, chosen],
        )

    def joined(self, others: Self) -> Self:
        """These structures, followed by others.

        Parameters
        ----------
        others
            State on the same device.

        Returns
        -------
        BatchState
            New state. Structures without neighbour tables get theirs when a force field needs them.
        """
        if not self.n_systems:
            return others
        tables, status = None, None
        if self.tables is not None:
            theirs = others.tables
            if theirs is None:
                like = self.tables
                theirs = NeighborTables.search(
                    others.templates, others.positions, others.cells, like.cutoff, skin_angstrom=like.skin,
                    reverse=like.reverse is not None,
                )  # fmt: skip
            tables = self.tables.joined(theirs)
            if self.known is not None and others.known is not None:
                status = np.concatenate((self.known, others.known), axis=1)
        return replace(
            self,
            templates=self.templates + others.templates,
            atoms=Rows(np.concatenate((self.atoms.counts, others.atoms.counts)), self.device),
            numbers=torch.cat((self.numbers, others.numbers)),
            positions=torch.cat((self.positions, others.positions)),
            cells=torch.cat((self.cells, others.cells)),
            is_crystal=torch.cat((self.is_crystal, others.is_crystal)),
            tables=tables,
            known=status,
        )

    def structures(self) -> list[Atoms]:
        """ASE structures at the present geometry. The host waits for the device.

        Returns
        -------
        list[Atoms]
            Copies, without calculators. A cell that is not periodic in three directions is that of the template.
        """
        positions, cells = to_host(self.positions), to_host(self.cells)
        made = []
        for template, own, cell in zip(self.templates, np.split(positions, self.atoms.starts[1:]), cells, strict=True):
            atoms = template.copy()
            atoms.info.update(template.info)
            atoms.set_positions(own, apply_constraint=False)
            if atoms.pbc.all():
                atoms.set_cell(cell)
            made.append(atoms)
        return made

    def read(self, *values: Tensor) -> np.ndarray:
        """Numbers of each structure on the host, and with them what the neighbour tables have to know of this geometry.

        It is the only place where a step has to wait for the device: a loop that reads its own numbers of a step here
        (energies, largest forces) waits once, and the next `evaluate_batch` does not.

        Parameters
        ----------
        values
            (structures,) each, of any type.

        Returns
        -------
        np.ndarray
            (values, structures) float64.
        """
        columns = [value.double() for value in values]
        if self.tables is not None and self.known is None:
            columns += self.tables.status(self.positions, self.cells).unbind(0)
        if not columns:
            return np.zeros((0, self.n_systems))
        read = to_host(torch.stack(columns))
        if len(columns) > len(values):
            self.known = read[len(values) :]
        return read[: len(values)]

    def edges(self, cutoff_angstrom: float, *, reverse: bool = False) -> Edges:
        """The edges of all structures, from their tables, which are made or searched again where that is needed.

        Parameters
        ----------
        cutoff_angstrom
            Length of the longest edge in Angstrom.
        reverse
            Whether the index of the reverse of each edge is given too.

        Returns
        -------
        Edges
            The edges.

        Raises
        ------
        StructureError
            Two atoms of a structure coincide, or a coordinate is NaN.
        """
        tables = self.find_tables(cutoff_angstrom, reverse=reverse)
        assert self.known is not None  # with the tables
        return tables.edges(self.positions, self.cells, self.known[1])

    def find_tables(self, cutoff_angstrom: float, *, reverse: bool = False) -> NeighborTables:
        """The tables of all structures, made or searched again where that is needed; they are kept in `tables`.

        Parameters
        ----------
        cutoff_angstrom
            Length of the longest edge in Angstrom.
        reverse
            Whether the index of the reverse of each edge is needed.

        Returns
        -------
        NeighborTables
            The tables.

        Raises
        ------
        StructureError
            Two atoms of a structure coincide, or a coordinate is NaN.
        """
        fits = self.tables is not None and self.tables.cutoff == cutoff_angstrom
        if self.tables is None or not fits or (reverse and self.tables.reverse is None):
            self._require_finite()
            self.tables = NeighborTables.search(
                self.templates, self.positions, self.cells, cutoff_angstrom, reverse=reverse
            )
            self.known = None
        self.read()
        assert self.known is not None
        stale = np.flatnonzero(self.known[0])
        if len(stale):
            self._search_again(stale)
        close = np.flatnonzero(self.known[2] < MINIMUM_DISTANCE_ANGSTROM**2)
        if len(close):
            formula, distance = self.templates[close[0]].get_chemical_formula(), self.known[2, close[0]] ** 0.5
            raise StructureError(
                f"{formula} (structure {close[0]} of the batch): two atoms are {distance:.2g} Angstrom apart; remove "
                "the duplicate"
            )
        return self.tables

    def _search_again(self, stale: np.ndarray) -> None:
        """Replace the tables of some structures."""
        self._require_finite()
        assert self.tables is not None
        rows = self.atoms.of(stale)
        places, cells = self.positions.index_select(0, rows), self.cells.index_select(0, to_device(stale, self.device))
        new = NeighborTables.search(
            [self.templates[index] for index in stale], places, cells, self.tables.cutoff,
            skin_angstrom=self.tables.skin, reverse=self.tables.reverse is not None,
        )  # fmt: skip
        if len(stale) == self.n_systems:
            self.tables = new
        else:
            kept = np.setdiff1d(np.arange(self.n_systems), stale)
            self.tables = self.tables.select(kept).joined(new).select(np.argsort(np.concatenate((kept, stale))))
        self.known = to_host(self.tables.status(self.positions, self.cells))

    def _require_finite(self) -> None:
        per_atom = (self.positions * 0).sum(dim=1) + self.atoms.spread((self.cells * 0).sum(dim=(1, 2)))[:, 0]
        bad = np.flatnonzero(to_host(self.atoms.reduce(per_atom)) != 0)  # NaN where a number is NaN or infinite
        if len(bad):
            raise StructureError(
                f"{self.templates[bad[0]].get_chemical_formula()} (structure {bad[0]} of the batch): positions or cell "
                "hold NaN or infinity; repair the input"
            )

"""Many structures as tensors on one device, with neighbour tables that stay with them from step to step."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from esen_flows.data.cells import determinant
from esen_flows.data.charges import charge_and_spin_of
from esen_flows.data.edges import Edges
from esen_flows.data.neighbor_tables import SKIN_ANGSTROM, NeighborTables
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
        has none; unit vectors where no direction is periodic.
    is_crystal
        (structures,) bool, whether all three directions are periodic.
    tables
        Neighbour pairs within cutoff + skin; None before a force field has made them.
    known
        (3, structures) rows of `NeighborTables.status` at this geometry, on the host; None before they are read.
    charge_and_spin
        (structures, 2) int64 total charges and spin multiplicities; None before a force field has asked for them.
    once
        Whether there is one geometry only, so that pairs are searched without a skin.
    atom_energies
        Whether a force field that has energies of atoms is to give them.
    listed
        (structures,) numbers in the caller's list, for messages; None for structures that move.
    """

    templates: list[Atoms]
    atoms: Rows
    numbers: Tensor
    positions: Tensor
    cells: Tensor
    is_crystal: Tensor
    tables: NeighborTables | None = None
    known: np.ndarray | None = field(default=None, repr=False)
    charge_and_spin: Tensor | None = None
    once: bool = False
    atom_energies: bool = False
    listed: np.ndarray | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        structures: Sequence[Atoms],
        device: torch.device | str = "cpu",
        *,
        once: bool = False,
        atom_energies: bool = False,
        first: int = 0,
    ) -> Self:
        """The state of structures.

        Parameters
        ----------
        structures
            ASE structures of any sizes and periodicities, which are copied unless they are evaluated once.
        device
            torch device; that of the force field (`ForceField.device`).
        once
            Whether the structures are evaluated at this geometry alone.
        atom_energies
            Whether a force field that has energies of atoms is to give them.
        first
            Number of the first structure in messages, which number structures that are evaluated once.

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
                raise StructureError(f"structure {first + index} has no atoms; leave it out")
        pbc = np.array([atoms.pbc for atoms in structures], dtype=bool).reshape(-1, 3)
        cells = np.array([checked_cell(atoms) for atoms in structures]).reshape(-1, 3, 3)
        cells[~pbc.any(axis=1)] = np.eye(3)
        none = np.zeros((0, 3))
        return cls(
            list(structures) if once else [_copy(atoms) for atoms in structures],
            Rows(np.array([len(atoms) for atoms in structures], dtype=np.int64), device),
            to_device(np.concatenate([none[:, 0], *(a.numbers for a in structures)]).astype(np.int64), device),
            to_device(np.concatenate([none, *(a.positions for a in structures)]), device),
            to_device(cells, device),
            to_device(np.asarray(pbc.all(axis=1)), device),
            once=once,
            atom_energies=atom_energies,
            listed=np.arange(first, first + len(structures)) if once else None,
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
            New state with the same neighbour tables; without any, if they were for one geometry alone.
        """
        tables = None if self.once else self.tables
        cells = self.cells if cells is None else cells
        return replace(self, positions=positions, cells=cells, tables=tables, known=None)

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
            listed=None if self.listed is None else self.listed[chosen],
            charge_and_spin=None if self.charge_and_spin is None else self.charge_and_spin.index_select(0, places),
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
        tables, status, charge_and_spin = None, None, None
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
        if self.charge_and_spin is not None:
            charge_and_spin = torch.cat((self.charge_and_spin, others.charges_and_spins()))
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
            listed=None,
            charge_and_spin=charge_and_spin,
        )

    def structures(self) -> list[Atoms]:
        """ASE structures at the present geometry. The host waits for the device.

        Returns
        -------
        list[Atoms]
            Copies, without calculators. Lattice vectors that a template lacks are not there either; the cell of a
            structure without a periodic direction is that of its template.
        """
        positions, cells = to_host(self.positions), to_host(self.cells)
        made = []
        for template, own, cell in zip(self.templates, np.split(positions, self.atoms.starts[1:]), cells, strict=True):
            atoms = _copy(template)
            atoms.set_positions(own, apply_constraint=False)
            if atoms.pbc.any():
                atoms.set_cell(np.where(atoms.cell.array.any(axis=1, keepdims=True), cell, 0.0))
            made.append(atoms)
        return made

    def charges_and_spins(self) -> Tensor:
        """Total charges in elementary charges and spin multiplicities, read from the templates once.

        Returns
        -------
        Tensor
            (structures, 2) int64, 0 where a structure has none.

        Raises
        ------
        StructureError
            One of them is not an integer.
        """
        if self.charge_and_spin is None:
            found = np.array([charge_and_spin_of(atoms) for atoms in self.templates], dtype=np.int64)
            self.charge_and_spin = to_device(found.reshape(-1, 2), self.device)
        return self.charge_and_spin

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

    def edges(self, cutoff_angstrom: float, *, reverse: bool = False, max_neighbors: int | None = None) -> Edges:
        """The edges of all structures, from their tables, which are made or searched again where that is needed.

        Parameters
        ----------
        cutoff_angstrom
            Length of the longest edge in Angstrom.
        reverse
            Whether the index of the reverse of each edge is given too.
        max_neighbors
            About the number of nearest neighbours that are kept for each atom (see `neighbors.nearest`), without
            `reverse`; None keeps all. They are chosen on the host.

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
        edges = tables.edges(self.positions, self.cells, self.known[1])
        return edges if max_neighbors is None else edges.nearest(max_neighbors)

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
            if not self.once:  # these were checked when they entered
                self._require_finite()
            self.tables = NeighborTables.search(
                self.templates, self.positions, self.cells, cutoff_angstrom,
                skin_angstrom=0.0 if self.once else SKIN_ANGSTROM, reverse=reverse,
            )  # fmt: skip
            self.known = None
        self.read()
        assert self.known is not None
        stale = np.flatnonzero(self.known[0])
        if len(stale):
            self._search_again(stale)
        if self.known[2].min(initial=np.inf) < MINIMUM_DISTANCE_ANGSTROM**2:
            system, one, two, distance = self.tables.closest(self.positions, self.cells)
            raise StructureError(
                f"{self.name(system)}: atoms {one} and {two} are {distance:.2g} Angstrom apart; remove the duplicate"
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
            raise StructureError(f"{self.name(bad[0])}: positions or cell hold NaN or infinity; repair the input")

    def name(self, system: int) -> str:
        """A structure in messages: its formula, with its number where a list was given to be evaluated once.

        Parameters
        ----------
        system
            Its place in this state.

        Returns
        -------
        str
            For example "structure 2 (Si8)".
        """
        formula = self.templates[system].get_chemical_formula()
        return formula if self.listed is None else f"structure {self.listed[system]} ({formula})"


def _copy(atoms: Atoms) -> Atoms:
    """A copy with everything that is known of the structure, without its calculator."""
    copy = atoms.copy()
    copy.info.update(atoms.info)
    return copy

"""A fast pair potential behind the contract, with defects that can be switched on one by one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from esen_flows.data.batch_state import BatchState
from esen_flows.data.neighbor_tables import NeighborTables
from esen_flows.data.neighbors import neighbor_pairs
from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField
from esen_flows.structures.inputs import AnyStructures, as_structures

CUTOFF = 4.0
DECLARATION = Declaration(
    conservative=True, equivariance="O3", differentiable=False, elements=None, dtype="float64", cutoff_angstrom=CUTOFF
)


@dataclass
class PairForceField(ForceField):
    """exp(-r) - exp(-r/2)/2 with an envelope, and what is wrong with it.

    Attributes
    ----------
    swirl
        Strength of forces across the bond, which are no gradient.
    step
        Jump of each pair's energy at the cutoff in eV.
    field
        Strength of a force along x by the height of an atom's neighbours, which rotations change.
    crowd
        Error of the energy by each other structure in a batch in eV.
    wraps
        Whether the neighbour tables of a batch are periodic along all lattice vectors, as in nvalchemi-toolkit-ops 104.
    """

    swirl: float = 0.0
    step: float = 0.0
    field: float = 0.0
    crowd: float = 0.0
    wraps: bool = False
    key: str = "aa" * 32
    label: str = "pairs"
    declaration: Declaration = DECLARATION

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        batch = as_structures(structures)
        self.force_evaluations += len(batch)
        return [self._evaluate(atoms, batch) for atoms in batch]

    def find_neighbors(self, state: BatchState) -> None:
        if self.wraps and state.n_systems > 1 and state.tables is None:
            wrapped = [Atoms(atoms, pbc=atoms.pbc | (atoms.cell.rank == 3)) for atoms in state.templates]
            state.tables = NeighborTables.search(wrapped, state.positions, state.cells, CUTOFF)
        state.find_tables(CUTOFF)

    def _evaluate(self, atoms: Atoms, batch: Sequence[Atoms]) -> Evaluation:
        pairs = neighbor_pairs(atoms, CUTOFF)
        i, v = pairs.target.numpy(), pairs.vectors.numpy()
        r = np.linalg.norm(v, axis=1)
        envelope, slope = (1 - (r / CUTOFF) ** 2) ** 3, -6 * r / CUTOFF**2 * (1 - (r / CUTOFF) ** 2) ** 2
        bare, steep = 20 * (np.exp(-r) - np.exp(-r / 2) / 2), 20 * (-np.exp(-r) + np.exp(-r / 2) / 4)
        pull = ((bare * slope + steep * envelope) / r)[:, None] * v
        forces = np.zeros((len(atoms), 3))
        across = self.swirl * envelope[:, None] * np.cross(v, [0.0, 0.0, 1.0])
        lifted = self.field * envelope[:, None] * v[:, [2]] ** 2 * [1.0, 0.0, 0.0]
        np.add.at(forces, i, pull + across + lifted)
        energy = float((bare * envelope).sum()) / 2 + self.step * len(r) / 2 + self.crowd * (len(batch) - 1)
        volume = atoms.get_volume() if atoms.pbc.all() else np.nan
        return Evaluation(energy, forces, (pull.T @ v) / 2 / volume)

"""A crystal of the CsCl structure in which Cl leaves the centre of its cage, with an analytical ground state."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from esen_flows.data.neighbors import neighbor_pairs
from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField
from esen_flows.structures.inputs import AnyStructures, as_structures

LENGTH = 4.0  # lattice constant in Angstrom
STIFFNESS = 4.0  # of springs between Cs atoms, eV/Angstrom^2
DECLARATION = Declaration(
    conservative=True, equivariance="O3", differentiable=False, elements=None, dtype="float64", cutoff_angstrom=6.0
)


def crystal() -> Atoms:
    """Primitive cell with Cl exactly in the centre."""
    return Atoms("CsCl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[LENGTH] * 3, pbc=True)


@dataclass
class DoubleWell(ForceField):
    """Springs between Cs atoms, and an energy of each Cl by its distance d from the mean place of its eight Cs.

    The energy of a Cl is -well |d|^2 + 1/2 |d|^4 + anisotropy (dx^4 + dy^4 + dz^4), so that the cage is a cubic crystal
    field along the Cartesian axes. With n the direction of d, its minimum is -well^2 / (2 + 4 anisotropy sum n^4).

    Attributes
    ----------
    well
        Depth in eV/Angstrom^2; negative for a stable centre.
    anisotropy
        Positive for minima along body diagonals, in eV/Angstrom^4.
    """

    well: float = 0.2
    anisotropy: float = 0.3
    key: str = "dd" * 32
    label: str = "double well"
    declaration: Declaration = DECLARATION

    def minimum(self, fourth_powers: float) -> float:
        """Energy of a Cl in eV, for the sum of the fourth powers of the components of the direction."""
        return -(self.well**2) / (2.0 + 4.0 * self.anisotropy * fourth_powers)

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        batch = as_structures(structures)
        self.force_evaluations += len(batch)
        return [self._evaluate(atoms) for atoms in batch]

    def _evaluate(self, atoms: Atoms) -> Evaluation:
        pairs = neighbor_pairs(atoms, 1.5 * LENGTH)
        target, source, v = pairs.target.numpy(), pairs.source.numpy(), pairs.vectors.numpy()
        r, is_cs = np.linalg.norm(v, axis=1), atoms.numbers == 55
        forces, energy = np.zeros((len(atoms), 3)), 0.0
        for rest in (LENGTH, np.sqrt(2) * LENGTH):
            bond = is_cs[target] & is_cs[source] & (np.abs(r - rest) < 0.15 * LENGTH)
            stretch = r[bond] - rest
            energy += STIFFNESS * float((stretch**2).sum()) / 4
            np.add.at(forces, target[bond], STIFFNESS * (stretch / r[bond])[:, None] * v[bond])
        cage = ~is_cs[target] & is_cs[source] & (r < 1.15 * LENGTH)
        for atom in np.flatnonzero(~is_cs):
            mine = np.flatnonzero(cage & (target == atom))
            nearest = mine[np.argsort(r[mine])[:8]]
            d = -v[nearest].mean(axis=0)
            energy += -self.well * (d @ d) + 0.5 * (d @ d) ** 2 + self.anisotropy * (d**4).sum()
            pull = -(-2 * self.well * d + 2 * (d @ d) * d + 4 * self.anisotropy * d**3)
            forces[atom] += pull
            np.add.at(forces, source[nearest], -pull / 8)
        return Evaluation(energy, forces, np.zeros((3, 3)))

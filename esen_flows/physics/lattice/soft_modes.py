"""Imaginary modes of a crystal as patterns of displacements in a real supercell.

The modes of the supercell are those of the crystal at Gamma and at all other wave vectors that are commensurate with
the supercell. Modes of one frequency are one space: an irreducible representation of the supercell's whole space group,
with all arms of the star of its wave vector, unless two agree by accident.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from esen_flows.physics.isotropy import Direction, distinct, invariant_directions
from esen_flows.physics.lattice.harmonic import HarmonicLattice
from esen_flows.physics.lattice.supercell_symmetry import SupercellSymmetry, supercell_symmetry
from esen_flows.schemas.lattice_documents import ForcesOutput

# Frequencies of modes that are degenerate by symmetry agree far better than this after projection on the space group.
DEGENERACY_THZ = 1e-3


@dataclass(frozen=True)
class SoftMode:
    """A space of degenerate imaginary modes.

    Attributes
    ----------
    frequency_thz
        Frequency in THz, negative.
    q_point
        (3,) a wave vector of the modes in reduced coordinates of the primitive cell.
    degeneracy
        Dimension of the space.
    supercell
        The supercell without displacements.
    patterns
        (directions, atoms, 3) displacements along directions of high symmetry, the largest of an atom with length 1.
    directions
        These directions.
    """

    frequency_thz: float
    q_point: np.ndarray
    degeneracy: int
    supercell: Atoms
    patterns: np.ndarray
    directions: list[Direction]


def soft_modes(forces: ForcesOutput, tolerance_thz: float) -> tuple[list[SoftMode], float]:
    """The imaginary modes in the supercell of displaced forces, and the lowest frequency.

    Force constants are projected on the space group of the supercell. The three translations are left out.

    Parameters
    ----------
    forces
        Displaced forces.
    tolerance_thz
        Imaginary frequencies of at most this size count as zero, in THz.

    Returns
    -------
    tuple[list[SoftMode], float]
        Spaces of degenerate modes, the lowest frequency first; and the lowest frequency of all modes in THz.
    """
    lattice = HarmonicLattice(forces)
    supercell, masses = lattice.supercell, lattice.supercell_masses
    symmetry = supercell_symmetry(supercell, forces.symprec_angstrom)
    constants = symmetry.projected(lattice.full_force_constants(), np.arange(len(masses)))
    roots, size = np.sqrt(masses), len(masses)
    dynamical = constants / (roots[:, None] * roots[None])[..., None, None]
    matrix = dynamical.transpose(0, 2, 1, 3).reshape(3 * size, 3 * size)
    # Translations go to the top of the spectrum.
    shifts = np.kron(roots[:, None] / np.linalg.norm(roots), np.eye(3))
    matrix = (matrix + matrix.T) / 2 + np.abs(matrix).sum() * shifts @ shifts.T
    values, vectors = np.linalg.eigh(matrix)
    frequencies = np.sign(values) * np.sqrt(np.abs(values)) * lattice.thz_factor
    modes = []
    begin = 0
    while begin < len(frequencies) and frequencies[begin] < -tolerance_thz:
        end = begin + 1
        while end < len(frequencies) and frequencies[end] - frequencies[end - 1] < DEGENERACY_THZ:
            end += 1
        basis = vectors[:, begin:end].T.reshape(-1, size, 3)
        modes.append(_soft_mode(float(frequencies[begin:end].mean()), basis, lattice, symmetry))
        begin = end
    return modes, float(frequencies[0])


def _soft_mode(frequency: float, basis: np.ndarray, lattice: HarmonicLattice, symmetry: SupercellSymmetry) -> SoftMode:
    roots, found = np.sqrt(lattice.supercell_masses)[:, None], []
    for direction in invariant_directions(_representation(basis, symmetry)):
        pattern = np.tensordot(direction.components, basis, axes=1) / roots
        lengths = np.linalg.norm(pattern, axis=1)
        # The order of directions with equally many operations must not depend on the choice of eigenvectors.
        spread = float((lengths**4).sum() / (lengths**2).sum() ** 2)
        found.append((-direction.order, round(spread, 6), direction, pattern / lengths.max()))
    found.sort(key=lambda one: one[:2])
    patterns, directions = np.array([one[3] for one in found]), [one[2] for one in found]
    return SoftMode(frequency, _q_point(basis, lattice), len(basis), lattice.supercell, patterns, directions)


def _representation(basis: np.ndarray, symmetry: SupercellSymmetry) -> np.ndarray:
    """(n, d, d) all different matrices by which the space group acts on the space of (d, atoms, 3) modes."""
    identity = np.broadcast_to(np.eye(3), (len(symmetry.translations), 3, 3))
    shifts = _matrices(basis, identity, symmetry.translations)
    turns = _matrices(basis, symmetry.rotations, symmetry.permutations)
    return distinct((distinct(shifts)[:, None] @ distinct(turns)[None]).reshape(-1, len(basis), len(basis)))


def _matrices(basis: np.ndarray, rotations: np.ndarray, permutations: np.ndarray) -> np.ndarray:
    found = np.empty((len(rotations), len(basis), len(basis)))
    for index, (rotation, permutation) in enumerate(zip(rotations, permutations, strict=True)):
        moved = np.empty_like(basis)
        moved[:, permutation] = basis @ rotation.T
        found[index] = np.tensordot(basis, moved, axes=((1, 2), (1, 2)))
    return found


def _q_point(basis: np.ndarray, lattice: HarmonicLattice) -> np.ndarray:
    """A commensurate wave vector (3,) of the star of a space of modes (d, atoms, 3) of the supercell."""
    points, cells, kinds = lattice.commensurate_points(), lattice.supercell_cells(), lattice.supercell_to_primitive
    waves = np.exp(-2j * np.pi * points @ cells.T)
    shares = np.zeros(len(points))
    for kind in np.unique(kinds):
        shares += (np.abs(np.tensordot(waves[:, kinds == kind], basis[:, kinds == kind], (1, 1))) ** 2).sum(axis=(1, 2))
    # Of the arms of a star, and of q and -q, one choice whatever the eigenvectors.
    best = points[shares > shares.max() * 0.99]
    reduced = np.round(best - np.floor(best + 0.5 - 1e-9), 9) + 0.0
    folded = np.where(np.isclose(np.abs(reduced), 0.5), 0.5, reduced)
    return np.asarray(folded[np.lexsort((-folded).T[::-1])[0]])

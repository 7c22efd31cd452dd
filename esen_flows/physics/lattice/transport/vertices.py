"""From third-order force constants to the interaction of three modes, with everything that few phonons share done once.

In the lattice-periodic gauge the modes are W(q)[ka, s] = e(q)[ka, s] exp(2 pi i q.tau_k) / sqrt(m_k nu_s). Only lattice
vectors remain in the phases, so that a reciprocal lattice vector in q0 + q1 + q2 = G has no effect and all points of
the grid are taken as they are. The interaction is

    V = sum fc3[a, b, c] W(q0)[a, s0] W(q1)[b, s1] W(q2)[c, s2] exp(2 pi i (q0.A + q2.B))

with lattice vectors A and B that depend on which of the three atoms is at the origin. phono3py averages the three
choices and the equally short vectors of each pair; here they are terms of one sparse tensor, and equal (A, B) are
summed once.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix

from esen_flows.physics.lattice.transport.grid import Grid

# Force constants below this share of the largest are rounding of what symmetry forbids.
NEGLIGIBLE = 1e-14


@dataclass(frozen=True)
class Crystal:
    """Third-order force constants of a primitive cell and the pairs that they act between.

    Attributes
    ----------
    fc3
        (n_primitive, n_supercell, n_supercell, 3, 3, 3) in eV/Angstrom^3.
    shortest_vectors
        (n, 3) from an atom of the primitive cell to an atom of the supercell, in units of the primitive cell's vectors;
        of a pair all that are equally short.
    multiplicities
        (n_supercell, n_primitive, 2) how many shortest vectors a pair has, and the index of its first one.
    positions
        (n_primitive, 3) reduced coordinates of the primitive cell's atoms.
    masses
        (n_primitive,) in atomic mass units.
    primitive_of
        (n_supercell,) index of the equivalent atom of the primitive cell.
    """

    fc3: np.ndarray
    shortest_vectors: np.ndarray
    multiplicities: np.ndarray
    positions: np.ndarray
    masses: np.ndarray
    primitive_of: np.ndarray

    @property
    def bands(self) -> int:
        """Number of phonon bands."""
        return 3 * len(self.masses)


@dataclass(frozen=True)
class MergedTensor:
    """Third-order force constants by the lattice vectors in their phases.

    Attributes
    ----------
    first
        (n_A, 3) lattice vectors A, which go with q0.
    second
        (n_B, 3) vectors B in the basis of the grid's addresses, wrapped into its divisions; they go with q2.
    box
        (3,) numbers of different components of B.
    places
        (n_B,) flat index of each B in the box.
    values
        (n_B n^3, n_A) sparse, in eV/Angstrom^3.
    """

    first: np.ndarray
    second: np.ndarray
    box: tuple[int, int, int]
    places: np.ndarray
    values: csr_matrix


@dataclass(frozen=True)
class _Pairs:
    """For one anchor atom, the shortest vectors to all atoms, one row each: atom, lattice vector and weight."""

    atom: np.ndarray
    vector: np.ndarray
    weight: np.ndarray


def _pairs_of(crystal: Crystal, anchor: int) -> _Pairs:
    counts, starts = crystal.multiplicities[:, anchor, 0], crystal.multiplicities[:, anchor, 1]
    atom = np.repeat(np.arange(len(counts)), counts)
    rows = np.repeat(starts - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) + np.arange(len(atom))
    offset = crystal.positions[anchor] - crystal.positions[crystal.primitive_of[atom]]
    vector = crystal.shortest_vectors[rows] + offset
    return _Pairs(atom, np.rint(vector).astype(np.int64), 1.0 / counts[atom])


def _terms_of(crystal: Crystal, anchor: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A (m, 3), B (m, 3), rows of the first cartesian component of each index (m, 3) and values (m, 3, 3, 3)."""
    pairs = _pairs_of(crystal, anchor)
    strength = np.abs(crystal.fc3[anchor]).max(axis=(2, 3, 4))
    near = strength > NEGLIGIBLE * np.abs(crystal.fc3).max()
    one, two = np.nonzero(near[pairs.atom[:, None], pairs.atom[None, :]])
    fc3 = (
        crystal.fc3[anchor, pairs.atom[one], pairs.atom[two]]
        * (pairs.weight[one] * pairs.weight[two] / 3.0)[:, None, None, None]
    )
    r1, r2 = pairs.vector[one], pairs.vector[two]
    k0 = np.full(len(one), anchor)
    k1, k2 = crystal.primitive_of[pairs.atom[one]], crystal.primitive_of[pairs.atom[two]]
    # The anchor as the atom of q0, of q1 and of q2; the phase of the third point is that of -q0 - q2.
    vectors_a = np.concatenate([-r1, r1, r1 - r2])
    vectors_b = np.concatenate([r2 - r1, r2, -r2])
    atoms = np.concatenate([np.stack([k0, k1, k2], 1), np.stack([k1, k0, k2], 1), np.stack([k1, k2, k0], 1)])
    values = np.concatenate([fc3, fc3.transpose(0, 2, 1, 3), fc3.transpose(0, 2, 3, 1)])
    return vectors_a, vectors_b, 3 * atoms, values


def merged_tensor(crystal: Crystal, grid: Grid) -> MergedTensor:
    """Sum the terms of all anchors and shortest vectors that have the same phases.

    Parameters
    ----------
    crystal
        Force constants and pairs.
    grid
        The grid, whose divisions B is wrapped into: more of it no point can tell apart.

    Returns
    -------
    MergedTensor
        The sum, without what is exactly zero.
    """
    n = crystal.bands
    parts = [_terms_of(crystal, anchor) for anchor in range(len(crystal.masses))]
    vectors_a, vectors_b, atoms, values = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    first, column = np.unique(vectors_a, axis=0, return_inverse=True)
    wrapped = np.mod(vectors_b @ grid.basis, grid.divisions)
    # The shortest box: components that occur, numbered along each axis, are what a transform has to sum over.
    axes = [np.unique(wrapped[:, axis], return_inverse=True) for axis in range(3)]
    box = tuple(len(components) for components, _ in axes)
    flat = np.ravel_multi_index([number.ravel() for _, number in axes], box)
    places, row = np.unique(flat, return_inverse=True)
    second = np.stack([axes[i][0][number] for i, number in enumerate(np.unravel_index(places, box))], axis=1)
    cartesian = np.arange(3)
    components = (
        (atoms[:, 0, None, None, None] + cartesian[:, None, None]) * n
        + atoms[:, 1, None, None, None]
        + cartesian[:, None]
    ) * n + (atoms[:, 2, None, None, None] + cartesian)
    rows = (row.ravel()[:, None, None, None] * n**3 + components).ravel()
    columns = np.repeat(column.ravel(), 27)
    sparse = coo_matrix((values.ravel(), (rows, columns)), shape=(len(places) * n**3, len(first))).tocsr()
    sparse.eliminate_zeros()
    return MergedTensor(first, second, (box[0], box[1], box[2]), places, sparse)


def periodic_modes(
    crystal: Crystal, grid: Grid, frequencies: np.ndarray, eigenvectors: np.ndarray, q_points: np.ndarray, cutoff: float
) -> np.ndarray:
    """Modes in the lattice-periodic gauge, divided by the roots of mass and frequency.

    Parameters
    ----------
    crystal
        Positions and masses.
    grid
        The grid.
    frequencies
        (size, n) in THz.
    eigenvectors
        (size, n, n) with the mode as last index, for the phases of phonopy, in which positions of atoms stand.
    q_points
        (size, 3) the q-points of the eigenvectors in reduced coordinates, which need not lie in the first cell.
    cutoff
        Frequency in THz below which a mode is taken as zero: it does not scatter.

    Returns
    -------
    np.ndarray
        (size, n, n) complex, in 1/sqrt(u THz).
    """
    phases = np.repeat(np.exp(2j * np.pi * q_points @ crystal.positions.T), 3, axis=1)
    moves = frequencies > cutoff
    scale = np.where(moves, 1.0 / np.sqrt(np.where(moves, frequencies, 1.0)), 0.0)
    masses = np.repeat(1.0 / np.sqrt(crystal.masses), 3)
    return np.asarray(eigenvectors * (phases * masses)[:, :, None] * scale[:, None, :])


def _as_real(matrix: np.ndarray) -> np.ndarray:
    """A complex matrix as a real one on pairs of real and imaginary parts: [[re, -im], [im, re]]."""
    return np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])


class VertexTransform:
    """The merged tensor at one q-point after another, in the modes of q0 and on the grid of q2 but for its last axis.

    Complex numbers are pairs of planes, so that every step is a product of real matrices, which are the fastest there
    are, and the kernel reads vectors without shuffling them.

    Parameters
    ----------
    tensor
        Merged third-order force constants.
    grid
        The grid.
    modes
        (size, n, n) modes in the lattice-periodic gauge.
    """

    def __init__(self, tensor: MergedTensor, grid: Grid, modes: np.ndarray) -> None:
        self._tensor, self._grid, self._modes = tensor, grid, modes
        self._threads = threading.local()
        self.bands = modes.shape[1]
        # The longest axis first shrinks nothing and is cheapest there; the shortest is left for the kernel.
        self.order: tuple[int, ...] = tuple(sorted(range(3), key=lambda axis: -tensor.box[axis]))
        self.box = tuple(tensor.box[axis] for axis in self.order)
        self.divisions = tuple(int(grid.divisions[axis]) for axis in self.order)
        place = np.stack(np.unravel_index(tensor.places, tensor.box), axis=1)[:, list(self.order)]
        self._places = torch.from_numpy(np.ravel_multi_index(tuple(place.T), self.box).astype(np.int64))
        self._axes = [self._axis_phases(axis) for axis in self.order]
        # Rows (address, re/im) come out of each of the first two transforms, (re/im, component) go in.
        self._steps = [torch.from_numpy(_rows_by_address(self._axes[step])) for step in range(2)]

    def _axis_phases(self, axis: int) -> np.ndarray:
        """(divisions, box) phases exp(2 pi i a B / D) of one axis."""
        division = int(self._grid.divisions[axis])
        place = np.unravel_index(self._tensor.places, self._tensor.box)[axis]
        components = np.zeros(self._tensor.box[axis])
        components[place] = self._tensor.second[:, axis]
        return np.asarray(np.exp(2j * np.pi * np.outer(np.arange(division), components) / division))

    @property
    def bytes_per_mode(self) -> int:
        """Memory of the tensor of one mode of q0 as `to_grid` gives it."""
        return 16 * self.divisions[0] * self.divisions[1] * self.box[2] * self.bands**2

    @cached_property
    def last_phases(self) -> np.ndarray:
        """(divisions, 2, box) real and imaginary phases of the last axis."""
        phases = self._axes[2]
        return np.ascontiguousarray(np.stack([phases.real, phases.imag], axis=1))

    def anchored(self, points: Sequence[int]) -> list[np.ndarray]:
        """The tensor with the phases of q0, for several q0: one pass through the sparse matrix serves all.

        Parameters
        ----------
        points
            Indices of the q0.

        Returns
        -------
        list of np.ndarray
            For each q0 (2, n_B, n, n, n), real and imaginary part, cartesian, in eV/Angstrom^3.
        """
        phases = self._grid.phases(self._tensor.first, np.asarray(points))
        columns = np.concatenate([phases.real, phases.imag], axis=1)
        product = (self._tensor.values @ columns).T.reshape(2, len(points), len(self._places), *(3 * [self.bands]))
        return [np.ascontiguousarray(product[:, number]) for number in range(len(points))]

    def _buffer(self, name: str, *shape: int) -> torch.Tensor:
        """Memory that q-points of one thread share: new memory for each left gigabytes of freed blocks."""
        size, buffers = int(np.prod(shape)), self._threads.__dict__
        if name not in buffers or buffers[name].numel() < size:
            buffers[name] = torch.empty(size, dtype=torch.float64)
        return buffers[name][:size].view(shape)

    def to_grid(self, anchored: np.ndarray, point: int, bands: slice) -> torch.Tensor:
        """The tensor of one q0 in its modes and on the first two axes of the grid.

        Parameters
        ----------
        anchored
            (2, n_B, n, n, n) as `anchored` gives it.
        point
            Index of q0.
        bands
            Modes of q0 to take: a part of them bounds the memory.

        Returns
        -------
        torch.Tensor
            (D1, D2, 2, box3, n_modes, n, n) float64, axes in the order of `order`; the next call of this thread
            overwrites it.
        """
        n, mode = self.bands, _as_real(self._modes[point][:, bands].T)
        count = mode.shape[0] // 2
        cartesian = torch.from_numpy(anchored).permute(1, 0, 2, 3, 4).reshape(len(self._places), 2 * n, n * n)
        places, rest = len(self._places), count * n * n
        b1, b2, b3 = self.box
        d1, d2 = self.divisions[:2]
        in_modes = self._buffer("modes", places, 2 * count, n * n)
        torch.matmul(torch.from_numpy(mode), cartesian, out=in_modes)
        boxed = self._buffer("boxed", 2, b1 * b2 * b3, rest).zero_()
        boxed[:, self._places] = in_modes.view(places, 2, rest).transpose(0, 1)
        once = self._buffer("once", 2 * d1, b2 * b3 * rest)
        torch.matmul(self._steps[0], boxed.view(2 * b1, -1), out=once)
        twice = self._buffer("twice", d1, 2 * d2, b3 * rest)
        torch.matmul(self._steps[1], once.view(d1, 2 * b2, -1), out=twice)
        return twice.view(d1, d2, 2, b3, count, n, n)


def _rows_by_address(phases: np.ndarray) -> np.ndarray:
    """(2 D, 2 box) real matrix of a transform with rows (address, re/im) and columns (re/im, component)."""
    divisions, box = phases.shape
    return np.ascontiguousarray(_as_real(phases).reshape(2, divisions, 2 * box).transpose(1, 0, 2).reshape(-1, 2 * box))

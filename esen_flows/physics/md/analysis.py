"""What follows from a trajectory: pair distances, displacements and vibrations, as functions of its arrays."""

from dataclasses import dataclass

import numpy as np
from ase import units
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_LAGS, _ORIGINS = 100, 200


@dataclass(frozen=True)
class Trajectory:
    """Frames of molecular dynamics at equal intervals.

    Attributes
    ----------
    numbers
        (n_atoms,) atomic numbers.
    positions_angstrom
        (n_frames, n_atoms, 3) positions in Angstrom.
    cells_angstrom
        (n_frames, 3, 3) cells in Angstrom.
    interval_fs
        Time between two frames in fs.
    stress_ev_per_angstrom3
        (n_frames, 3) stresses xx, yy and zz in eV/Angstrom^3, positive under tension; None where there are none.
    """

    numbers: NDArray[np.int64]
    positions_angstrom: Floats
    cells_angstrom: Floats
    interval_fs: float
    stress_ev_per_angstrom3: Floats | None = None

    def every(self, step: int, n_frames: int) -> "Trajectory":
        """Some of the frames.

        Parameters
        ----------
        step
            Every `step`-th frame is kept.
        n_frames
            Number of frames to keep.

        Returns
        -------
        Trajectory
            Trajectory of the chosen frames.
        """
        frames = slice(0, step * (n_frames - 1) + 1, step)
        stress = self.stress_ev_per_angstrom3
        return Trajectory(
            self.numbers, self.positions_angstrom[frames], self.cells_angstrom[frames], self.interval_fs * step,
            None if stress is None else stress[frames],
        )  # fmt: skip

    @property
    def duration_fs(self) -> float:
        """Time between the first and the last frame in fs."""
        return self.interval_fs * (len(self.positions_angstrom) - 1)


def pair_distribution(trajectory: Trajectory, n_bins: int, longest_angstrom: float) -> tuple[Floats, Floats]:
    """Distribution g(r) of all pairs.

    Parameters
    ----------
    trajectory
        Trajectory.
    n_bins
        Number of bins.
    longest_angstrom
        Upper end of the distances in Angstrom.

    Returns
    -------
    tuple of ndarray
        (n_bins,) middles of the bins in Angstrom and g(r).
    """
    edges = np.linspace(0, longest_angstrom, n_bins + 1)
    counts = np.zeros(n_bins)
    from vesin import NeighborList  # it imports torch

    search = NeighborList(cutoff=longest_angstrom, full_list=True)
    for positions, cell in zip(trajectory.positions_angstrom, trajectory.cells_angstrom, strict=True):
        first, second, distances = search.compute(positions, cell, periodic=True, quantities="ijd")
        # Every pair stands twice. Images of one atom keep their distance, and are no pairs.
        counts += np.histogram(distances[first != second], edges)[0] / 2
    n_atoms, n_frames = len(trajectory.numbers), len(trajectory.positions_angstrom)
    volumes = np.abs(np.linalg.det(trajectory.cells_angstrom))
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    ideal = n_atoms**2 / 2 * np.mean(1 / volumes) * shells
    return (edges[1:] + edges[:-1]) / 2, counts / n_frames / ideal


def minimum_image_radius(*trajectories: Trajectory) -> float:
    """Half the shortest lattice vector of all cells, after Minkowski reduction.

    Parameters
    ----------
    trajectories
        Trajectories of crystals.

    Returns
    -------
    float
        Radius in Angstrom.
    """
    shortest = np.inf
    for trajectory in trajectories:
        for cell in np.unique(trajectory.cells_angstrom, axis=0):
            shortest = min(shortest, float(np.linalg.norm(minkowski_reduce(cell)[0], axis=1).min()))
    return shortest / 2


def vibrational_spectrum(trajectory: Trajectory) -> tuple[Floats, Floats]:
    """Vibrational density of states from the velocities of the unwrapped positions.

    Parameters
    ----------
    trajectory
        Trajectory.

    Returns
    -------
    tuple of ndarray
        Frequencies in THz and density; each Cartesian component of each atom is normalised to one before they are
        added.
    """
    positions = _unwrapped(trajectory)
    velocities = np.gradient(positions, axis=0).reshape(len(positions), -1)
    window = np.hanning(len(velocities))[:, None]
    power = np.abs(np.fft.rfft(velocities * window, axis=0)) ** 2
    total = power.sum(axis=0)
    density = np.divide(power, total, out=np.zeros_like(power), where=total > 0).sum(axis=1)
    return np.asarray(np.fft.rfftfreq(len(velocities), trajectory.interval_fs / 1000), dtype=float), density


def kinetic_temperature_kelvin(trajectory: Trajectory, masses_u: Floats) -> float:
    """Temperature by the velocities between frames, with three degrees of freedom for each atom.

    Parameters
    ----------
    trajectory
        Trajectory of at least two frames.
    masses_u
        (n_atoms,) masses in u.

    Returns
    -------
    float
        Temperature in K; too low where atoms vibrate within a few frames.
    """
    velocities = np.gradient(_unwrapped(trajectory), trajectory.interval_fs * units.fs, axis=0)
    return float((masses_u[:, None] * velocities**2).mean() / units.kB)


def _unwrapped(trajectory: Trajectory) -> Floats:
    """Positions that do not jump from one side of the cell to the other."""
    cells = trajectory.cells_angstrom
    if np.abs(np.linalg.det(cells)).min() < 1e-8:  # a molecule without a cell
        return trajectory.positions_angstrom
    fractional = np.einsum("tai,tij->taj", trajectory.positions_angstrom, np.linalg.inv(cells))
    steps = np.diff(fractional, axis=0)
    fractional[1:] = fractional[0] + np.cumsum(steps - np.rint(steps), axis=0)
    return np.asarray(np.einsum("taj,tjk->tak", fractional, cells))


def mean_square_displacement(positions_angstrom: Floats, interval_fs: float, masses_u: Floats) -> tuple[Floats, Floats]:
    """Mean square displacement of the atoms relative to their centre of mass, over many starting frames.

    Parameters
    ----------
    positions_angstrom
        (frames, n, 3) positions that do not jump at the sides of a cell, in Angstrom.
    interval_fs
        Time between two frames in fs.
    masses_u
        (n,) masses in u.

    Returns
    -------
    tuple of ndarray
        (times,) times in ps from 0 to half of the trajectory, at most 100, and (times,) displacements in Angstrom^2.
    """
    frames = len(positions_angstrom)
    relative = positions_angstrom - np.average(positions_angstrom, axis=1, weights=masses_u)[:, None]
    lags = np.unique(np.linspace(0, frames // 2, _LAGS + 1).astype(int))
    found = []
    for lag in lags:
        origins = np.unique(np.linspace(0, frames - 1 - lag, _ORIGINS).astype(int))
        moved = relative[origins + lag] - relative[origins]
        found.append(float((moved**2).sum(axis=2).mean()))
    return lags * interval_fs / 1000.0, np.array(found)

"""Jumps of energy and forces along paths, at the cutoff, and when a bond is stretched."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.polynomial import chebyshev

from esen_flows.forcefield.contract import ForceField
from esen_flows.physics.conservation.derivatives import moved

# Each refinement divides the interval with the largest deviation into this many.
PARTS = 16
REFINEMENTS = 3
# Distance from the cutoff in Angstrom on both sides of it.
NEAR_ANGSTROM = 1e-6


@dataclass(frozen=True)
class Jump:
    """The largest jump on a path.

    Attributes
    ----------
    energy_ev
        Change of the energy over a short interval, less that over its neighbours, in eV.
    force_ev_per_angstrom
        The same of the force component that changes most, in eV/Angstrom.
    interval_angstrom
        Length of the interval in Angstrom.
    """

    energy_ev: float
    force_ev_per_angstrom: float
    interval_angstrom: float


def largest_jump(force_field: ForceField, atoms: Atoms, direction: np.ndarray, length: float, points: int) -> Jump:
    """The largest jump of the energy along a straight path, on which atoms cross the cutoff of others.

    Energy differences are compared with the integrated forces. The interval with the largest deviation is refined, so
    that deviations of a smooth energy vanish and those of a jump stay.

    Parameters
    ----------
    force_field
        Force field to measure.
    atoms
        Structure at the beginning of the path.
    direction
        (n, 3) direction of unit length.
    length
        Length of the path in Angstrom.
    points
        Number of structures on the path before it is refined.

    Returns
    -------
    Jump
        The jump in the last interval.
    """
    begin, step = 0.0, length / (points - 1)
    jump = _worst(force_field, atoms, direction, begin, step, points)
    for _ in range(REFINEMENTS):
        begin, step = jump[1], step / PARTS
        jump = _worst(force_field, atoms, direction, begin, step, PARTS + 1)
    return jump[0]


def _worst(
    force_field: ForceField, atoms: Atoms, direction: np.ndarray, begin: float, step: float, points: int
) -> tuple[Jump, float]:
    """The interval of a path with the largest deviation, and its begin."""
    places = begin + step * np.arange(-1, points + 1)  # one more on both sides, for the order of the quadrature
    results = force_field.evaluate([moved(atoms, place * direction) for place in places])
    energies = np.array([one.energy for one in results])
    forces = np.array([one.forces for one in results])
    along = (forces * direction).sum(axis=(1, 2))
    work = step / 24 * (-along[:-3] + 13 * along[1:-2] + 13 * along[2:-1] - along[3:])
    deviations = np.diff(energies[1:-1]) + work
    worst = int(np.abs(deviations).argmax())
    beside = deviations[[one for one in (worst - 1, worst + 1) if 0 <= one < len(deviations)]].mean()
    jump = Jump(abs(float(deviations[worst] - beside)), _beyond(forces[worst : worst + 4]), step)
    return jump, float(places[worst + 1])


def _beyond(values: np.ndarray) -> float:
    """Largest change between the middle two of four values, less that between the others."""
    change = np.diff(values, axis=0)
    return float(np.abs(change[1] - (change[0] + change[2]) / 2).max())


def cutoff_jump(force_field: ForceField, atoms: Atoms) -> Jump | None:
    """Jump of energy and forces where two atoms pass the declared cutoff.

    Parameters
    ----------
    force_field
        Force field to measure.
    atoms
        A structure, of which one atom is moved so that its distance from another one is the cutoff.

    Returns
    -------
    Jump | None
        The jump; None where no cutoff is declared, or no atoms are near to it.
    """
    cutoff = force_field.declaration.cutoff_angstrom
    pair = None if cutoff is None else _pair_near(atoms, cutoff)
    if cutoff is None or pair is None:
        return None
    atom, vector = pair
    distance = float(np.linalg.norm(vector))
    direction = np.zeros((len(atoms), 3))
    direction[atom] = vector / distance
    results = force_field.evaluate(
        [moved(atoms, (cutoff - distance + k * NEAR_ANGSTROM) * direction) for k in (-3, -1, 1, 3)]
    )
    energies, forces = np.array([one.energy for one in results]), np.array([one.forces for one in results])
    return Jump(_beyond(energies), _beyond(forces), 2 * NEAR_ANGSTROM)


def _pair_near(atoms: Atoms, distance: float) -> tuple[int, np.ndarray] | None:
    """An atom and the vector to it from another one, whose length is within 1 Angstrom of a distance."""
    first, second, lengths, vectors = neighbor_list("ijdD", atoms, distance + 1.0)
    candidates = np.flatnonzero(first != second)
    if len(candidates) == 0:
        return None
    best = candidates[np.abs(lengths[candidates] - distance).argmin()]
    return int(second[best]), vectors[best]


def bond_scan(force_field: ForceField, crystal: Atoms, points: int) -> tuple[int, float]:
    """Stretch a nearest-neighbour bond from 0.8 to 1.3 of its length by moving one atom.

    Parameters
    ----------
    force_field
        Force field to measure.
    crystal
        A perfect crystal of at least two atoms.
    points
        Number of bond lengths.

    Returns
    -------
    tuple[int, float]
        Number of minima of the energy beyond the first one, and the energy difference of the ends less the work of
        the forces, in eV.
    """
    first, second, lengths, vectors = neighbor_list("ijdD", crystal, 6.0)
    pairs = np.flatnonzero(first != second)
    best = pairs[lengths[pairs].argmin()]
    direction = np.zeros((len(crystal), 3))
    direction[second[best]] = vectors[best] / lengths[best]
    # At Chebyshev points a polynomial through all forces integrates to many digits.
    ends = np.array([-0.2, 0.3]) * lengths[best]
    places = -np.cos(np.pi * np.arange(points) / (points - 1))
    stretches = ends.mean() + places * (ends[1] - ends[0]) / 2
    results = force_field.evaluate([moved(crystal, stretch * direction) for stretch in stretches])
    energies = np.array([one.energy for one in results])
    along = [float((one.forces * direction).sum()) for one in results]
    integral = chebyshev.chebint(chebyshev.chebfit(places, along, points - 1))
    work = float(chebyshev.chebval(1.0, integral) - chebyshev.chebval(-1.0, integral)) * (ends[1] - ends[0]) / 2
    minima = int(((energies[1:-1] < energies[:-2]) & (energies[1:-1] <= energies[2:])).sum())
    return max(0, minima - 1), abs(float(energies[-1] - energies[0]) + work)

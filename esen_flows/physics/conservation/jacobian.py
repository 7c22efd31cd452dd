"""Whether forces are the gradient of any energy: symmetry of their derivatives, and work around closed paths."""

import numpy as np
from ase import Atoms

from esen_flows.forcefield.contract import ForceField
from esen_flows.physics.conservation.derivatives import STENCIL, displaced, moved, slope


def unit_directions(atoms: Atoms) -> np.ndarray:
    """Directions that displace one atom along one axis each.

    Parameters
    ----------
    atoms
        A structure of n atoms.

    Returns
    -------
    np.ndarray
        (3n, n, 3), atom by atom.
    """
    return np.eye(3 * len(atoms)).reshape(-1, len(atoms), 3)


def jacobian_by_differences(force_field: ForceField, atoms: Atoms, step: float) -> np.ndarray:
    """Derivatives of the forces by all coordinates, by five-point central differences.

    Parameters
    ----------
    force_field
        Force field to measure.
    atoms
        A structure of n atoms, which is evaluated 12 n times.
    step
        Step in Angstrom.

    Returns
    -------
    np.ndarray
        (3n, 3n) in eV/Angstrom^2: dF_j / dx_i in row i and column j.
    """
    directions = unit_directions(atoms)
    results = force_field.evaluate([one for direction in directions for one in displaced(atoms, direction, step)])
    forces = np.array([one.forces.ravel() for one in results]).reshape(len(directions), len(STENCIL), -1)
    return np.array([slope(rows, step) for rows in forces])


def asymmetry(jacobian: np.ndarray) -> float:
    """How far a square matrix is from symmetric: norm((J - J^T) / 2) / norm(J), as ml-peg defines it.

    Parameters
    ----------
    jacobian
        (m, m) derivatives of the forces.

    Returns
    -------
    float
        0 for a symmetric matrix, 1 for an antisymmetric one.

    Examples
    --------
    >>> asymmetry(np.array([[0.0, 1.0], [-1.0, 0.0]]))
    1.0
    """
    return float(np.linalg.norm(jacobian - jacobian.T) / 2 / np.linalg.norm(jacobian))


def loop_work(
    force_field: ForceField, atoms: Atoms, random: np.random.Generator, radius: float, points: int
) -> tuple[float, float]:
    """Work of the forces around a circle in a random plane of all coordinates, which no energy allows.

    The trapezoidal rule on a circle is exact to all orders for smooth forces.

    Parameters
    ----------
    force_field
        Force field to measure.
    atoms
        Structure at the centre of the circle.
    random
        Source of the plane.
    radius
        Radius of the circle in Angstrom, over all coordinates together.
    points
        Number of structures on the circle.

    Returns
    -------
    tuple[float, float]
        Absolute work in eV, and relative to the integral of the norm of the forces, without their mean, along the path.
    """
    plane, _ = np.linalg.qr(random.normal(size=(3 * len(atoms), 2)))
    angles = 2 * np.pi * np.arange(points) / points
    places = radius * np.stack((np.cos(angles), np.sin(angles)), axis=1) @ plane.T
    tangents = radius * np.stack((-np.sin(angles), np.cos(angles)), axis=1) @ plane.T
    results = force_field.evaluate([moved(atoms, place.reshape(-1, 3)) for place in places])
    forces = np.array([one.forces.ravel() for one in results])
    forces -= forces.mean(axis=0)  # a constant force does no work around a circle
    work = abs(float((forces * tangents).sum())) * 2 * np.pi / points
    return work, work / (float(np.linalg.norm(forces, axis=1).mean()) * 2 * np.pi * radius)

"""How second and third derivatives by finite displacements approach the exact ones, and the best displacement."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from esen_flows.forcefield.contract import ForceField
from esen_flows.physics.conservation.derivatives import STENCIL, displaced, moved, slope
from esen_flows.physics.conservation.jacobian import jacobian_by_differences, unit_directions

# Step in Angstrom of the five-point differences that stand for exact derivatives where there are none.
REFERENCE_STEP_ANGSTROM = 5e-3
# A displacement counts as good as the best one up to this factor of its error: the minimum is flat.
FLATNESS = 2.0


def exact_hessian(force_field: ForceField, crystal: Atoms) -> np.ndarray:
    """Second derivatives of the energy: exact where the force field has them, otherwise by five-point differences.

    Parameters
    ----------
    force_field
        Force field in float64.
    crystal
        A structure of n atoms.

    Returns
    -------
    np.ndarray
        (3n, 3n) in eV/Angstrom^2.
    """
    m = 3 * len(crystal)
    if force_field.declaration.differentiable:
        return force_field.hessian(crystal).transpose(0, 2, 1, 3).reshape(m, m)
    return -jacobian_by_differences(force_field, crystal, REFERENCE_STEP_ANGSTROM)


def frequencies(hessian: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Frequencies of a Hessian, in an arbitrary unit; imaginary ones are negative.

    Parameters
    ----------
    hessian
        (3n, 3n) second derivatives, which are symmetrised.
    masses
        (n,) masses.

    Returns
    -------
    np.ndarray
        (3n,) in ascending order.
    """
    root = np.repeat(np.sqrt(masses), 3)
    squares = np.linalg.eigvalsh((hessian + hessian.T) / 2 / np.outer(root, root))
    return np.sign(squares) * np.sqrt(np.abs(squares))


def frequency_errors(
    force_field: ForceField, crystal: Atoms, exact: np.ndarray, displacements: Sequence[float]
) -> np.ndarray:
    """Errors of the frequencies of a cell by forces of displaced atoms, as phonon calculations take them.

    Parameters
    ----------
    force_field
        Force field, in any precision.
    crystal
        A perfect crystal of n atoms, which is evaluated 6 n times for each displacement.
    exact
        (3n, 3n) exact second derivatives.
    displacements
        Displacements in Angstrom.

    Returns
    -------
    np.ndarray
        For each displacement the largest error of a frequency, relative to the highest one.
    """
    right = frequencies(exact, crystal.get_masses())
    directions, errors = unit_directions(crystal), []
    for h in displacements:
        results = force_field.evaluate([moved(crystal, sign * h * d) for d in directions for sign in (-1, 1)])
        forces = np.array([one.forces.ravel() for one in results]).reshape(len(directions), 2, -1)
        found = frequencies(-(forces[:, 1] - forces[:, 0]) / (2 * h), crystal.get_masses())
        errors.append(float(np.abs(found - right).max()) / float(np.abs(right).max()))
    return np.array(errors)


def exact_third_derivative(force_field: ForceField, atoms: Atoms, direction: np.ndarray) -> np.ndarray:
    """Second derivative of the forces along a direction, by differences of the Hessian or of forces.

    Parameters
    ----------
    force_field
        Force field in float64.
    atoms
        A structure of n atoms.
    direction
        (n, 3) direction of unit length.

    Returns
    -------
    np.ndarray
        (n, 3) in eV/Angstrom^3.
    """
    step = REFERENCE_STEP_ANGSTROM
    if force_field.declaration.differentiable:
        places = displaced(atoms, direction, step)
        products = [force_field.hessian_vector_products(place, direction[None])[0] for place in places]
        return np.asarray(-slope(products, step))
    weights = {0: -30 / 12} | {k: (16 if abs(k) == 1 else -1) / 12 for k, _ in STENCIL}
    results = force_field.evaluate([moved(atoms, k * 4 * step * direction) for k in weights])
    forces = zip(weights.values(), results, strict=True)
    return np.asarray(sum(weight * one.forces for weight, one in forces)) / (4 * step) ** 2


def third_derivative_errors(
    force_field: ForceField, atoms: Atoms, direction: np.ndarray, exact: np.ndarray, displacements: Sequence[float]
) -> np.ndarray:
    """Errors of third derivatives by two displacements, as conductivity calculations take them.

    Parameters
    ----------
    force_field
        Force field, in any precision.
    atoms
        A structure of n atoms.
    direction
        (n, 3) direction of unit length.
    exact
        (n, 3) exact second derivative of the forces along it.
    displacements
        Displacements in Angstrom.

    Returns
    -------
    np.ndarray
        For each displacement the norm of the error relative to that of the exact derivative.
    """
    centre = force_field.evaluate([atoms])[0].forces
    errors = []
    for h in displacements:
        back, forth = force_field.evaluate([moved(atoms, sign * h * direction) for sign in (-1, 1)])
        found = (back.forces + forth.forces - 2 * centre) / h**2
        errors.append(float(np.linalg.norm(found - exact) / np.linalg.norm(exact)))
    return np.array(errors)


def recommended_displacement(displacements: Sequence[float], errors: np.ndarray) -> float:
    """The largest displacement whose error is about the smallest one.

    Parameters
    ----------
    displacements
        Displacements in Angstrom.
    errors
        Error at each displacement.

    Returns
    -------
    float
        The displacement in Angstrom.

    Examples
    --------
    >>> recommended_displacement([0.1, 0.03, 0.01, 0.001], np.array([1e-2, 1e-3, 8e-4, 5e-2]))
    0.03
    """
    good = np.asarray(errors) <= FLATNESS * float(np.min(errors))
    return float(max(np.asarray(displacements)[good]))

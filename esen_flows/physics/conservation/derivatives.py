"""How far forces, stress and Hessian are from derivatives of the energy, by central differences."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from ase import Atoms

from esen_flows.forcefield.contract import Evaluation, ForceField

# Steps and weights of five-point central differences, which are exact to fourth order in the step.
STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))


def slope(values: Iterable[Any], step: float) -> Any:
    """Derivative at zero of values at the positions of the stencil.

    Parameters
    ----------
    values
        One value, or array of values, for each position.
    step
        Distance of neighbouring positions.

    Returns
    -------
    Any
        The derivative, of the type of a value.
    """
    return sum(weight * value for (_, weight), value in zip(STENCIL, values, strict=True)) / step


def displaced(atoms: Atoms, direction: np.ndarray, step: float) -> list[Atoms]:
    """A structure at the positions of the stencil along a direction.

    Parameters
    ----------
    atoms
        The structure.
    direction
        (n, 3) direction.
    step
        Distance of neighbouring positions in units of the direction.

    Returns
    -------
    list[Atoms]
        One structure for each position.
    """
    return [moved(atoms, k * step * direction) for k, _ in STENCIL]


def moved(atoms: Atoms, shift: np.ndarray) -> Atoms:
    """A copy of a structure with other positions; constraints do not hold.

    Parameters
    ----------
    atoms
        The structure.
    shift
        (n, 3) displacements in Angstrom.

    Returns
    -------
    Atoms
        The displaced copy.
    """
    copy = atoms.copy()
    copy.set_positions(atoms.positions + shift, apply_constraint=False)
    return copy


def gradient_error(
    force_field: ForceField, atoms: Atoms, result: Evaluation, directions: np.ndarray, step: float
) -> float:
    """Largest deviation of the forces along directions from the slope of the energy.

    For a force field with direct forces this is their distance from the conservative forces of its energy.

    Parameters
    ----------
    force_field
        Force field to measure.
    atoms
        The structure.
    result
        Its result.
    directions
        (k, n, 3) directions of unit length.
    step
        Step of the differences in Angstrom.

    Returns
    -------
    float
        The deviation relative to the largest component of the forces, or to 1 eV/Angstrom if that is larger.
    """
    results = force_field.evaluate([one for direction in directions for one in displaced(atoms, direction, step)])
    energies = np.array([one.energy for one in results]).reshape(-1, len(STENCIL))
    errors = [
        abs(-slope(e, step) - float((result.forces * d).sum())) for e, d in zip(energies, directions, strict=True)
    ]
    return float(max(errors)) / max(1.0, float(np.abs(result.forces).max()))


def strain_error(
    force_field: ForceField, atoms: Atoms, result: Evaluation, random: np.random.Generator, step: float
) -> float:
    """Deviation of the stress from the slope of the energy under a random strain.

    Parameters
    ----------
    force_field
        Force field to measure.
    atoms
        A crystal.
    result
        Its result.
    random
        Source of the strain.
    step
        Step of the strain.

    Returns
    -------
    float
        The deviation in eV/Angstrom^3.
    """
    direction = random.normal(size=(3, 3))
    direction = (direction + direction.T) / np.linalg.norm(direction + direction.T)
    strained = [atoms.copy() for _ in STENCIL]
    for copy, (k, _) in zip(strained, STENCIL, strict=True):
        copy.set_cell(atoms.cell.array @ (np.eye(3) + k * step * direction), scale_atoms=True)
    energy_slope = slope((r.energy for r in force_field.evaluate(strained)), step)
    return float(abs(energy_slope / atoms.get_volume() - float((result.stress * direction).sum())))


def hessian_errors(
    force_field: ForceField, atoms: Atoms, random: np.random.Generator, step: float
) -> tuple[float, float]:
    """Deviation of exact second derivatives from differences of forces, and from their own symmetries.

    Parameters
    ----------
    force_field
        A differentiable force field.
    atoms
        The structure.
    random
        Source of two directions.
    step
        Step of the differences in Angstrom.

    Returns
    -------
    tuple[float, float]
        Deviation from differences, and violation of permutation symmetry and of the acoustic sum rule, both relative
        to the largest product or to 1 eV/Angstrom^2.

    Raises
    ------
    AssertionError
        The products have the wrong shape.
    """
    directions = random.normal(size=(2, len(atoms), 3))
    directions /= np.linalg.norm(directions, axis=(1, 2), keepdims=True)
    products = force_field.hessian_vector_products(atoms, directions)
    assert products.shape == directions.shape, f"products have shape {products.shape}, expected {directions.shape}"
    by_forces = -slope((r.forces for r in force_field.evaluate(displaced(atoms, directions[0], step))), step)
    size = max(1.0, float(np.abs(products).max()))
    crossed = float((directions[0] * products[1]).sum() - (directions[1] * products[0]).sum())
    drift = float(np.abs(products.sum(axis=1)).max())
    return float(np.abs(by_forces - products[0]).max()) / size, max(abs(crossed), drift) / size

"""Forces of displaced supercells to first order in the last displacement, from exact Hessians.

This is the limit of the finite-displacement method for small displacements, in the same data format: force constants
follow from these forces by the same code. No forces are subtracted from each other, so that float32 loses no digits.
"""

from collections.abc import Callable

import numpy as np
from ase import Atoms

from esen_flows.forcefield.contract import ForceField
from esen_flows.physics.lattice.datasets import Dataset, DisplacementPlan, included

# Each call builds the gradient anew, for this many products; progress is reported after each call.
PRODUCTS_PER_CALL = 64


def linear_forces(plan: DisplacementPlan, force_field: ForceField, report: Callable[[int], None]) -> np.ndarray:
    """Changes of the forces by displacements, to first order in the last displacement.

    An atom displaced by u: -H u, with the Hessian H of the undisplaced supercell. A pair, the first atom displaced by u
    and the second by w: -H u - H(u) w, with the Hessian H(u) of the supercell in which the first atom has moved.
    Third-order force constants are then differences of exact Hessians. They are central differences: phono3py displaces
    along +u and -u unless the symmetry of the crystal maps one to the other, and solves for all symmetry-equivalent
    displacements at once, so that terms even in u cancel.

    Residual forces of the undisplaced crystal do not enter.

    Parameters
    ----------
    plan
        The displaced supercells.
    force_field
        Force field with exact second derivatives.
    report
        Called with the number of supercells that were done since the last call.

    Returns
    -------
    np.ndarray
        (n_supercells, n_atoms, 3) in eV/Angstrom, in the order of the plan.

    Raises
    ------
    NotDifferentiableError
        The force field has no exact second derivatives.
    StructureError, UnknownElementError, EvaluationError
        The force field refuses the structure or fails.
    """
    first_atoms = plan.dataset["first_atoms"]
    firsts = -_products(force_field, plan.perfect, first_atoms, report)
    pairs = [
        force - _products(force_field, moved, [pair for pair in entry["second_atoms"] if included(pair)], report)
        for entry, force, moved in zip(first_atoms, firsts, plan.supercells, strict=False)
        if "second_atoms" in entry
    ]
    return np.concatenate([firsts, *pairs])


def _products(
    force_field: ForceField, cell: Atoms, displaced: list[Dataset], report: Callable[[int], None]
) -> np.ndarray:
    """The Hessian of a supercell times each displacement of one atom, (n, n_atoms, 3) in eV/Angstrom."""
    vectors, which, sign = _up_to_sign(displaced, len(cell))
    products = np.zeros_like(vectors)
    for first in range(0, len(vectors), PRODUCTS_PER_CALL):
        block = slice(first, first + PRODUCTS_PER_CALL)
        products[block] = force_field.hessian_vector_products(cell, vectors[block])
        report(int((which // PRODUCTS_PER_CALL == first // PRODUCTS_PER_CALL).sum()))
    return np.asarray(sign[:, None, None] * products[which])


def _up_to_sign(displaced: list[Dataset], n_atoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors (m, n_atoms, 3), one for opposite displacements, and index and sign (n,) of each displacement."""
    known: dict[tuple[float, ...], int] = {}
    which, sign = [], []
    for entry in displaced:
        displacement = np.asarray(entry["displacement"])
        sign.append(1.0 if tuple(displacement) > (0.0, 0.0, 0.0) else -1.0)
        which.append(known.setdefault((entry["number"], *(sign[-1] * displacement)), len(known)))
    vectors = np.zeros((len(known), n_atoms, 3))
    for vector, (number, *components) in zip(vectors, known, strict=True):
        vector[int(number)] = components
    return vectors, np.array(which, dtype=int), np.array(sign)

"""Forces of displaced supercells to first order in the last displacement, from exact Hessians.

The finite-displacement method in the limit of small displacements, in its own data format: force constants follow from
these forces by the same code. Nothing is subtracted from anything, so that float32 loses no digits here.
"""

from collections.abc import Callable

import numpy as np
from ase import Atoms

from esen_flows.forcefield.contract import ForceField
from esen_flows.physics.lattice.datasets import Dataset, DisplacementPlan, included

# One more gradient is built for every so many products; progress is told after each.
PRODUCTS_PER_CALL = 64


def linear_forces(plan: DisplacementPlan, force_field: ForceField, report: Callable[[int], None]) -> np.ndarray:
    """What displacements add to the forces, (n_supercells, n_atoms, 3) in eV/Angstrom, in the order of the plan.

    An atom displaced by u: -H u, with the Hessian H of the undisplaced supercell. A pair, the first atom by u and the
    second by w: -H u - H(u) w, with the Hessian H(u) of the supercell in which the first atom has moved. Third-order
    force constants are then differences of exact Hessians. They are central differences: phono3py displaces along +u
    and -u unless the crystal's symmetry maps one to the other, and solves for all symmetry-equivalent displacements at
    once, so that what is even in u cancels.

    Residual forces of the undisplaced crystal do not enter.

    Raises
    ------
    NotDifferentiableError
        the force field has no exact second derivatives.
    StructureError, UnknownElementError, EvaluationError
        from the force field.
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
    """Displacements as vectors (m, n_atoms, 3), opposite ones once; of each displacement, which one and its sign."""
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

"""Inversion averaging: a force field that knows only proper rotations made exact for mirror images too."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from ase import Atoms

from esen_flows.forcefield.contract import Equivariance, Evaluation, ForceField
from esen_flows.schemas.keys import sha256_of

Parity = Literal["average", "as_is"]


def inverted(atoms: Atoms) -> Atoms:
    """The image of a structure under x -> -x.

    Positions change sign and the cell stays: a lattice is its own inverse (it holds -L with every L), so that the
    crystal is the same as with the cell negated too, while the cell keeps its handedness. Charge, spin and magnetic
    moments (axial vectors) are even under inversion and stay as well.
    """
    image = atoms.copy()
    image.set_positions(-atoms.positions, apply_constraint=False)
    return image


class InversionAveraged(ForceField):
    """E(x) <- (E(x) + E(-x))/2 and its gradients, from two evaluations in one batch.

    Every improper operation is the inversion times a proper rotation, so the average over {1, inversion} of an
    SO(3)-exact force field is O(3)-exact. Energies, per-atom energies, stress and Hessian (tensors of even rank) are
    averaged; forces, odd under inversion, are subtracted. The average of conservative forces is conservative. Why it
    matters: phonon codes reduce displacements by all space-group operations, and a constant mirror error over the
    displacement ruins third-order force constants.

    Parameters
    ----------
    inner
        the force field to average; its `evaluate` receives every structure followed by its inverse.
    """

    def __init__(self, inner: ForceField) -> None:
        self.inner = inner
        self.key = sha256_of({"wrapper": "inversion_averaged", "revision": 1, "inner": inner.key})
        self.label = f"{inner.label}, inversion-averaged"
        equivariance: Equivariance = "approximate" if inner.declaration.equivariance == "approximate" else "O3"
        self.declaration = replace(inner.declaration, equivariance=equivariance)
        self.force_evaluations = 0

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        """Averaged energies (eV), forces (eV/Angstrom) and stresses (eV/Angstrom^3), in order; see the contract.

        `force_evaluations` grows by what the inner force field evaluated: two per structure.
        """
        return [averaged(original, image) for original, image in self.evaluate_pairs(structures)]

    def hessian_vector_products(self, atoms: Atoms, vectors: np.ndarray) -> np.ndarray:
        """Averaged second derivatives along directions (k, n, 3); see the contract.

        The second derivatives of E(-x) are those of E at -x: both signs of the chain rule cancel.
        """
        original, image = (self.inner.hessian_vector_products(each, vectors) for each in (atoms, inverted(atoms)))
        self.force_evaluations += 2 * len(vectors)
        return np.asarray(original + image) / 2

    def evaluate_pairs(self, structures: Sequence[Atoms]) -> list[tuple[Evaluation, Evaluation]]:
        """What the inner force field says of every structure and of its inverse, not yet averaged."""
        batch = [image for atoms in structures for image in (atoms, inverted(atoms))]
        results = self.inner.evaluate(batch)
        self.force_evaluations += len(batch)
        return list(zip(results[0::2], results[1::2], strict=True))


def averaged(original: Evaluation, image: Evaluation) -> Evaluation:
    """Mean of an evaluation and that of the inverted structure, expressed in the original's frame."""
    energies = None
    if original.energies is not None and image.energies is not None:
        energies = (original.energies + image.energies) / 2
    return Evaluation(
        energy=(original.energy + image.energy) / 2,
        forces=np.asarray(original.forces - image.forces) / 2,
        stress=np.asarray(original.stress + image.stress) / 2,
        energies=energies,
    )


def with_parity(force_field: ForceField, parity: Parity) -> ForceField:
    """The force field as a protocol's `parity` asks for it.

    Returns the same object for "as_is" and for one that is O(3)-equivariant already (averaging would double the cost
    and change nothing), otherwise `InversionAveraged` around it.

    Raises
    ------
    ValueError
        `parity` is neither "average" nor "as_is".
    """
    if parity not in ("average", "as_is"):
        raise ValueError(f"parity must be 'average' or 'as_is', got {parity!r}")
    if parity == "as_is" or force_field.declaration.equivariance == "O3":
        return force_field
    return InversionAveraged(force_field)

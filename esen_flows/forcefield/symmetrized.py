"""Inversion averaging, which makes a force field that is exact under rotations exact under mirror images too."""

from dataclasses import replace

import numpy as np
from ase import Atoms

from esen_flows.data.batch_state import BatchState
from esen_flows.forcefield.contract import ATOMS_AT_ONCE, BatchEvaluation, Evaluation, ForceField
from esen_flows.schemas.declarations import Equivariance, Parity
from esen_flows.schemas.keys import sha256_of
from esen_flows.structures.inputs import AnyStructures, as_structures


def inverted(atoms: Atoms) -> Atoms:
    """Image of a structure under x -> -x.

    Positions change sign and the cell stays. A lattice is its own inverse (with every vector L it holds -L), so that
    this is the same crystal as with a negated cell, and the cell keeps its handedness. Charge, spin and magnetic
    moments (axial vectors) are even under inversion and stay too.

    Parameters
    ----------
    atoms
        Structure; it is not changed.

    Returns
    -------
    Atoms
        Inverted copy.
    """
    image = atoms.copy()
    image.set_positions(-atoms.positions, apply_constraint=False)
    return image


class InversionAveraged(ForceField):
    """Force field of the energy (E(x) + E(-x))/2 and its gradients, from two evaluations in one batch.

    Every improper operation is the inversion times a proper rotation. The average over {1, inversion} of a force field
    that is exact under SO(3) is therefore exact under O(3). Energies, energies of atoms, stress and Hessian (tensors of
    even rank) are averaged; forces, which are odd under inversion, are subtracted. The average of conservative forces
    is conservative. It is needed because phonon codes reduce displacements by all space-group operations, and a
    constant mirror error divided by the displacement ruins third-order force constants.

    Parameters
    ----------
    inner
        Force field to average; its `evaluate` receives every structure followed by its inverse.
    """

    def __init__(self, inner: ForceField) -> None:
        self.inner, self.device = inner, inner.device
        self.key = sha256_of({"wrapper": "inversion_averaged", "revision": 1, "inner": inner.key})
        self.label = f"{inner.label}, inversion-averaged"
        equivariance: Equivariance = "approximate" if inner.declaration.equivariance == "approximate" else "O3"
        self.declaration = replace(inner.declaration, equivariance=equivariance)

    def direct(self) -> "InversionAveraged":
        """The average of the inner force field's direct forces and stress.

        Returns
        -------
        InversionAveraged
            A force field of its own around the same network.

        Raises
        ------
        ModelError
            The inner force field has no direct heads.
        """
        return InversionAveraged(self.inner.direct())

    def atoms_at_once(self, atoms: Atoms) -> int:
        """Number of atoms in structures like this one that are worth handing over together.

        Parameters
        ----------
        atoms
            One of the structures.

        Returns
        -------
        int
            Half of the inner force field's number, which gets every structure twice, or the usual number.
        """
        return max(ATOMS_AT_ONCE, self.inner.atoms_at_once(atoms) // 2)

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        """Averaged energies, forces and stresses of structures, in their order; each counts as two evaluations.

        Parameters
        ----------
        structures
            Structures that the inner force field can evaluate.

        Returns
        -------
        list[Evaluation]
            One result per structure.
        """
        batch = [image for atoms in as_structures(structures) for image in (atoms, inverted(atoms))]
        results = self.inner.evaluate(batch)
        self.force_evaluations += len(batch)
        return [_averaged(*pair) for pair in zip(results[0::2], results[1::2], strict=True)]

    def evaluate_batch(self, state: BatchState) -> BatchEvaluation:
        """Averaged energies, forces and stresses of structures that stay on a device from step to step.

        The edges of the images are the negative ones of the structures, so that both share their neighbour tables.

        Parameters
        ----------
        state
            Structures that the inner force field can evaluate.

        Returns
        -------
        BatchEvaluation
            Results of all structures; each counts as two evaluations.
        """
        if type(self.inner).evaluate_batch is ForceField.evaluate_batch:
            return super().evaluate_batch(state)  # it takes lists: structures and images in one
        original = self.inner.evaluate_batch(state)
        image = self.inner.evaluate_batch(state.inverted())
        self.force_evaluations += 2 * state.n_systems
        return BatchEvaluation(
            energy=(original.energy + image.energy) / 2,
            forces=(original.forces - image.forces) / 2,
            stress=(original.stress + image.stress) / 2,
        )

    def hessian_vector_products(self, atoms: Atoms, vectors: np.ndarray) -> np.ndarray:
        """Averaged second derivatives of the energy along directions.

        The second derivatives of E(-x) are those of E at -x: both signs of the chain rule cancel.

        Parameters
        ----------
        atoms
            One structure.
        vectors
            (k, n, 3) directions, of any length.

        Returns
        -------
        np.ndarray
            (k, n, 3) in eV/Angstrom^2 times the unit of `vectors`.
        """
        original, image = (self.inner.hessian_vector_products(each, vectors) for each in (atoms, inverted(atoms)))
        self.force_evaluations += 2 * len(vectors)
        return np.asarray(original + image) / 2


def _averaged(original: Evaluation, image: Evaluation) -> Evaluation:
    """Mean of the results of a structure and of its inverse, in the frame of the structure."""
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
    """Force field with the treatment of mirror images that a protocol names.

    Parameters
    ----------
    force_field
        Force field as loaded.
    parity
        "average": averaged over the inversion, unless it is O3 already, where averaging would double the cost and
        change nothing; "as_is": without averaging.

    Returns
    -------
    ForceField
        The same object, or `InversionAveraged` around it.

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

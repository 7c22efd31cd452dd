"""A force field with an artificial orientation error: a part of degree 4 that is fixed in space, as a test double."""

from dataclasses import replace

import numpy as np

from esen_flows.data.neighbors import neighbor_pairs
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.forcefield.rotations import random_rotations
from esen_flows.structures.inputs import AnyStructures, as_structures

CUTOFF_ANGSTROM = 4.0


class OrientationError(ForceField):
    """Energies E + a sum over pairs of w(d) (sum over k of (e_k.u)^4 - 3/5), with forces and stress as its gradients.

    The second part is a harmonic of degree 4 of the direction u of each neighbour, about axes e_k that are fixed in
    space and along no axes of a crystal. Averages that are exact to the degree 4 remove it, that of the octahedron
    about its own axes does not.

    Parameters
    ----------
    inner
        Force field that gets the error.
    amplitude_ev
        a.
    """

    def __init__(self, inner: ForceField, amplitude_ev: float) -> None:
        self.inner, self.amplitude_ev = inner, amplitude_ev
        self.key, self.label = f"orientation error {amplitude_ev} of {inner.key}", f"{inner.label}, orientation error"
        self.declaration = replace(inner.declaration, equivariance="approximate", differentiable=False)
        self.axes = random_rotations(1, np.random.default_rng(11)).matrices[0]

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        given = as_structures(structures)
        self.force_evaluations += len(given)
        return [self._with_error(*one) for one in zip(given, self.inner.evaluate(given), strict=True)]

    def _with_error(self, atoms, result: Evaluation) -> Evaluation:
        pairs = neighbor_pairs(atoms, CUTOFF_ANGSTROM)
        i, j, vectors = pairs.target.numpy(), pairs.source.numpy(), pairs.vectors.numpy()
        d = np.linalg.norm(vectors, axis=1)
        units = vectors / d[:, None]
        cosines = units @ self.axes.T
        window, slope = (1 - (d / CUTOFF_ANGSTROM) ** 2) ** 3, -6 * d * (1 - (d / CUTOFF_ANGSTROM) ** 2) ** 2
        harmonic = (cosines**4).sum(axis=1) - 0.6
        along = (cosines**4).sum(axis=1)  # of the gradient of the fourth powers, along u and in units of 4 / d
        across = (4 / d)[:, None] * ((cosines**3) @ self.axes - along[:, None] * units)
        gradients = slope[:, None] / CUTOFF_ANGSTROM**2 * harmonic[:, None] * units + window[:, None] * across
        gradients *= self.amplitude_ev
        forces, energies = np.zeros((len(atoms), 3)), np.zeros(len(atoms))
        np.add.at(forces, i, gradients)
        np.add.at(forces, j, -gradients)
        np.add.at(energies, i, self.amplitude_ev * window * harmonic)
        stress = vectors.T @ gradients / atoms.get_volume() if atoms.pbc.all() else 0.0
        return Evaluation(
            result.energy + float(energies.sum()),
            result.forces + forces,
            result.stress + stress,
            None if result.energies is None else result.energies + energies,
        )

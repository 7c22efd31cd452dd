"""Direct forces as a force field: those of heads that need no derivative of the energy, without their net force."""

from dataclasses import replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from esen_flows.data.batch_state import BatchState
from esen_flows.data.ragged import Rows, to_device, to_host
from esen_flows.forcefield.contract import BatchEvaluation, Evaluation, ForceField
from esen_flows.schemas.declarations import ForceKind
from esen_flows.schemas.keys import sha256_of
from esen_flows.structures.inputs import AnyStructures, as_structures

_SINGULAR = 1e-10  # moments of inertia below this share of the largest are those of a linear molecule about its axis


def with_forces(force_field: ForceField, forces: ForceKind) -> ForceField:
    """Force field with the kind of forces that a protocol names.

    Parameters
    ----------
    force_field
        Force field as loaded.
    forces
        "conservative": as the force field gives them, which declares whether they are the gradient of its energy;
        "direct": those of its direct heads.

    Returns
    -------
    ForceField
        The same object, or `DirectForces` of it.

    Raises
    ------
    ModelError
        The force field has no direct forces.
    ValueError
        `forces` is neither "conservative" nor "direct".
    """
    if forces not in ("conservative", "direct"):
        raise ValueError(f"forces must be 'conservative' or 'direct', got {forces!r}")
    return force_field if forces == "conservative" else DirectForces(force_field)


class DirectForces(ForceField):
    """Direct forces and stress of a force field, without the net force and, for molecules, the net torque.

    Heads do not know that the forces on all atoms add up to zero, and what is left would accelerate the centre of mass.
    Every atom loses the same force; a structure without a periodic direction also loses the forces of a rotation about
    its centre. Of all changes that leave neither, this is the smallest.

    Parameters
    ----------
    force_field
        Force field that offers direct forces; it counts these evaluations too.

    Raises
    ------
    ModelError
        The force field has no direct forces.
    """

    def __init__(self, force_field: ForceField) -> None:
        self._origin, self._inner = force_field, force_field.direct()
        self.device = self._inner.device
        self.key = sha256_of({"wrapper": "direct_forces", "revision": 1, "inner": force_field.key})
        self.label = f"{force_field.label}, direct forces"
        self.declaration = replace(self._inner.declaration, conservative=False, differentiable=False, direct=False)

    def atoms_at_once(self, atoms: Atoms) -> int:
        """Number of atoms in structures like this one that are worth handing over together.

        Parameters
        ----------
        atoms
            One of the structures.

        Returns
        -------
        int
            The inner force field's number.
        """
        return self._inner.atoms_at_once(atoms)

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        """Energies, direct forces and stresses of structures, in their order.

        Parameters
        ----------
        structures
            Structures that the force field can evaluate.

        Returns
        -------
        list[Evaluation]
            One result per structure.
        """
        chosen = as_structures(structures)
        results = self._inner.evaluate(chosen)
        self._count(len(chosen))
        return _all_balanced(results, chosen)

    def evaluate_beside_gradient(self, structures: AnyStructures) -> list[tuple[Evaluation, Evaluation]]:
        """Evaluations of the force field itself and with its direct forces, in one pass where it has one.

        Parameters
        ----------
        structures
            Structures that the force field can evaluate.

        Returns
        -------
        list[tuple[Evaluation, Evaluation]]
            For each structure the result with the gradient of the energy, and that of `evaluate`.
        """
        chosen = as_structures(structures)
        pairs = self._origin.evaluate_both(chosen)
        self.force_evaluations += len(chosen)
        balanced = _all_balanced([direct for _, direct in pairs], chosen)
        return [(conservative, direct) for (conservative, _), direct in zip(pairs, balanced, strict=True)]

    def evaluate_batch(self, state: BatchState) -> BatchEvaluation:
        """Energies, direct forces and stresses of structures that stay on a device from step to step.

        Parameters
        ----------
        state
            Structures that the force field can evaluate.

        Returns
        -------
        BatchEvaluation
            Results of all structures.
        """
        result = self._inner.evaluate_batch(state)
        self._count(state.n_systems)
        return replace(result, forces=_balanced(result.forces, state.positions, state.atoms, state.templates))

    def find_neighbors(self, state: BatchState) -> None:
        """Make the neighbour tables of a state, or search them again where that is needed.

        Parameters
        ----------
        state
            Structures at one geometry.
        """
        self._inner.find_neighbors(state)

    def _count(self, structures: int) -> None:
        self.force_evaluations += structures
        if self._inner is not self._origin:
            self._origin.force_evaluations += structures


def _all_balanced(results: list[Evaluation], structures: list[Atoms]) -> list[Evaluation]:
    """The results of structures with balanced forces."""
    if not results:
        return []
    forces = torch.from_numpy(np.concatenate([result.forces for result in results]))
    positions = torch.from_numpy(np.concatenate([atoms.positions for atoms in structures]))
    counts = np.array([len(atoms) for atoms in structures])
    parts = np.split(to_host(_balanced(forces, positions, Rows(counts), structures)), np.cumsum(counts)[:-1])
    return [replace(result, forces=part) for result, part in zip(results, parts, strict=True)]


def _balanced(forces: Tensor, positions: Tensor, atoms: Rows, structures: list[Atoms]) -> Tensor:
    """(atoms, 3) forces without net force, and without net torque in structures without a periodic direction."""
    counts = to_device(atoms.counts.astype(np.float64)[:, None], forces.device)
    forces = forces - atoms.spread(atoms.reduce(forces) / counts)
    is_free = np.array([not one.pbc.any() for one in structures])
    if not is_free.any():
        return forces
    free = to_device(is_free, forces.device)
    arms = positions - atoms.spread(atoms.reduce(positions) / counts)
    torque = atoms.reduce(torch.linalg.cross(arms, forces))
    outer = atoms.reduce((arms.unsqueeze(2) * arms.unsqueeze(1)).flatten(1)).view(-1, 3, 3)
    trace = outer.diagonal(dim1=1, dim2=2).sum(dim=1)
    inertia = torch.diag_embed(trace.unsqueeze(1).expand(-1, 3)) - outer
    turn = (torch.linalg.pinv(inertia, rtol=_SINGULAR, hermitian=True) @ torque.unsqueeze(2)).squeeze(2)
    turn = torch.where(free.unsqueeze(1), turn, 0.0)
    return forces - torch.linalg.cross(atoms.spread(turn), arms)

"""Direct forces as a force field: those of heads that need no derivative of the energy, without their net force."""

from dataclasses import replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from esen_flows.data.batch_state import BatchState
from esen_flows.data.ragged import to_device
from esen_flows.forcefield.contract import BatchEvaluation, Evaluation, ForceField
from esen_flows.forcefield.lists import evaluate_list
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
        return evaluate_list(self, as_structures(structures))

    def evaluate_beside_gradient(self, state: BatchState) -> tuple[BatchEvaluation, BatchEvaluation]:
        """Results of the force field itself and with its direct forces, in one pass where it has one.

        Parameters
        ----------
        state
            Structures that the force field can evaluate.

        Returns
        -------
        tuple[BatchEvaluation, BatchEvaluation]
            The result with the gradient of the energy, and that of `evaluate_batch`.
        """
        conservative, direct = self._origin.evaluate_both(state)
        self.force_evaluations += state.n_systems
        return conservative, replace(direct, forces=_balanced(direct.forces, state))

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
        return replace(result, forces=_balanced(result.forces, state))

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


def _balanced(forces: Tensor, state: BatchState) -> Tensor:
    """(atoms, 3) forces without net force, and without net torque in structures without a periodic direction."""
    atoms, positions = state.atoms, state.positions
    counts = to_device(atoms.counts.astype(np.float64)[:, None], forces.device)
    forces = forces - atoms.spread(atoms.reduce(forces) / counts)
    is_free = np.array([not one.pbc.any() for one in state.templates])
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

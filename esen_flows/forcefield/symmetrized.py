"""A force field averaged over rotations and mirror images, and projected on the space groups of its structures.

An average over orthogonal matrices T of E(T x) has the forces T^T F(T x) and the stress T^T S(T x) T. Where T' is T p
with an operation p of the structure, T' x is T x with its atoms exchanged and is not evaluated: 60 rotations of a cubic
crystal whose axes are those of the icosahedron take 5 evaluations. The average over {1, inversion} of a force field
that is exact under SO(3) is exact under O(3), because every improper operation is the inversion times a proper
rotation; it is needed because phonon codes reduce displacements by all operations of the space group.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from esen_flows.data.batch_state import BatchState
from esen_flows.data.ragged import to_device
from esen_flows.forcefield.contract import (
    ATOMS_AT_ONCE,
    BatchEvaluation,
    Evaluation,
    ForceField,
    require_differentiable,
)
from esen_flows.forcefield.lists import evaluate_list
from esen_flows.forcefield.rotations import IDENTITY, Rotations
from esen_flows.forcefield.symmetry_images import (
    ImagePlan,
    Operations,
    Projector,
    Reference,
    SymmetryFinder,
    chunk_of,
    planned,
    turned,
)
from esen_flows.schemas.declarations import Equivariance, Parity
from esen_flows.schemas.keys import sha256_of
from esen_flows.structures.inputs import AnyStructures, as_structures


@dataclass(frozen=True)
class _Results:
    """Results at the images of one structure, with one row for each image."""

    energy: Tensor
    forces: Tensor
    stress: Tensor
    energies: Tensor | None = None


class Symmetrized(ForceField):
    """Force field whose results are averages over rotations, projected where that is asked for.

    The average of conservative forces is conservative, and so are forces projected on a group as long as the structure
    keeps it. Structures of a `BatchState` have the axes and the space group of their templates, those of a list their
    own, unless `about` or `along` has fixed them.

    Parameters
    ----------
    inner
        Force field whose results are averaged.
    rotations
        Rotations of the average, in the axes that `finder` gives; by default {1, inversion}.
    finder
        Finds axes, operations and space groups. None: rotations refer to Cartesian axes, all are evaluated, and nothing
        is projected.
    """

    def __init__(
        self,
        inner: ForceField,
        rotations: Rotations = IDENTITY.with_inversion(),  # noqa: B008  it is frozen
        finder: SymmetryFinder | None = None,
    ) -> None:
        self.inner, self.device, self.rotations, self.finder = inner, inner.device, rotations, finder
        improper = bool((np.linalg.det(rotations.matrices) < 0).any())
        if finder is None:
            self.key = sha256_of({"wrapper": "inversion_averaged", "revision": 1, "inner": inner.key})
            self.label = f"{inner.label}, inversion-averaged"
        else:
            identity = {"wrapper": "symmetrized", "revision": 1, "symmetry": finder.name, "improper": improper}
            self.key = sha256_of({**identity, "inner": inner.key})
            self.label = f"{inner.label}, {finder.name}"
        own = inner.declaration.equivariance
        equivariance: Equivariance = "O3" if own == "SO3" and improper else own
        exact = inner.declaration.differentiable and not (finder is not None and finder.projects)
        self.declaration = replace(inner.declaration, equivariance=equivariance, differentiable=exact)
        self._axes: np.ndarray | None = None
        self._reference: Reference | None = None
        self._references: dict[int, tuple[Atoms, Reference]] = {}  # of the templates of the last state

    def about(self, structure: Atoms) -> "Symmetrized":
        """The same for one structure in motion, whose axes and space group stay those at the start.

        Parameters
        ----------
        structure
            The structure at the start.

        Returns
        -------
        Symmetrized
            A force field for structures with the same atoms.
        """
        fixed = self._around(self.inner)
        fixed._reference = self._reference_of(structure)
        return fixed

    def along(self, crystal: Atoms) -> "Symmetrized":
        """The same with the axes of one crystal for all structures, as for its displaced supercells.

        Parameters
        ----------
        crystal
            Crystal whose axes are taken; structures still have their own space groups.

        Returns
        -------
        Symmetrized
            The force field with these axes.
        """
        fixed = self._around(self.inner)
        fixed._axes = None if self.finder is None else self.finder.axes(crystal)
        return fixed

    def direct(self) -> "Symmetrized":
        """The average of the inner force field's direct forces and stress.

        Returns
        -------
        Symmetrized
            A force field of its own around the same network.

        Raises
        ------
        ModelError
            The inner force field has no direct heads.
        """
        return self._around(self.inner.direct())

    def _around(self, inner: ForceField) -> "Symmetrized":
        """The same average of a force field, with an own count of evaluations."""
        other = Symmetrized(inner, self.rotations, self.finder)
        other._axes, other._reference = self._axes, self._reference
        return other

    def atoms_at_once(self, atoms: Atoms) -> int:
        """Number of atoms in structures like this one that are worth handing over together.

        Parameters
        ----------
        atoms
            One of the structures.

        Returns
        -------
        int
            The inner force field's number divided by that of the rotations, or the usual number.
        """
        return max(ATOMS_AT_ONCE, self.inner.atoms_at_once(atoms) // len(self.rotations.weights))

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        """Averaged energies, forces and stresses of structures, in their order; each counts once for every image.

        Parameters
        ----------
        structures
            Structures that the inner force field can evaluate.

        Returns
        -------
        list[Evaluation]
            One result per structure, with its spread where a `finder` is there.

        Raises
        ------
        StructureError
            The space group on which forces are projected is not found.
        EvaluationError
            A result is NaN or infinite.
        """
        return evaluate_list(self, as_structures(structures))

    def evaluate_batch(self, state: BatchState) -> BatchEvaluation:
        """Averaged energies, forces and stresses of structures that stay on a device from step to step.

        The images of a structure have its neighbour pairs, so that these are searched once.

        Parameters
        ----------
        state
            Structures that the inner force field can evaluate.

        Returns
        -------
        BatchEvaluation
            Results of all structures; each counts once for every image.
        """
        if not state.n_systems:
            return super().evaluate_batch(state)
        references = self._references_of(state)
        now = state.templates if self.finder is None else state.structures()
        plans = [self._plan(atoms, reference) for atoms, reference in zip(now, references, strict=True)]
        means = [self._mean(*one) for one in zip(plans, self._of_images(state, plans), strict=True)]
        energies = [mean.energies for mean in means]
        return BatchEvaluation(
            energy=torch.stack([mean.energy for mean in means]),
            forces=torch.cat([mean.forces for mean in means]),
            stress=torch.stack([mean.stress for mean in means]),
            energies=None if any(one is None for one in energies) else torch.cat(energies),  # type: ignore[arg-type]
            spread=None if self.finder is None else torch.stack([mean.spread for mean in means]),  # type: ignore[misc]
        )

    def find_neighbors(self, state: BatchState) -> None:
        """Make the neighbour tables of a state, which all images share, or search them again where that is needed.

        Parameters
        ----------
        state
            Structures at one geometry.
        """
        self.inner.find_neighbors(state)

    def hessian_vector_products(self, atoms: Atoms, vectors: np.ndarray) -> np.ndarray:
        """Averaged second derivatives of the energy along directions.

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

        Raises
        ------
        NotDifferentiableError
            The inner force field has no exact second derivatives, or forces are projected.
        """
        require_differentiable(self, "a Hessian")
        total = np.zeros(np.shape(vectors))
        turns = (self._reference or self._reference_of(atoms)).turns
        for turn, weight in zip(turns, self.rotations.weights, strict=True):
            # Second derivatives of E(T x) are T^T H(T x) T.
            total += weight * (self.inner.hessian_vector_products(turned(atoms, turn), vectors @ turn.T) @ turn)
        self.force_evaluations += len(turns) * len(vectors)
        return total

    def _reference_of(self, atoms: Atoms) -> Reference:
        if self.finder is None:
            return Reference(self.rotations.matrices, Operations.identity(len(atoms)), None)
        several = len(self.rotations.weights) > 1
        axes = self._axes if self._axes is not None or not several else self.finder.axes(atoms)
        turns = self.rotations.matrices if axes is None else self.rotations.matrices @ axes
        operations = self.finder.operations(atoms) if several else Operations.identity(len(atoms))
        return Reference(turns, operations, self.finder.projector(atoms))

    def _references_of(self, state: BatchState) -> list[Reference]:
        """References of the templates, which are found once for states that go from step to step."""
        if state.once or self._reference is not None:
            return [self._reference or self._reference_of(one) for one in state.templates]
        known = self._references
        self._references = {id(one): known.get(id(one)) or (one, self._reference_of(one)) for one in state.templates}
        return [self._references[id(one)][1] for one in state.templates]

    def _plan(self, atoms: Atoms, reference: Reference) -> ImagePlan:
        """The images that have to be evaluated at this geometry."""
        operations = reference.operations
        holds = operations.holding(atoms.positions, atoms.cell.array)
        key = holds.tobytes()
        if key not in reference.plans:
            chosen = Operations(operations.rotations[holds], operations.permutations[holds])
            reference.plans[key] = planned(reference, self.rotations.weights, chosen)
        return reference.plans[key]

    def _of_images(self, state: BatchState, plans: Sequence[ImagePlan]) -> list[_Results]:
        """Results at the images of each structure, with its neighbour pairs, as many at once as atoms of the state."""
        self.inner.find_neighbors(state)
        places = np.repeat(np.arange(len(plans)), [len(plan.images) for plan in plans])
        turns = np.concatenate([plan.turns[plan.images] for plan in plans])
        atoms = state.atoms.counts[places]
        chunks = np.split(np.arange(len(places)), np.flatnonzero(np.diff(chunk_of(atoms, state.atoms.total))) + 1)
        found = [
            self.inner.evaluate_batch(state.select(places[chunk]).turned(to_device(turns[chunk], state.device)))
            for chunk in chunks
        ]
        self.force_evaluations += len(places)
        energy, forces, stress = (torch.cat([getattr(one, name) for one in found]) for name in _OF_BATCH)
        per_atom = [one.energies for one in found if one.energies is not None]
        energies = torch.cat(per_atom) if len(per_atom) == len(found) else None
        results, image, row = [], 0, 0
        for plan, count in zip(plans, state.atoms.counts.tolist(), strict=True):
            images, rows = slice(image, image + len(plan.images)), slice(row, row + len(plan.images) * count)
            of_atoms = None if energies is None else energies[rows].view(-1, count)
            results.append(_Results(energy[images], forces[rows].view(-1, count, 3), stress[images], of_atoms))
            image, row = images.stop, rows.stop
        return results

    def _mean(self, plan: ImagePlan, results: _Results) -> BatchEvaluation:
        """The weighted mean over all rotations, projected; the energy is a scalar and the spread has three numbers."""
        device = results.forces.device
        image, turns, weights = (to_device(array, device) for array in (plan.image_of, plan.turns, plan.weights))
        permutations = to_device(plan.permutations, device)
        energy = results.energy[image]
        forces = torch.bmm(results.forces[image.unsqueeze(1), permutations], turns)  # rows times T: T^T F
        stress = torch.bmm(torch.bmm(turns.transpose(1, 2), results.stress[image]), turns)
        mean_forces, mean_stress = _weighted(weights, forces), _weighted(weights, stress)
        mean = BatchEvaluation(_weighted(weights, energy), mean_forces, mean_stress)
        if self.finder is not None:
            count = forces.shape[1]
            deviations = ((energy - mean.energy) / count, forces - mean_forces, stress - mean_stress)
            variances = [(weights * (one**2).flatten(1).mean(1)).sum() for one in map(_as_rows, deviations)]
            mean = replace(mean, spread=torch.stack(variances).sqrt())
        if results.energies is not None:
            mean = replace(mean, energies=_weighted(weights, results.energies[image.unsqueeze(1), permutations]))
        return mean if plan.projector is None else _projected(mean, plan.projector)


_OF_BATCH = ("energy", "forces", "stress")


def _as_rows(values: Tensor) -> Tensor:
    return values.unsqueeze(1) if values.ndim == 1 else values


def _weighted(weights: Tensor, values: Tensor) -> Tensor:
    """Weighted sum over the first dimension."""
    return (weights.view(-1, *[1] * (values.ndim - 1)) * values).sum(dim=0)


def _projected(mean: BatchEvaluation, projector: Projector) -> BatchEvaluation:
    device = mean.forces.device
    targets, sources, matrices, of_stress = (
        to_device(array, device)
        for array in (projector.targets, projector.sources, projector.matrices, projector.stress)
    )
    acting = torch.bmm(matrices, mean.forces.index_select(0, sources).unsqueeze(2)).squeeze(2)
    forces = torch.zeros_like(mean.forces).index_add_(0, targets, acting)
    return replace(mean, forces=forces, stress=(of_stress @ mean.stress.reshape(9)).view(3, 3))


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
        The same object, or `Symmetrized` around it.

    Raises
    ------
    ValueError
        `parity` is neither "average" nor "as_is".
    """
    return Symmetrized(force_field) if needs_inversion(force_field, parity) else force_field


def needs_inversion(force_field: ForceField, parity: Parity) -> bool:
    """Whether a protocol's parity asks for an average over the inversion.

    Parameters
    ----------
    force_field
        Force field as loaded.
    parity
        Field of the protocol.

    Returns
    -------
    bool
        False for force fields that are O3 already.

    Raises
    ------
    ValueError
        `parity` is neither "average" nor "as_is".
    """
    if parity not in ("average", "as_is"):
        raise ValueError(f"parity must be 'average' or 'as_is', got {parity!r}")
    return parity == "average" and force_field.declaration.equivariance != "O3"

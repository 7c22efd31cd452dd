"""The contract of force fields: structures in, energies, forces and stresses out, and declared properties.

`testing.check_force_field` checks the declared properties of a force field.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from esen_flows.data.batch_state import BatchState
from esen_flows.data.ragged import to_device
from esen_flows.errors import ModelError, NotDifferentiableError
from esen_flows.forcefield.calibration import Calibration
from esen_flows.schemas import declarations
from esen_flows.schemas.declarations import Dtype, Equivariance, ForceKind
from esen_flows.structures.inputs import AnyStructures

# Rows of a Hessian in one call. The part of a call that all its products share costs a few per cent of this many rows
# (three products a row).
ROWS_PER_CALL = 32
# Atoms that are worth handing over together where a force field says nothing else: 0.1 to 0.5 GB for a small network.
ATOMS_AT_ONCE = 2048


@dataclass(frozen=True)
class Evaluation:
    """Result of a force field for one structure, as numpy float64.

    Attributes
    ----------
    energy
        Total energy in eV.
    forces
        (n, 3) in eV/Angstrom.
    stress
        (3, 3) in eV/Angstrom^3, with ASE's sign (dE/dstrain / volume); NaN where the structure is not
        periodic along three lattice vectors.
    energies
        (n,) energies of the atoms in eV, or None.
    spread
        (3,) of results that are means over rotations: root mean square over the rotations, and over all components, of
        the deviations of energy per atom (eV), forces (eV/Angstrom) and stress (eV/Angstrom^3); None for others.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray
    energies: np.ndarray | None = None
    spread: np.ndarray | None = None


@dataclass(frozen=True)
class BatchEvaluation:
    """Result of a force field for a batch, as float64 tensors on the device of its state.

    Nothing is checked here, because the host would have to wait for the device: a result may be NaN or infinite.

    Attributes
    ----------
    energy
        (systems,) total energies in eV.
    forces
        (atoms, 3) in eV/Angstrom.
    stress
        (systems, 3, 3) in eV/Angstrom^3, with ASE's sign (dE/dstrain / volume); NaN where a structure is not periodic
        along three lattice vectors.
    energies
        (atoms,) energies of the atoms in eV; None where the state does not ask for them, or there are none.
    spread
        (systems, 3) as that of `Evaluation`, or None.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor
    energies: Tensor | None = None
    spread: Tensor | None = None


@dataclass(frozen=True)
class Declaration:
    """Properties that a force field declares and `testing.check_force_field` checks.

    Attributes
    ----------
    conservative
        Whether forces are -dE/dx and the stress is the strain derivative of the energy.
    equivariance
        "O3": exact under rotations and mirror images; "SO3": under rotations only; "approximate": under neither.
    differentiable
        Whether `hessian_vector_products` gives exact second derivatives of the energy.
    elements
        Atomic numbers seen in training; None: any.
    dtype
        Precision of the arithmetic.
    outputs
        Names of the results that are given.
    cutoff_angstrom
        Cutoff of one interaction layer; None where there is no such length.
    smooth
        Whether the energy has no jumps by construction. A limit of neighbours, messages without an envelope and s2
        activations on edges make jumps.
    direct
        Whether direct heads give forces and stress besides those that are derivatives of the energy
        (`ForceField.direct`).
    """

    conservative: bool
    equivariance: Equivariance
    differentiable: bool
    elements: frozenset[int] | None
    dtype: Dtype
    outputs: tuple[str, ...] = ("energy", "forces", "stress")
    cutoff_angstrom: float | None = None
    smooth: bool = True
    direct: bool = False

    @property
    def force_kinds(self) -> tuple[ForceKind, ...]:
        """Kinds of forces and stress that the force field offers; `evaluate` gives the first one."""
        if not self.conservative:
            return ("direct",)
        return ("conservative", "direct") if self.direct else ("conservative",)


class ForceField(ABC):
    """A force field: `evaluate`, with a declaration, a key and a label.

    Attributes
    ----------
    key
        Model key: sha256 of the numbers that define the force field (tensors, architecture, normaliser, references),
        or of package, version and arguments of a third-party one.
    label
        Name for people; never used to find anything.
    declaration
        Declared properties.
    force_evaluations
        Number of structures that this object evaluated, for provenance and tests. One product with the Hessian counts
        as one structure.
    device
        torch device on which `evaluate_batch` computes; a state belongs there.
    calibration
        What tells atoms that are like those of the training data from others (`forcefield.extrapolation`), or None.
    """

    key: str
    label: str
    declaration: Declaration
    force_evaluations: int = 0
    device: torch.device = torch.device("cpu")
    calibration: Calibration | None = None

    @abstractmethod
    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        """Energies, forces and stresses of structures, in their order.

        Parameters
        ----------
        structures
            ASE Atoms, a pymatgen Structure or Molecule, the path of a structure file, or any number of these
            (`esen_flows.structures.inputs.as_structures` makes a list of ASE Atoms of them).

        Returns
        -------
        list[Evaluation]
            One result per structure, also for one structure.

        Raises
        ------
        StructureError, UnknownElementError
            A structure cannot be evaluated; nothing was computed, and the message names the structure.
        EvaluationError
            A result is NaN or infinite.

        Examples
        --------
        >>> from ase.build import bulk
        >>> from esen_flows import load_force_field
        >>> (result,) = load_force_field("emt").evaluate(bulk("Cu", cubic=True))
        >>> result.forces.shape, result.stress.shape
        ((4, 3), (3, 3))
        >>> print(f"{result.energy / 4:.4f} eV per atom")
        -0.0057 eV per atom
        """

    def evaluate_forces(self, structures: AnyStructures) -> list[Evaluation]:
        """Evaluations for callers that do not need the stress, which may then be NaN.

        Here those of `evaluate`; force fields that save time without the stress override this.

        Parameters
        ----------
        structures
            Structures that the force field can evaluate.

        Returns
        -------
        list[Evaluation]
            One result per structure, with the same energy and forces as that of `evaluate`.
        """
        return self.evaluate(structures)

    def evaluate_batch(self, state: BatchState) -> BatchEvaluation:
        """Energies, forces and stresses of structures that stay on a device from step to step.

        This is what relaxations, molecular dynamics and other loops call. The neighbour tables that a force field needs
        are made in `state.tables` and go along with `state.moved`, `select` and `joined`; they are searched again only
        when atoms have moved far enough. The host waits for the device at most once, to learn the number of edges, and
        not at all where `state.read` was called for this geometry, which brings this number along with the caller's
        own. Structures that are searched again take further waits.

        Here the structures are handed to `evaluate` as a list. Force fields that compute on tensors override this, and
        their `evaluate` is `lists.evaluate_list`.

        Parameters
        ----------
        state
            Structures at one geometry, on the device of the force field; positions and cells are not changed.

        Returns
        -------
        BatchEvaluation
            Results of all structures, in tensors of their own.

        Raises
        ------
        StructureError, UnknownElementError
            A structure cannot be evaluated.
        InsufficientMemoryError
            A structure does not fit into memory.
        EvaluationError
            A result is NaN or infinite; force fields that compute on tensors return it instead.
        """
        results = self.evaluate(state.structures()) if state.n_systems else []
        arrays: list[np.ndarray | None] = [
            np.array([result.energy for result in results]),
            np.concatenate([np.zeros((0, 3)), *(result.forces for result in results)]),
            np.array([result.stress for result in results]).reshape(-1, 3, 3),
            None,
            None,
        ]
        energies, spreads = [result.energies for result in results], [result.spread for result in results]
        if state.atom_energies and results and not any(one is None for one in energies):
            arrays[3] = np.concatenate(energies)  # type: ignore[arg-type]
        if results and not any(one is None for one in spreads):
            arrays[4] = np.array(spreads)
        return BatchEvaluation(*(None if one is None else to_device(one, state.device) for one in arrays))  # type: ignore[arg-type]

    def direct(self) -> "ForceField":
        """The force field whose forces and stress are those of direct heads, which need no derivative of the energy.

        Returns
        -------
        ForceField
            A force field with the same energies that declares no conservative forces. Force fields with both kinds
            override this method.

        Raises
        ------
        ModelError
            There are no direct heads.
        """
        if "direct" not in self.declaration.force_kinds:
            raise ModelError(
                f"{self.label!r} has no heads that predict forces directly, only the gradient of its energy; use "
                "forces=conservative, or a force field with both"
            )
        return self

    def evaluate_both(self, state: BatchState) -> tuple[BatchEvaluation, BatchEvaluation]:
        """Results with the gradient of the energy, and with the forces of direct heads.

        Here in two calls; force fields that can do so in one override this.

        Parameters
        ----------
        state
            Structures that the force field can evaluate.

        Returns
        -------
        tuple[BatchEvaluation, BatchEvaluation]
            The result of `evaluate_batch`, and that of `direct().evaluate_batch`.

        Raises
        ------
        ModelError
            There are no direct heads.
        """
        direct = self.direct()
        found = self.evaluate_batch(state), direct.evaluate_batch(state)
        self.force_evaluations += 0 if direct is self else state.n_systems
        return found

    def find_neighbors(self, state: BatchState) -> None:  # noqa: B027  nothing to do is right for most
        """Make the neighbour tables of a state, or search them again where that is needed, before copies are made.

        Force fields without such tables do nothing.

        Parameters
        ----------
        state
            Structures at one geometry; its `tables` are replaced.

        Raises
        ------
        StructureError
            Two atoms of a structure coincide, or a coordinate is NaN.
        InsufficientMemoryError
            The tables do not fit into memory.
        """

    def atoms_at_once(self, atoms: Atoms) -> int:
        """Number of atoms in structures like this one that are worth handing over together.

        `evaluate` takes any number; this is for callers that keep results in between.

        Parameters
        ----------
        atoms
            One of the structures.

        Returns
        -------
        int
            Number of atoms.
        """
        return ATOMS_AT_ONCE

    def hessian_vector_products(self, atoms: Atoms, vectors: np.ndarray) -> np.ndarray:
        """Second derivatives of the energy along directions: sum over j, b of d2E / dx_ia dx_jb * vectors[k, j, b].

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
            The force field declares no exact second derivatives.
        StructureError, UnknownElementError
            The structure cannot be evaluated.
        EvaluationError
            A result is NaN or infinite.
        """
        raise NotDifferentiableError(
            f"{self.label!r} has no exact second derivatives; differentiate its forces by finite displacements "
            "(force_constants=finite_displacement)"
        )

    def hessian(self, atoms: Atoms, rows: Sequence[int] | None = None) -> np.ndarray:
        """Second derivatives d2E / dx_ia dx_jb of the energy, by atoms.

        With `rows` the first index runs over these atoms only. With phonopy's `primitive.p2s_map` and its supercell
        the result is compact force constants in phonopy's layout.

        Parameters
        ----------
        atoms
            One structure.
        rows
            Indices of atoms; default: all.

        Returns
        -------
        np.ndarray
            (len(rows), n, 3, 3) in eV/Angstrom^2, neither symmetrised nor otherwise repaired. All rows, transposed to
            (n, 3, n, 3), are the 3n x 3n matrix.

        Raises
        ------
        NotDifferentiableError
            The force field declares no exact second derivatives.
        StructureError, UnknownElementError
            The structure cannot be evaluated.
        EvaluationError
            A result is NaN or infinite.
        """
        chosen, n = list(range(len(atoms)) if rows is None else rows), len(atoms)
        result = np.zeros((len(chosen), n, 3, 3))
        for first in range(0, len(chosen), ROWS_PER_CALL):
            some = chosen[first : first + ROWS_PER_CALL]
            unit = np.zeros((len(some), 3, n, 3))
            for row, atom in enumerate(some):
                unit[row, :, atom] = np.eye(3)
            products = self.hessian_vector_products(atoms, unit.reshape(-1, n, 3)).reshape(unit.shape)
            result[first : first + len(some)] = products.transpose(0, 2, 1, 3)
        return result


def require_conservative(force_field: ForceField, purpose: str) -> None:
    """Refuse a force field whose forces are not declared to be the gradient of its energy.

    Parameters
    ----------
    force_field
        Force field to check.
    purpose
        Property or step that needs such forces, for the message.

    Raises
    ------
    NotConservativeError
        The force field does not declare conservative forces.
    """
    declarations.require_conservative(force_field.declaration.conservative, force_field.label, purpose)


def require_differentiable(force_field: ForceField, purpose: str) -> None:
    """Refuse a force field without exact second derivatives of the energy.

    Parameters
    ----------
    force_field
        Force field to check.
    purpose
        Property or step that needs them, for the message.

    Raises
    ------
    NotDifferentiableError
        The force field does not declare exact second derivatives.
    """
    declarations.require_differentiable(force_field.declaration.differentiable, force_field.label, purpose)

"""The one contract: structures in, energies, forces and stresses out, and what a force field declares of itself.

Only numpy and ASE are needed here. `testing.check_force_field` tests what is declared.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms

from esen_flows.errors import NotConservativeError, NotDifferentiableError

Equivariance = Literal["O3", "SO3", "approximate"]
# Of a Hessian: what is common to all products of one call is a few per cent of so many (three a row).
ROWS_PER_CALL = 32


@dataclass(frozen=True)
class Evaluation:
    """What a force field says of one structure, as numpy float64.

    Attributes
    ----------
    energy
        total energy in eV.
    forces
        (n, 3) in eV/Angstrom.
    stress
        (3, 3) in eV/Angstrom^3, ASE's sign (dE/dstrain / volume); NaN where the cell has no volume.
    energies
        (n,) per-atom energies in eV, or None.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray
    energies: np.ndarray | None = None


@dataclass(frozen=True)
class Declaration:
    """What a force field claims, and the test suite checks."""

    conservative: bool  # forces = -dE/dx and stress = strain derivative
    equivariance: Equivariance  # O3: mirror images too; SO3: proper rotations only
    differentiable: bool  # gives `hessian_vector_products`: exact second derivatives of the energy
    elements: frozenset[int] | None  # atomic numbers seen in training; None: all that it accepts
    dtype: Literal["float32", "float64"]
    outputs: tuple[str, ...] = ("energy", "forces", "stress")
    cutoff_angstrom: float | None = None  # of one interaction layer, where that has a meaning
    smooth: bool = True  # no jump of the energy by construction (neighbour limit, no envelope, s2 on edges)


class ForceField(ABC):
    """A force field: `evaluate` plus a declaration, a key and a label.

    Attributes
    ----------
    key
        model key, sha256 of the numbers that make it (tensors, architecture, normaliser, references), or of package,
        version and arguments for a third-party one.
    label
        a name for people; never used to find anything.
    declaration
        what it claims.
    force_evaluations
        structures evaluated so far by this object (a counter for provenance and tests); one product
        with the Hessian counts as one structure.
    """

    key: str
    label: str
    declaration: Declaration
    force_evaluations: int = 0

    @abstractmethod
    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        """Energies (eV), forces (eV/Angstrom) and stresses (eV/Angstrom^3), one Evaluation per structure, in order.

        Raises
        ------
        StructureError, UnknownElementError
            before anything is computed, naming the structure.
        EvaluationError
            a result is NaN or infinite.
        """

    def hessian_vector_products(self, atoms: Atoms, vectors: np.ndarray) -> np.ndarray:
        """Second derivatives of the energy along directions: sum over j, b of d2E / dx_ia dx_jb * vectors[k, j, b].

        Parameters
        ----------
        atoms
            one structure.
        vectors
            (k, n, 3) directions, of any length.

        Returns
        -------
        np.ndarray
            (k, n, 3) in eV/Angstrom^2 times the unit of `vectors`.

        Raises
        ------
        NotDifferentiableError
            the force field has no exact second derivatives (see its declaration).
        StructureError, UnknownElementError, EvaluationError
            as `evaluate`.
        """
        raise NotDifferentiableError(
            f"{self.label!r} has no exact second derivatives; differentiate its forces by finite displacements "
            "(force_constants=finite_displacement)"
        )

    def hessian(self, atoms: Atoms, rows: Sequence[int] | None = None) -> np.ndarray:
        """Second derivatives d2E / dx_ia dx_jb of the energy, by atoms.

        With `rows` the first index runs over these atoms alone. With phonopy's `primitive.p2s_map` and its supercell
        these are compact force constants in phonopy's layout.

        Parameters
        ----------
        rows
            atom indices; default: all.

        Returns
        -------
        np.ndarray
            (len(rows), n, 3, 3) in eV/Angstrom^2, neither symmetrised nor otherwise repaired. All rows, transposed to
            (n, 3, n, 3), are the 3n x 3n matrix.

        Raises
        ------
        NotDifferentiableError, StructureError, UnknownElementError, EvaluationError
            see `hessian_vector_products`.
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
    """Refuse a force field whose forces are not the gradient of its energy.

    Raises
    ------
    NotConservativeError
        naming the force field and the purpose.
    """
    if not force_field.declaration.conservative:
        raise NotConservativeError(
            f"{purpose} needs forces that are the gradient of an energy, but {force_field.label!r} does not declare "
            "conservative forces; use a conservative (fine-tuned) force field"
        )


def require_differentiable(force_field: ForceField, purpose: str) -> None:
    """Refuse a force field without exact second derivatives.

    Raises
    ------
    NotDifferentiableError
        naming the force field and the purpose.
    """
    if not force_field.declaration.differentiable:
        raise NotDifferentiableError(
            f"{purpose} needs exact second derivatives of the energy, which {force_field.label!r} does not have; use "
            "force_constants=finite_displacement"
        )

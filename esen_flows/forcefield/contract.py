"""The one contract: structures in, energies, forces and stresses out, and what a force field declares of itself.

Only numpy and ASE are needed here. `testing.check_force_field` tests what is declared.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms

from esen_flows.errors import NotConservativeError

Equivariance = Literal["O3", "SO3", "approximate"]


@dataclass(frozen=True)
class Evaluation:
    """What a force field says of one structure, as numpy float64.

    Attributes
    ----------
    energy : total energy in eV.
    forces : (n, 3) in eV/Angstrom.
    stress : (3, 3) in eV/Angstrom^3, ASE's sign (dE/dstrain / volume); NaN where the cell has no volume.
    energies : (n,) per-atom energies in eV, or None.
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
    differentiable: bool  # second derivatives by autograd
    elements: frozenset[int] | None  # atomic numbers seen in training; None: all that it accepts
    dtype: Literal["float32", "float64"]
    outputs: tuple[str, ...] = ("energy", "forces", "stress")
    cutoff_angstrom: float | None = None  # of one interaction layer, where that has a meaning
    smooth: bool = True  # no jump of the energy by construction (neighbour limit, no envelope, s2 on edges)


class ForceField(ABC):
    """A force field: `evaluate` plus a declaration, a key and a label.

    Attributes
    ----------
    key : model key, sha256 of the numbers that make it (tensors, architecture, normaliser, references), or of package,
        version and arguments for a third-party one.
    label : a name for people; never used to find anything.
    declaration : what it claims.
    force_evaluations : structures evaluated so far by this object (a counter for provenance and tests).
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
        StructureError, UnknownElementError : before anything is computed, naming the structure.
        EvaluationError : a result is NaN or infinite.
        """


def require_conservative(force_field: ForceField, purpose: str) -> None:
    """Refuse a force field whose forces are not the gradient of its energy.

    Raises
    ------
    NotConservativeError : naming the force field and the purpose.
    """
    if not force_field.declaration.conservative:
        raise NotConservativeError(
            f"{purpose} needs forces that are the gradient of an energy, but {force_field.label!r} does not declare "
            "conservative forces; use a conservative (fine-tuned) force field"
        )

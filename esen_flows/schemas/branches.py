"""Branches of an exploration: relaxations that start from a structure displaced along one of its imaginary modes."""

from typing import ClassVar, Literal

from pydantic import NonNegativeInt

from esen_flows.schemas.exploration import AMPLITUDES_ANGSTROM, Amplitudes
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.protocols import RelaxProtocol

# The roles of the parents of a branch: the structure that is displaced, and the forces that gave its modes.
STRUCTURE, FORCES = "structure", "forces"


class BranchProtocol(Frozen):
    """Displacement along an imaginary mode, and a relaxation that keeps the remaining symmetry.

    Attributes
    ----------
    mode
        Number of the space of degenerate modes, counted from 0, the lowest frequency first.
    direction
        Number of the direction in this space, counted from 0, those that keep most symmetry first.
    side
        "lower": the sign of the displacement for which the energy falls more. "higher": the other sign, where symmetry
        does not make both equal.
    relax
        Relaxation with symmetry="lock".
    amplitudes_angstrom
        Those of the exploration, whose other fields change no branch and so are not part of its key.
    """

    added_later: ClassVar[frozenset[str]] = frozenset({"amplitudes_angstrom"})

    mode: NonNegativeInt = 0
    direction: NonNegativeInt = 0
    side: Literal["lower", "higher"] = "lower"
    relax: RelaxProtocol = RelaxProtocol(symmetry="lock")
    amplitudes_angstrom: Amplitudes = AMPLITUDES_ANGSTROM

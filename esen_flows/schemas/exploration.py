"""How a relaxation with `symmetry="explore"` looks for structures of lower symmetry and energy, and what it finds."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat

from esen_flows.schemas.document_base import Document
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.protocol_types import one_or_more


def _ascending(value: tuple[float, ...]) -> tuple[float, ...]:
    if not value or list(value) != sorted(set(value)) or value[-1] > 2.0:
        raise ValueError(f"ascending lengths of at most 2 Angstrom, got {value}")
    return value


Amplitudes = Annotated[tuple[PositiveFloat, ...], BeforeValidator(one_or_more), AfterValidator(_ascending)]
AMPLITUDES_ANGSTROM = (0.05, 0.1, 0.2, 0.4)


class ExplorationProtocol(Frozen):
    """The search for the way out of imaginary modes.

    Attributes
    ----------
    max_depth
        Largest number of times that the lowest structure is displaced along one of its imaginary modes.
    max_directions
        Largest number of directions in a space of degenerate modes that are followed, those that keep most symmetry
        first.
    min_length_angstrom
        The supercell of the conventional cell in which modes are looked for has the smallest even number of cells along
        each vector that gives at least this length in Angstrom, and one cell along a vector that has it alone. An even
        number, because most distortions of crystals double a cell.
    displacement_angstrom
        Length of the displacements for force constants in Angstrom; the default is phonopy's.
    imaginary_tolerance_thz
        Frequency in THz. A mode whose frequency is imaginary by less counts as stable, because forces have noise.
    amplitudes_angstrom
        Displacements of the atom that moves most, in Angstrom, at which the energy along a mode is evaluated. The
        relaxation starts from the one of lowest energy.
    """

    max_depth: int = Field(default=4, ge=1, le=20)
    max_directions: int = Field(default=4, ge=1, le=100)
    min_length_angstrom: float = Field(default=8.0, gt=0.0, le=100.0)
    displacement_angstrom: float = Field(default=0.01, ge=0.00001, le=0.5)
    imaginary_tolerance_thz: float = Field(default=0.1, gt=0.0, le=1000.0)
    amplitudes_angstrom: Amplitudes = AMPLITUDES_ANGSTROM


class Branch(Document):
    """A structure that an exploration has found, without its coordinates.

    Attributes
    ----------
    key
        Key of its result, a branch or the locked relaxation; empty where nothing was stored.
    parent
        Number of the structure in the list that was displaced; None for the locked relaxation, the first one.
    depth
        Number of modes that were followed one after the other.
    verdict
        "stable": no mode of the supercell is imaginary; "unstable"; "failed"; empty where modes were not computed,
        because a branch beside it is lower.
    frequency_thz
        Frequency in THz of the mode along which the parent was displaced, negative.
    q_point
        Its wave vector in reduced coordinates of the parent's primitive cell, one arm of its star.
    subgroup
        International number of the space group of the displaced parent.
    snapped
        Whether the relaxation ended at a higher symmetry.
    space_group
        International number of the space group of the relaxed structure.
    space_group_symbol
        Its international symbol.
    atoms
        Number of atoms in its cell.
    energy_per_atom_ev
        Its energy per atom in eV.
    lowest_frequency_thz
        Its lowest frequency in THz, where modes were computed.
    failure
        Why a branch failed.
    """

    key: str
    parent: int | None
    depth: int
    verdict: Literal["", "stable", "unstable", "failed"] = ""
    frequency_thz: float | None = None
    q_point: tuple[float, float, float] | None = None
    subgroup: int | None = None
    snapped: bool = False
    space_group: int | None = None
    space_group_symbol: str | None = None
    atoms: int | None = None
    energy_per_atom_ev: float | None = None
    lowest_frequency_thz: float | None = None
    failure: str | None = None


def lowest_branch(branches: Sequence[Branch]) -> int:
    """Number of the structure in which an exploration ended.

    Parameters
    ----------
    branches
        All structures that it found.

    Returns
    -------
    int
        The last one whose modes were computed, which is the lowest of all.
    """
    return max(number for number, branch in enumerate(branches) if branch.verdict in ("stable", "unstable"))

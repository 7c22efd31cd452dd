"""Curves of homonuclear diatomic molecules: their protocol, step and document. They are a property of a force field."""

from typing import Annotated

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from esen_flows.schemas.document_base import Array, Document
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.property_entry import Step
from esen_flows.schemas.protocol_types import Length, one_or_more

# Matbench Discovery runs Z = 1 to 92 and scores all but these five.
NOT_SCORED = ("Po", "At", "Rn", "Fr", "Ra")
ELEMENTS = tuple(symbol for symbol in chemical_symbols[1:93] if symbol not in NOT_SCORED)


def _known(value: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [symbol for symbol in value if symbol not in atomic_numbers or symbol == "X"]
    if unknown or len(set(value)) < len(value):
        raise ValueError(f"elements: symbols of elements, each once, such as H,C; got {','.join(value)}")
    return value


Symbols = Annotated[tuple[str, ...], BeforeValidator(one_or_more), AfterValidator(_known), Field(min_length=1)]


class DiatomicsProtocol(Frozen):
    """Energies and forces of two equal atoms at increasing separations; the defaults are those of Matbench Discovery.

    Attributes
    ----------
    elements
        Symbols of the elements; None, the default, for the 87 that are scored.
    smallest_angstrom
        Smallest separation in Angstrom.
    largest_angstrom
        Largest separation in Angstrom.
    points
        Number of separations, in geometric progression.
    box_angstrom
        Edge of the periodic cubic box in Angstrom.
    """

    elements: Symbols | None = None
    smallest_angstrom: Length = 0.1
    largest_angstrom: Length = 6.0
    points: int = Field(default=119, ge=5, le=10_000)
    box_angstrom: Length = 50.0

    @model_validator(mode="after")
    def _possible(self) -> "DiatomicsProtocol":
        if not self.smallest_angstrom < self.largest_angstrom < self.box_angstrom / 2:
            raise ValueError(
                "separations run from smallest_angstrom to largest_angstrom, below half of box_angstrom, got "
                f"{self.smallest_angstrom:g}, {self.largest_angstrom:g} and {self.box_angstrom:g}"
            )
        return self

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols of the elements."""
        return ELEMENTS if self.elements is None else self.elements

    @property
    def separations_angstrom(self) -> NDArray[np.float64]:
        """(points,) separations in Angstrom."""
        return np.geomspace(self.smallest_angstrom, self.largest_angstrom, self.points)


def diatomics_steps(protocol: DiatomicsProtocol) -> tuple[Step, ...]:
    """The only step of the curves.

    Parameters
    ----------
    protocol
        Protocol of the curves.

    Returns
    -------
    tuple[Step, ...]
        The curves.
    """
    return (Step("diatomics", protocol),)


class DiatomicsOutput(Document):
    """Curves of the elements that the force field has.

    Attributes
    ----------
    distances_angstrom
        (points,) separations along x in Angstrom.
    elements
        Symbols of the n elements with a curve.
    energies_ev
        (n, points) energies of the pairs in eV; NaN where the force field gives none.
    forces_ev_per_angstrom
        (n, points, 2, 3) forces on both atoms in eV/Angstrom; NaN likewise.
    excluded
        Reasons of the elements without a curve, by symbol.
    """

    distances_angstrom: Array
    elements: list[str]
    energies_ev: Array
    forces_ev_per_angstrom: Array
    excluded: dict[str, str]

    def summary(self) -> dict[str, float | int | str | bool | None]:
        """The number of curves, and the points without an energy.

        Returns
        -------
        dict[str, float | int | str | bool | None]
            Values by name.
        """
        return {
            "curves": len(self.elements),
            "excluded": len(self.excluded),
            "missing_points": int(np.isnan(self.energies_ev).sum()),
        }

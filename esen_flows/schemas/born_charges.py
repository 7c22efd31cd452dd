"""Born charges and dielectric tensor of a polar crystal, as a part of protocols."""

from typing import Any

import numpy as np
from pydantic import FiniteFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from esen_flows.schemas.frozen import Frozen

Vector3 = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
Tensor3 = tuple[Vector3, Vector3, Vector3]
KEY_DECIMALS = 8
SYMMETRY_TOLERANCE = 1e-3


class BornCharges(Frozen):
    """Born charges and dielectric tensor: the non-analytical correction, which splits LO from TO modes at Gamma.

    Tensors are along the Cartesian axes of the cell that comes with them. The cell identifies the crystal: another cell
    of the same crystal is recognised, another crystal or orientation is refused. `physics.lattice.born.read_born` reads
    a BORN file.

    Attributes
    ----------
    numbers
        (n,) atomic numbers of the primitive cell.
    cell_angstrom
        (3, 3) primitive cell in Angstrom; rows are lattice vectors.
    fractions
        (n, 3) positions in units of the lattice vectors.
    charges_e
        (n, 3, 3) Born charges in elementary charges; the first index is that of the electric field, as in phonopy.
    dielectric
        (3, 3) relative high-frequency dielectric tensor.
    factor_ev_angstrom
        e^2 / (4 pi epsilon_0) in eV Angstrom; the default is phonopy's value.
    """

    numbers: tuple[PositiveInt, ...]
    cell_angstrom: Tensor3
    fractions: tuple[Vector3, ...]
    charges_e: tuple[Tensor3, ...]
    dielectric: Tensor3
    factor_ev_angstrom: PositiveFloat = 14.39965172592227

    @field_validator("cell_angstrom", "fractions", "charges_e", "dielectric", mode="before")
    @classmethod
    def _rounded(cls, value: Any) -> Any:
        """Values rounded to 1e-8, so that rounding errors of their source are not part of a key."""
        try:
            return (np.round(np.array(value, dtype=float), KEY_DECIMALS) + 0.0).tolist()  # + 0.0 turns -0.0 into 0.0
        except (TypeError, ValueError):
            return value  # the field has the better message for a wrong shape or type

    @model_validator(mode="after")
    def _of_one_cell(self) -> "BornCharges":
        counts = {name: len(getattr(self, name)) for name in ("numbers", "fractions", "charges_e")}
        if len(set(counts.values())) > 1 or not self.numbers:
            raise ValueError(f"numbers, fractions and charges_e are one entry per atom of the primitive cell: {counts}")
        if np.linalg.det(self.cell_angstrom) <= 0:
            raise ValueError(f"cell_angstrom must be right-handed and not flat, got {self.cell_angstrom}")
        dielectric = np.array(self.dielectric)
        if np.abs(dielectric - dielectric.T).max() > SYMMETRY_TOLERANCE * np.abs(dielectric).max():
            raise ValueError(f"the dielectric tensor must be symmetric, got {self.dielectric}")
        if np.linalg.eigvalsh((dielectric + dielectric.T) / 2).min() <= 0:
            raise ValueError(f"the dielectric tensor must have positive eigenvalues, got {self.dielectric}")
        return self

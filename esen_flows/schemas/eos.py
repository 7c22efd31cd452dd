"""Equations of state: their protocol, steps and document."""

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from esen_flows.schemas.document_base import Array, Document
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.property_entry import Step
from esen_flows.schemas.protocols import RelaxProtocol

Equation = Literal["birch_murnaghan", "vinet"]


class EosProtocol(Frozen):
    """Energy against volume: relaxation, relaxations at a series of volumes, and a fit.

    Attributes
    ----------
    relax
        Relaxation to the volume that the series is centred on. Its `parity` and `force_symmetry` are those of all
        steps.
    at_volume
        Relaxation of positions and cell shape at each volume. By default the space group is kept, because another phase
        at some volumes would end the curve.
    linear_strain
        Smallest and largest change of the lattice vectors, as a fraction. The default, atomate2's, spans about 31 % of
        the volume.
    number_of_frames
        Number of volumes, at equal distances in the linear strain. More than the four parameters of an equation, so
        that the fit has confidence intervals.
    equation
        Equation whose parameters are the answer: "birch_murnaghan" (third order), the default, or "vinet". Both are
        fitted.
    """

    relax: RelaxProtocol = RelaxProtocol(fmax_ev_per_angstrom=1e-4, max_steps=1000, symmetry="fix")
    at_volume: RelaxProtocol = RelaxProtocol(constant_volume=True, symmetry="lock")
    linear_strain: tuple[float, float] = (-0.05, 0.05)
    number_of_frames: int = Field(default=9, ge=6)
    equation: Equation = "birch_murnaghan"

    @model_validator(mode="after")
    def _possible(self) -> "EosProtocol":
        least, most = self.linear_strain
        if not -0.3 <= least < 0.0 < most <= 0.3:
            raise ValueError(f"linear_strain: from a negative to a positive one, within 0.3, got {self.linear_strain}")
        if self.at_volume.relax_cell and not self.at_volume.constant_volume:
            raise ValueError("at_volume: the volume has to stay; set constant_volume=true or relax_cell=false")
        if self.at_volume.deformation is not None:
            raise ValueError("at_volume.deformation follows from linear_strain; leave it out")
        if "direct" in (self.relax.forces, self.at_volume.forces):
            raise ValueError("an equation of state needs forces that are the gradient of the energy; leave forces out")
        return self


def eos_steps(protocol: EosProtocol) -> tuple[Step, ...]:
    """The steps to an equation of state.

    Parameters
    ----------
    protocol
        Protocol of the equation of state.

    Returns
    -------
    tuple[Step, ...]
        Relaxation, one relaxation for each volume, and the fit, whose parents are the latter.
    """
    volumes = []
    for strain in np.linspace(*protocol.linear_strain, protocol.number_of_frames):
        scale = round(1.0 + float(strain), 10)  # in decimal digits that every machine agrees on
        deformation = ((scale, 0.0, 0.0), (0.0, scale, 0.0), (0.0, 0.0, scale))
        same = {"parity": protocol.relax.parity, "force_symmetry": protocol.relax.force_symmetry}
        relaxation = protocol.at_volume.model_copy(update={"deformation": deformation, **same})
        volumes.append(Step("relax", relaxation, (("", 0),)))
    parents = tuple((f"volume_{number:02d}", number) for number in range(1, len(volumes) + 1))
    return Step("relax", protocol.relax), *volumes, Step("eos", EosFitProtocol.of(protocol), parents)


class EosFitProtocol(Frozen):
    """The part of an EosProtocol that the fit needs; it is part of the key of an equation of state.

    Attributes
    ----------
    equation
        Equation whose parameters are the answer.
    """

    equation: Equation = "birch_murnaghan"


class EosFit(Document):
    """An equation of state fitted to energies, with half-widths of the 95 % confidence intervals of its parameters.

    The intervals follow from the residuals of the fit: they say how well the equation describes the energies, not how
    good the force field is.

    Attributes
    ----------
    energy_per_atom_ev
        Least energy per atom in eV.
    volume_per_atom_angstrom3
        Volume of least energy per atom in Angstrom^3.
    bulk_modulus_gpa
        Bulk modulus B0 at that volume in GPa.
    bulk_modulus_derivative
        Derivative B0' of the bulk modulus with respect to the pressure.
    volume_interval_angstrom3
        Half-width of the interval of the volume in Angstrom^3 per atom.
    bulk_modulus_interval_gpa
        Half-width of the interval of B0 in GPa.
    bulk_modulus_derivative_interval
        Half-width of the interval of B0'.
    rms_residual_mev_per_atom
        Root mean square of the residuals in meV per atom.
    """

    energy_per_atom_ev: float
    volume_per_atom_angstrom3: float
    bulk_modulus_gpa: float
    bulk_modulus_derivative: float
    volume_interval_angstrom3: float
    bulk_modulus_interval_gpa: float
    bulk_modulus_derivative_interval: float
    rms_residual_mev_per_atom: float


class EosOutput(Document):
    """An equation of state.

    Attributes
    ----------
    volumes_per_atom_angstrom3
        (n,) volumes per atom in Angstrom^3, ascending.
    energies_per_atom_ev
        (n,) energies per atom in eV.
    equation
        Equation whose parameters are the answer.
    fits
        Fits of the equations "birch_murnaghan" and "vinet".
    """

    volumes_per_atom_angstrom3: Array
    energies_per_atom_ev: Array
    equation: Equation
    fits: dict[str, EosFit]

    def summary(self) -> dict[str, float | int | str | bool | None]:
        """The parameters of the chosen equation, and the bulk modulus by the other one.

        Returns
        -------
        dict[str, float | int | str | bool | None]
            Values by name.
        """
        other = "vinet" if self.equation == "birch_murnaghan" else "birch_murnaghan"
        return {
            **self.fits[self.equation].model_dump(),
            "equation": self.equation,
            "other_bulk_modulus_gpa": self.fits[other].bulk_modulus_gpa,
        }

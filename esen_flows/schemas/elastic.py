"""Elastic tensors: their protocol, steps and documents. Voigt order is xx, yy, zz, yz, xz, xy."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PositiveFloat, model_validator

from esen_flows.schemas.document_base import Array, Document
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.property_entry import Step
from esen_flows.schemas.protocol_types import one_or_more
from esen_flows.schemas.protocols import RelaxProtocol


def _magnitudes(value: tuple[float, ...]) -> tuple[float, ...]:
    if len(value) < 2 or len(set(value)) != len(value) or max(value) > 0.1:
        raise ValueError(f"at least two different strains of at most 0.1, got {value}")
    return value


class StrainProtocol(Frozen):
    """Stresses of a strained crystal.

    Attributes
    ----------
    magnitudes
        Strains, each applied with both signs: changes of length as a fraction, and angles in radian. The default is
        that of the Materials Project for changes of length.
    relax
        Relaxation of the positions in each strained cell.
    symprec_angstrom
        Tolerance of the search for the space group in Angstrom, which decides which strains are needed.
    """

    magnitudes: Annotated[tuple[PositiveFloat, ...], BeforeValidator(one_or_more), AfterValidator(_magnitudes)] = (
        0.005, 0.01,
    )  # fmt: skip
    relax: RelaxProtocol = RelaxProtocol(fmax_ev_per_angstrom=1e-4, max_steps=1000, relax_cell=False)
    symprec_angstrom: PositiveFloat = 0.01

    @model_validator(mode="after")
    def _possible(self) -> "StrainProtocol":
        if self.relax.relax_cell or self.relax.symmetry != "free" or self.relax.deformation is not None:
            raise ValueError("relax: a strained cell stays as it is; set relax_cell=false, symmetry=free")
        return self


class ElasticFitProtocol(Frozen):
    """The part of an ElasticProtocol that needs no force call; it is part of the key of an elastic tensor."""


class ElasticProtocol(Frozen):
    """Elastic tensor: relaxation, stresses of strained cells with relaxed positions, and a fit.

    Attributes
    ----------
    relax
        Relaxation before the strains. Its `parity` and `force_symmetry` are those of all steps.
    strain
        The strained cells.
    """

    relax: RelaxProtocol = RelaxProtocol(fmax_ev_per_angstrom=1e-4, max_steps=1000, symmetry="fix")
    strain: StrainProtocol = StrainProtocol()

    @model_validator(mode="after")
    def _possible(self) -> "ElasticProtocol":
        if "direct" in (self.relax.forces, self.strain.relax.forces):
            raise ValueError("an elastic tensor needs stresses that are derivatives of the energy; leave forces out")
        symmetry = self.relax.force_symmetry
        if symmetry is not None and symmetry.average != "none" and symmetry.frame == "crystal":
            raise ValueError(f"relax.force_symmetry: strained cells have other axes; give {symmetry}+lab")
        if symmetry is not None and symmetry.project:
            raise ValueError("relax.force_symmetry: strained cells have other space groups; average, or leave it out")
        return self


def elastic_steps(protocol: ElasticProtocol) -> tuple[Step, ...]:
    """The steps to an elastic tensor.

    Parameters
    ----------
    protocol
        Protocol of the elastic tensor.

    Returns
    -------
    tuple[Step, ...]
        Relaxation, stresses of all strained cells, the fit.
    """
    # With one parity, so that all force calls see one energy surface.
    same = {"parity": protocol.relax.parity, "force_symmetry": protocol.relax.force_symmetry}
    relaxation = protocol.strain.relax.model_copy(update=same)
    strains = Step("strains", protocol.strain.model_copy(update={"relax": relaxation}), (("", 0),))
    return Step("relax", protocol.relax), strains, Step("elastic", ElasticFitProtocol(), (("", 1),))


class StrainsOutput(Document):
    """Stresses of a crystal under the strains that its symmetry leaves necessary.

    Attributes
    ----------
    strains
        (n, 6) strains in Voigt order, with angles (twice the tensor's components) in the last three; the first one is
        zero.
    stresses_ev_per_angstrom3
        (n, 6) stresses in eV/Angstrom^3 in Voigt order, positive under tension.
    rotations
        (m, 3, 3) rotations and mirror operations of the point group, Cartesian.
    density_kg_per_m3
        Density of the relaxed crystal in kg/m^3.
    """

    strains: Array
    stresses_ev_per_angstrom3: Array
    rotations: Array
    density_kg_per_m3: float

    def summary(self) -> dict[str, float | int | str | bool | None]:
        """Number of strained cells, and the largest stress.

        Returns
        -------
        dict[str, float | int | str | bool | None]
            Values by name.
        """
        return {"strained_cells": len(self.strains) - 1, "directions": int(self.strains.any(axis=0).sum())}


class ElasticOutput(Document):
    """An elastic tensor with relaxed positions, and what follows from it.

    Attributes
    ----------
    elastic_tensor_gpa
        (6, 6) elastic constants in GPa in Voigt notation, with the symmetry of the crystal.
    interval_gpa
        (6, 6) half-widths of their 95 % confidence intervals in GPa, from the residuals of the fit.
    independent
        Number of constants that the symmetry leaves independent.
    eigenvalues_gpa
        (6,) eigenvalues of the tensor in GPa, ascending.
    stable
        Born's criterion: whether all eigenvalues are positive.
    bulk_modulus_voigt_gpa
        Bulk modulus of a polycrystal by Voigt, for equal strains, in GPa.
    bulk_modulus_reuss_gpa
        The same by Reuss, for equal stresses.
    bulk_modulus_gpa
        Their mean, by Hill.
    bulk_modulus_interval_gpa
        Half-width of its 95 % confidence interval in GPa.
    shear_modulus_voigt_gpa
        Shear modulus of a polycrystal by Voigt in GPa.
    shear_modulus_reuss_gpa
        The same by Reuss.
    shear_modulus_gpa
        Their mean, by Hill.
    shear_modulus_interval_gpa
        Half-width of its 95 % confidence interval in GPa.
    longitudinal_velocity_m_per_s
        Velocity of longitudinal sound in the polycrystal in m/s; None where the moduli allow none.
    transverse_velocity_m_per_s
        Velocity of transverse sound in m/s, likewise.
    residual_gpa
        Root mean square of the residual stresses in GPa.
    """

    elastic_tensor_gpa: Array
    interval_gpa: Array
    independent: int
    eigenvalues_gpa: Array
    stable: bool
    bulk_modulus_voigt_gpa: float
    bulk_modulus_reuss_gpa: float
    bulk_modulus_gpa: float
    bulk_modulus_interval_gpa: float
    shear_modulus_voigt_gpa: float
    shear_modulus_reuss_gpa: float
    shear_modulus_gpa: float
    shear_modulus_interval_gpa: float
    longitudinal_velocity_m_per_s: float | None
    transverse_velocity_m_per_s: float | None
    residual_gpa: float

    def summary(self) -> dict[str, float | int | str | bool | None]:
        """All fields that are no arrays, and the constants C11, C12 and C44.

        Returns
        -------
        dict[str, float | int | str | bool | None]
            Values by name.
        """
        plain = self.model_dump(exclude={"elastic_tensor_gpa", "interval_gpa", "eigenvalues_gpa"})
        constants = {f"c{i}{j}_gpa": float(self.elastic_tensor_gpa[i - 1, j - 1]) for i, j in ((1, 1), (1, 2), (4, 4))}
        return {**plain, **constants, "least_eigenvalue_gpa": float(self.eigenvalues_gpa[0])}

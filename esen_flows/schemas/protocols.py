"""Protocols: frozen, closed values that say how a property is computed. They are part of every result's key."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from esen_flows.schemas.keys import sha256_of

Parity = Literal["average", "as_is"]
Method = Literal["rta", "wigner", "lbte"]
# Where noise is forgiven: within the reach of the supercell, or at Gamma alone (the test of PhononDB's 103).
ImaginaryTest = Literal["near_gamma", "gamma"]
ForceConstants = Literal["finite_displacement", "autodiff"]
Matrix3 = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]
Vector3 = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
Tensor3 = tuple[Vector3, Vector3, Vector3]
KEY_DECIMALS = 8
SYMMETRY_TOLERANCE = 1e-3


class Frozen(BaseModel):
    """A closed value with a stable hash.

    A field added after the first release is named in `added_later`: at its default it is left out of the hash, so that
    old keys stay valid. All other fields always count, so that changing a default changes the key.
    """

    # No number of a protocol means anything at infinity, and JSON, which keys and documents are made of, has none.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    added_later: ClassVar[frozenset[str]] = frozenset()

    def key_fields(self) -> dict[str, Any]:
        """The fields that enter the hash, nested values included."""
        fields: dict[str, Any] = {}
        for name, info in type(self).model_fields.items():
            value = getattr(self, name)
            if name in self.added_later and value == info.get_default(call_default_factory=True):
                continue
            fields[name] = value.key_fields() if isinstance(value, Frozen) else self.model_dump(mode="json")[name]
        return fields

    def hash(self) -> str:
        """Hex sha256 over the class name and the key fields."""
        return sha256_of({"type": type(self).__name__, **self.key_fields()})


def _ascending(value: tuple[float, ...]) -> tuple[float, ...]:
    """Temperatures as results list and figures draw them."""
    if not value or list(value) != sorted(set(value)):
        raise ValueError(f"temperatures_kelvin must be ascending and not empty, got {value}")
    return value


def _one_or_more(value: Any) -> Any:
    """A single number or word is a list of one."""
    return (value,) if isinstance(value, str | int | float) else value


Temperatures = Annotated[tuple[PositiveFloat, ...], BeforeValidator(_one_or_more), AfterValidator(_ascending)]
TemperaturesFromZero = Annotated[
    tuple[NonNegativeFloat, ...], BeforeValidator(_one_or_more), AfterValidator(_ascending)
]
Methods = Annotated[tuple[Method, ...], BeforeValidator(_one_or_more), Field(min_length=1)]


class NumericSettings(Frozen):
    """How numbers are computed, apart from what is computed; one frozen value, part of every result key."""

    dtype: Literal["float32", "float64"] = "float64"  # small laptop models: third derivatives deserve float64
    tf32: bool = False
    compile: bool = False
    # For derived lattice results only ("4.8"): integration weights differ between minor versions by up to 2 %.
    phonopy: str | None = None
    phono3py: str | None = None
    lattice_backend: str | None = None  # "Rust" or "C"


class RelaxProtocol(Frozen):
    """Relaxation of positions and cell, on the variables of ASE's Frechet cell filter."""

    added_later: ClassVar[frozenset[str]] = frozenset(
        {"optimizer", "hydrostatic", "constant_volume", "then_free", "keep_unconverged", "trajectory"}
    )

    fmax_ev_per_angstrom: PositiveFloat = 1e-3  # tight enough for harmonic phonons
    max_steps: PositiveInt = 500
    relax_cell: bool = True
    cell_mask: tuple[bool, bool, bool, bool, bool, bool] = (True,) * 6  # Voigt xx yy zz yz xz xy
    # fix: ASE's FixSymmetry, as published protocols. lock: forces and stress projected on the space group of the start,
    # for any cell shape and orientation, and in batches.
    symmetry: Literal["free", "fix", "lock"] = "free"
    symprec_angstrom: PositiveFloat = 0.01
    parity: Parity = "as_is"  # average: use (E(x)+E(-x))/2 for a force field that is not O(3)-equivariant
    optimizer: Literal["fire", "lbfgs"] = "fire"  # what all published protocols take; lbfgs needs fewer steps
    hydrostatic: bool = False  # the cell keeps its shape
    constant_volume: bool = False  # the cell keeps its volume
    # k_SRME's second stage: relaxed again without symmetry, and thrown away where that changes the space group.
    then_free: bool = False
    keep_unconverged: bool = False  # leaderboards take whatever max_steps gave; else it is a failure
    trajectory: bool = False  # store positions and cells of every step

    @model_validator(mode="after")
    def _possible(self) -> "RelaxProtocol":
        if self.hydrostatic and self.constant_volume:
            raise ValueError("hydrostatic and constant_volume together leave the cell as it is; set relax_cell=false")
        if self.then_free and self.symmetry == "free":
            raise ValueError("then_free is a stage after one with symmetry; set symmetry to fix or lock")
        return self


class DisplacementProtocol(Frozen):
    """Which displaced supercells are evaluated: the input of every finite-difference lattice property."""

    added_later: ClassVar[frozenset[str]] = frozenset({"force_constants", "fc3_pair_cutoff_angstrom"})

    order: Literal[2, 3] = 2  # 2: harmonic force constants; 3: third order too
    displacement_angstrom: float = Field(default=0.01, ge=0.00001, le=0.5)  # beyond it forces say nothing of the limit
    fc2_supercell: Matrix3 | None = None  # of the conventional cell; None: by fc2_min_length_angstrom
    fc3_supercell: Matrix3 | None = None
    fc2_min_length_angstrom: PositiveFloat = 15.0  # each lattice vector of the supercell is at least this long
    fc3_min_length_angstrom: PositiveFloat = 10.0
    # Pairs of displaced atoms farther apart are not evaluated and have no third order; None: all of the supercell.
    fc3_pair_cutoff_angstrom: PositiveFloat | None = None
    symprec_angstrom: PositiveFloat = 1e-5  # phonopy's default
    parity: Parity = "average"  # esen.md D2: SO(3)-only models make fc3 drift with the displacement
    # autodiff: forces in the limit of small displacements, from exact Hessians; the displacement is then only the step
    # between Hessians, for the third order.
    force_constants: ForceConstants = "finite_displacement"

    @field_validator("fc2_supercell", "fc3_supercell", mode="before")
    @classmethod
    def _diagonal(cls, value: Any) -> Any:
        """Accept three integers for a diagonal supercell."""
        if isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(v, int) for v in value):
            return tuple(tuple(v if i == j else 0 for j in range(3)) for i, v in enumerate(value))
        return value

    @field_validator("fc2_supercell", "fc3_supercell")
    @classmethod
    def _right_handed(cls, value: Matrix3 | None) -> Matrix3 | None:
        if value is not None:
            (a, b, c), (d, e, f), (g, h, i) = value
            if a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) <= 0:
                raise ValueError("a supercell needs a positive determinant, such as 2,2,2")
        return value


class BornCharges(Frozen):
    """Born charges and dielectric tensor: the non-analytical correction, which splits LO from TO modes at Gamma.

    Tensors are along the Cartesian axes of the cell that they come with, which says whose charges they are: another
    cell of the same crystal is recognised, another crystal or orientation refused. `physics.lattice.born.read_born`
    makes this of a BORN file.
    """

    numbers: tuple[PositiveInt, ...]  # (n,) of the primitive cell
    cell_angstrom: Tensor3  # rows are lattice vectors
    fractions: tuple[Vector3, ...]  # (n, 3) positions in units of these
    charges_e: tuple[Tensor3, ...]  # (n, 3, 3); first index: electric field, as in phonopy
    dielectric: Tensor3  # high-frequency, relative
    factor_ev_angstrom: PositiveFloat = 14.39965172592227  # e^2 / (4 pi epsilon_0), phonopy's for eV and Angstrom

    @field_validator("cell_angstrom", "fractions", "charges_e", "dielectric", mode="before")
    @classmethod
    def _rounded(cls, value: Any) -> Any:
        """To 1e-8, so that the last bits of whoever expanded them are not part of a key; adding 0.0 turns -0.0 to 0."""
        try:
            return (np.round(np.array(value, dtype=float), KEY_DECIMALS) + 0.0).tolist()
        except (TypeError, ValueError):
            return value  # of a wrong shape or type, which the field says better

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


class PhononProtocol(Frozen):
    """Harmonic phonons: relax, displace, force constants, bands, density of states, thermal properties."""

    added_later: ClassVar[frozenset[str]] = frozenset({"born"})

    relax: RelaxProtocol = RelaxProtocol(fmax_ev_per_angstrom=1e-4, max_steps=1000, symmetry="fix")
    displacement: DisplacementProtocol = DisplacementProtocol(order=2, displacement_angstrom=0.01)
    mesh: tuple[PositiveInt, PositiveInt, PositiveInt] = (20, 20, 20)
    band_points: PositiveInt = 51
    temperatures_kelvin: TemperaturesFromZero = tuple(float(t) for t in range(0, 1001, 50))
    imaginary_tolerance_thz: PositiveFloat = 0.05  # below this near Gamma it is acoustic noise, not an instability
    born: BornCharges | None = None  # of a polar crystal; None: no non-analytical correction


class ConductivityProtocol(Frozen):
    """Lattice thermal conductivity from second and third order force constants."""

    added_later: ClassVar[frozenset[str]] = frozenset({"imaginary_test", "born"})

    relax: RelaxProtocol = RelaxProtocol(fmax_ev_per_angstrom=1e-4, max_steps=1000, symmetry="fix")
    displacement: DisplacementProtocol = DisplacementProtocol(order=3, displacement_angstrom=0.03)  # PhononDB: 0.03
    mesh: tuple[PositiveInt, PositiveInt, PositiveInt] = (11, 11, 11)
    temperatures_kelvin: Temperatures = (
        100.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0, 500.0, 600.0, 700.0, 800.0, 900.0, 1000.0,
    )  # fmt: skip
    methods: Methods = ("rta", "wigner")
    isotope_scattering: bool = False  # phono3py's default; the DFT reference values for Si are without
    boundary_mfp_micrometre: PositiveFloat | None = None
    imaginary_tolerance_thz: PositiveFloat = 0.05
    imaginary_test: ImaginaryTest = "near_gamma"
    born: BornCharges | None = None

    @model_validator(mode="after")
    def _of_third_order(self) -> "ConductivityProtocol":
        if self.displacement.order != 3:
            raise ValueError("displacement.order: a conductivity needs third-order force constants, so it is 3")
        return self


def principal_conductivity(methods: Sequence[Method]) -> str:
    """Field of a summary that tables show of a conductivity: that of relaxation times, or else of the first method."""
    return f"kappa_{'rta' if 'rta' in methods else methods[0]}_w_per_m_k"


class TransportProtocol(Frozen):
    """The part of a ConductivityProtocol that needs no force call: it is what a conductivity result is keyed by."""

    added_later: ClassVar[frozenset[str]] = frozenset({"imaginary_test", "born"})

    mesh: tuple[PositiveInt, PositiveInt, PositiveInt]
    temperatures_kelvin: tuple[PositiveFloat, ...]
    methods: tuple[Method, ...]
    isotope_scattering: bool
    boundary_mfp_micrometre: PositiveFloat | None
    imaginary_tolerance_thz: PositiveFloat = Field(default=0.05)
    imaginary_test: ImaginaryTest = "near_gamma"
    born: BornCharges | None = None

    @classmethod
    def of(cls, protocol: ConductivityProtocol) -> "TransportProtocol":
        """The transport part of a full conductivity protocol."""
        return cls(**{name: getattr(protocol, name) for name in cls.model_fields})


class HarmonicProtocol(Frozen):
    """The part of a PhononProtocol that needs no force call."""

    added_later: ClassVar[frozenset[str]] = frozenset({"born"})

    mesh: tuple[PositiveInt, PositiveInt, PositiveInt]
    band_points: PositiveInt
    temperatures_kelvin: tuple[float, ...]
    imaginary_tolerance_thz: PositiveFloat
    born: BornCharges | None = None

    @classmethod
    def of(cls, protocol: PhononProtocol) -> "HarmonicProtocol":
        """The force-free part of a full phonon protocol."""
        return cls(**{name: getattr(protocol, name) for name in cls.model_fields})

"""Protocols: frozen, closed values that say how a property is computed. They are part of every result's key."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from esen_flows.schemas.keys import sha256_of

Parity = Literal["average", "as_is"]
Method = Literal["rta", "wigner", "lbte"]
# Where noise is forgiven: within the reach of the supercell, or at Gamma alone (the test of PhononDB's 103).
ImaginaryTest = Literal["near_gamma", "gamma"]
ForceConstants = Literal["finite_displacement", "autodiff"]
Matrix3 = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]


class Frozen(BaseModel):
    """A closed value with a stable hash.

    A field added after the first release is named in `added_later`: at its default it is left out of the hash, so that
    old keys stay valid. All other fields always count, so that changing a default changes the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
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
    displacement_angstrom: PositiveFloat = 0.01
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


class PhononProtocol(Frozen):
    """Harmonic phonons: relax, displace, force constants, bands, density of states, thermal properties."""

    relax: RelaxProtocol = RelaxProtocol(fmax_ev_per_angstrom=1e-4, max_steps=1000, symmetry="fix")
    displacement: DisplacementProtocol = DisplacementProtocol(order=2, displacement_angstrom=0.01)
    mesh: tuple[PositiveInt, PositiveInt, PositiveInt] = (20, 20, 20)
    band_points: PositiveInt = 51
    temperatures_kelvin: tuple[float, ...] = tuple(float(t) for t in range(0, 1001, 50))
    imaginary_tolerance_thz: PositiveFloat = 0.05  # below this near Gamma it is acoustic noise, not an instability


class ConductivityProtocol(Frozen):
    """Lattice thermal conductivity from second and third order force constants."""

    added_later: ClassVar[frozenset[str]] = frozenset({"imaginary_test"})

    relax: RelaxProtocol = RelaxProtocol(
        fmax_ev_per_angstrom=1e-4,
        max_steps=1000,
        symmetry="fix",
        cell_mask=(True, True, True, False, False, False),  # no tilt, as PhononDB's protocol
    )
    displacement: DisplacementProtocol = DisplacementProtocol(order=3, displacement_angstrom=0.03)  # PhononDB: 0.03
    mesh: tuple[PositiveInt, PositiveInt, PositiveInt] = (11, 11, 11)
    temperatures_kelvin: tuple[PositiveFloat, ...] = (
        100.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0, 500.0, 600.0, 700.0, 800.0, 900.0, 1000.0,
    )  # fmt: skip
    methods: tuple[Method, ...] = ("rta", "wigner")
    isotope_scattering: bool = False  # phono3py's default; the DFT reference values for Si are without
    boundary_mfp_micrometre: PositiveFloat | None = None
    imaginary_tolerance_thz: PositiveFloat = 0.05
    imaginary_test: ImaginaryTest = "near_gamma"

    @field_validator("temperatures_kelvin")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or list(value) != sorted(set(value)):
            raise ValueError(f"temperatures_kelvin must be ascending and not empty, got {value}")
        return value


class TransportProtocol(Frozen):
    """The part of a ConductivityProtocol that needs no force call: it is what a conductivity result is keyed by."""

    added_later: ClassVar[frozenset[str]] = frozenset({"imaginary_test"})

    mesh: tuple[PositiveInt, PositiveInt, PositiveInt]
    temperatures_kelvin: tuple[PositiveFloat, ...]
    methods: tuple[Method, ...]
    isotope_scattering: bool
    boundary_mfp_micrometre: PositiveFloat | None
    imaginary_tolerance_thz: PositiveFloat = Field(default=0.05)
    imaginary_test: ImaginaryTest = "near_gamma"

    @classmethod
    def of(cls, protocol: ConductivityProtocol) -> "TransportProtocol":
        """The transport part of a full conductivity protocol."""
        return cls(**{name: getattr(protocol, name) for name in cls.model_fields})


class HarmonicProtocol(Frozen):
    """The part of a PhononProtocol that needs no force call."""

    mesh: tuple[PositiveInt, PositiveInt, PositiveInt]
    band_points: PositiveInt
    temperatures_kelvin: tuple[float, ...]
    imaginary_tolerance_thz: PositiveFloat

    @classmethod
    def of(cls, protocol: PhononProtocol) -> "HarmonicProtocol":
        """The force-free part of a full phonon protocol."""
        return cls(**{name: getattr(protocol, name) for name in cls.model_fields})

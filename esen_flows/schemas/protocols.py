"""Protocols: frozen, closed values that decide how a property is computed. They are part of every result's key."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator

from esen_flows.schemas.born_charges import BornCharges
from esen_flows.schemas.declarations import Dtype, ForceKind, Parity
from esen_flows.schemas.exploration import ExplorationProtocol
from esen_flows.schemas.force_symmetry import ForceSymmetry
from esen_flows.schemas.forces import refuse_direct
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.lattice_versions import TransportBackend
from esen_flows.schemas.protocol_types import (
    Deformation,
    ForceConstantAverage,
    ForceConstants,
    ImaginaryTest,
    Length,
    Mesh,
    Methods,
    Setting,
    Steps,
    Supercell,
    Temperatures,
    TemperaturesFromZero,
    Tolerance,
)

FC_FRAMES, FC_SEED = 8, 0  # defaults of random orientations


class NumericSettings(Frozen):
    """Numeric settings of a computation, apart from the physics; one frozen value that is part of every result key.

    Attributes
    ----------
    dtype
        Floating-point type of the force field. The default is float64, because third derivatives need its digits and
        small force fields can afford it.
    tf32
        Whether float32 products on a GPU may be rounded to 10 bits inside; off, because force constants need more.
    compile
        Whether the force field is compiled by torch; off, because compilation takes time and changes the last digits.
    phonopy
        Minor version of phonopy, such as "4.8", for derived lattice results only (None otherwise): integration weights
        differ between minor versions by up to 2 %.
    phono3py
        Minor version of phono3py, likewise.
    lattice_backend
        Implementation of phonon linewidths: "native", this package's own, or "Rust", phono3py's. None,
        the default, is "native"; the keys of other results do not contain it.
    """

    dtype: Dtype = "float64"
    tf32: bool = False
    compile: bool = False
    phonopy: str | None = None
    phono3py: str | None = None
    lattice_backend: TransportBackend | None = None


class RelaxProtocol(Frozen):
    """Relaxation of positions and cell, on the variables of ASE's Frechet cell filter.

    Attributes
    ----------
    fmax_ev_per_angstrom
        Largest force in eV/Angstrom on a converged structure, that on the cell included. The default is tight enough
        for harmonic phonons.
    max_steps
        Number of steps after which a relaxation counts as not converged; 500 as in Matbench Discovery.
    relax_cell
        Whether the cell is relaxed too; the default, because the property of a crystal is that at its own volume.
    cell_mask
        Strain components that may change, in Voigt order xx, yy, zz, yz, xz, xy. All of them by default: without the
        tilts a monoclinic crystal would keep its shear.
    symmetry
        "free": no constraint, the default, so that a relaxation shows whether the symmetry is stable. "fix": ASE's
        FixSymmetry, as in published protocols. "lock": forces and stress are projected on the space group of the start,
        for any cell shape and orientation, and in batches. "explore": "lock", and then the way out of imaginary modes:
        displaced along the lowest one, relaxed in the subgroup, until none is left.
    symprec_angstrom
        Tolerance of the search for the space group in Angstrom; the default is that of the published protocols.
    parity
        "average": use (E(x) + E(-x)) / 2 for a force field that is not O(3)-equivariant; "as_is": use the force field
        as it is, the default, because an average doubles the cost. A flow with phonons sets it to the parity of the
        displacements.
    optimizer
        "fire", the default because all published protocols use it, or "lbfgs", which needs fewer steps.
    hydrostatic
        Whether the cell keeps its shape; off, so that the cell is free.
    constant_volume
        Whether the cell keeps its volume; off, so that the cell is free.
    then_free
        Whether a second relaxation without symmetry follows, which is discarded where it changes the space group: the
        second stage of k_SRME. Off, because only this protocol has it.
    keep_unconverged
        Whether a structure that is not converged after `max_steps` is kept, as in leaderboards; off, so that it is a
        failure.
    trajectory
        Whether positions and cells of every step are stored; off, because they take most of the space.
    deformation
        Deformation gradient F by which the start is changed before the relaxation, in rows: lattice vectors and
        positions x become F x. None, the default, relaxes the structure as it is given.
    forces
        "conservative", the default: the forces that the force field gives, which declares whether they are the gradient
        of its energy. "direct": those of its direct heads, for fast relaxations that end near the minimum only.
    force_symmetry
        Average over rotations and projection of the forces, such as "project" or "icosahedral+inversion"; None, the
        default, takes them as they are. It is not `symmetry`, which is that of the structure.
    exploration
        How "explore" looks for imaginary modes and follows them; nothing else takes another than the default.
    """

    added_later: ClassVar[frozenset[str]] = frozenset(
        {
            "optimizer", "hydrostatic", "constant_volume", "then_free", "keep_unconverged", "trajectory", "deformation",
            "forces", "force_symmetry", "exploration",
        }
    )  # fmt: skip

    fmax_ev_per_angstrom: float = Field(default=1e-3, gt=0.0, le=1000.0)
    max_steps: Steps = 500
    relax_cell: bool = True
    cell_mask: tuple[bool, bool, bool, bool, bool, bool] = (True,) * 6
    symmetry: Literal["free", "fix", "lock", "explore"] = "free"
    symprec_angstrom: Tolerance = 0.01
    parity: Parity = "as_is"
    optimizer: Literal["fire", "lbfgs"] = "fire"
    hydrostatic: bool = False
    constant_volume: bool = False
    then_free: bool = False
    keep_unconverged: bool = False
    trajectory: bool = False
    deformation: Deformation | None = None
    forces: ForceKind = "conservative"
    force_symmetry: ForceSymmetry | None = None
    exploration: ExplorationProtocol = ExplorationProtocol()

    @model_validator(mode="after")
    def _possible(self) -> "RelaxProtocol":
        if self.hydrostatic and self.constant_volume:
            raise ValueError("hydrostatic and constant_volume together leave the cell as it is; set relax_cell=false")
        if self.then_free and self.symmetry == "free":
            raise ValueError("then_free is a stage after one with symmetry; set symmetry to fix or lock")
        if self.symmetry == "explore":
            self._check_exploration()
        elif self.exploration != ExplorationProtocol():
            raise ValueError(f"exploration changes nothing with symmetry={self.symmetry}; set symmetry=explore")
        return self

    def _check_exploration(self) -> None:
        if self.then_free or self.keep_unconverged or self.cell_mask != (True,) * 6 or self.forces != "conservative":
            raise ValueError("symmetry=explore takes no then_free, keep_unconverged, cell_mask and direct forces")
        if self.exploration.amplitudes_angstrom[0] < 2 * self.symprec_angstrom:
            raise ValueError("exploration.amplitudes_angstrom: the least would not be seen with this symprec_angstrom")


class StaticProtocol(Frozen):
    """Energy, forces and stress of a structure as it is given.

    Attributes
    ----------
    parity
        "average": use (E(x) + E(-x)) / 2 for a force field that is not O(3)-equivariant; "as_is": use the force field
        as it is, the default, because an average doubles the cost.
    forces
        "conservative", the default: the forces that the force field gives, which declares whether they are the gradient
        of its energy. "direct": those of its direct heads, which need accept_direct.
    accept_direct
        Whether direct forces beside a final energy are accepted.
    force_symmetry
        Average over rotations and projection of the forces, such as "project" or "icosahedral+inversion"; None, the
        default, takes them as they are. It is not `symmetry`, which is that of the structure.
    """

    added_later: ClassVar[frozenset[str]] = frozenset({"forces", "accept_direct", "force_symmetry"})

    parity: Parity = "as_is"
    forces: ForceKind = "conservative"
    accept_direct: bool = False
    force_symmetry: ForceSymmetry | None = None

    @model_validator(mode="after")
    def _possible(self) -> "StaticProtocol":
        refuse_direct(self.forces, self.accept_direct)
        return self


class DisplacementProtocol(Frozen):
    """Displaced supercells whose forces are evaluated: the input of every finite-difference lattice property.

    Attributes
    ----------
    order
        Order of the force constants: 2 for harmonic ones, the default, 3 for third-order ones as well.
    displacement_angstrom
        Length of the displacements in Angstrom, 0.00001 to 0.5: outside of this range forces say nothing of the limit
        of small displacements. The default is phonopy's.
    fc2_supercell
        Supercell of the conventional cell for harmonic force constants: three integers or a 3 x 3 matrix. None, the
        default, chooses it by `fc2_min_length_angstrom`, so that crystals of any size get a comparable one.
    fc3_supercell
        Supercell for third-order force constants, likewise by `fc3_min_length_angstrom`.
    fc2_min_length_angstrom
        Least length of each lattice vector of the harmonic supercell in Angstrom. Harmonic force constants reach
        farther than third-order ones, hence the longer default.
    fc3_min_length_angstrom
        Least length of each lattice vector of the third-order supercell in Angstrom.
    fc3_pair_cutoff_angstrom
        Largest distance in Angstrom between two displaced atoms; farther pairs are not evaluated and have no third
        order. None, the default, takes all pairs of the supercell.
    symprec_angstrom
        Tolerance of the symmetry search in Angstrom; the default is phonopy's.
    parity
        "average", the default: use (E(x) + E(-x)) / 2 for a force field that is not O(3)-equivariant, because
        third-order force constants of a model that is only SO(3)-equivariant drift with the displacement (esen.md, D2).
        "as_is": use the force field as it is.
    force_constants
        "finite_displacement", the default, for every force field, or "autodiff": forces in the limit of small
        displacements from exact Hessians. The displacement is then only the step between Hessians, for the third order.
    setting
        "canonical": displacements start from one choice among the equivalent axes, origins and orders of atoms of the
        conventional cell, so that one crystal has one result however it is written; the general protocols of phonons
        and conductivities set it. "as_given": the choice depends on the structure as it was given; the default, as in
        published protocols and in results of earlier versions. So `PhononProtocol()` is canonical, and
        `PhononProtocol(displacement=DisplacementProtocol())` is not unless the setting is given.
    forces
        "conservative", the default: the gradient of the energy. "direct": forces of direct heads, whose force constants
        are not symmetric; they need accept_direct. A flow relaxes with the same.
    accept_direct
        Whether forces that are not the gradient of an energy are accepted, for studies of what they spoil.
    force_symmetry
        Average over rotations and projection of the forces, such as "project" (on the group of each supercell) or
        "icosahedral"; None, the default, takes them as they are. A flow relaxes with the same.
    fc_average
        For force fields that are not exact under rotations. "none", the default: one displaced supercell stands for all
        that are equal by symmetry. "equivalents": the forces of all of them are averaged. "rotations": each is
        evaluated in `fc_frames` random orientations, whose spread gives error bars.
    fc_frames, fc_seed
        Number of random orientations, and their seed; only "rotations" takes others than the defaults.
    """

    added_later: ClassVar[frozenset[str]] = frozenset(
        {
            "force_constants", "fc3_pair_cutoff_angstrom", "setting", "forces", "accept_direct", "force_symmetry",
            "fc_average", "fc_frames", "fc_seed",
        }
    )  # fmt: skip

    order: Literal[2, 3] = 2
    displacement_angstrom: float = Field(default=0.01, ge=0.00001, le=0.5)
    fc2_supercell: Supercell | None = None
    fc3_supercell: Supercell | None = None
    fc2_min_length_angstrom: Length = 15.0
    fc3_min_length_angstrom: Length = 10.0
    fc3_pair_cutoff_angstrom: Length | None = None
    symprec_angstrom: Tolerance = 1e-5
    parity: Parity = "average"
    force_constants: ForceConstants = "finite_displacement"
    setting: Setting = "as_given"
    forces: ForceKind = "conservative"
    accept_direct: bool = False
    force_symmetry: ForceSymmetry | None = None
    fc_average: ForceConstantAverage = "none"
    fc_frames: int = Field(default=FC_FRAMES, ge=2, le=1000)
    fc_seed: int = Field(default=FC_SEED, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> "DisplacementProtocol":
        refuse_direct(self.forces, self.accept_direct)
        if self.forces == "direct" and self.force_constants == "autodiff":
            raise ValueError("forces=direct have no energy to differentiate; use force_constants=finite_displacement")
        if self.force_symmetry is not None and self.force_symmetry.project:
            if self.force_constants == "autodiff":
                raise ValueError("force_symmetry: exact Hessians are not projected; use finite_displacement")
            self.force_symmetry.require_finer_than(self.displacement_angstrom)
        if self.fc_average != "none" and self.force_constants == "autodiff":
            raise ValueError("fc_average averages forces of displaced supercells; use finite_displacement")
        if self.fc_average != "rotations" and (self.fc_frames, self.fc_seed) != (FC_FRAMES, FC_SEED):
            raise ValueError(f"fc_frames, fc_seed change nothing with fc_average={self.fc_average}; set rotations")
        return self


class HarmonicProtocol(Frozen):
    """The part of a PhononProtocol that needs no force call; it is part of the key of a phonon result.

    Attributes
    ----------
    mesh
        Mesh of q-points for density of states and thermal properties; the default is that of the MDR benchmark.
    band_points
        Number of q-points on each segment of the band path; the default is phonopy's.
    temperatures_kelvin
        Temperatures of the thermal properties in Kelvin, ascending; by default 0 to 1000 K.
    imaginary_tolerance_thz
        Frequency in THz. A mode near Gamma whose frequency is negative by less is acoustic noise, not an instability.
    born
        Born charges and dielectric tensor of a polar crystal. None, the default, computes no non-analytical correction,
        because force fields give no charges.
    mesh_length_angstrom
        Length in Angstrom from which the divisions of the mesh follow, as phonopy's own; None, the default, takes
        `mesh`.
    remove_drift
        Whether the mean force on the atoms of each displaced supercell is taken from its forces; off, because the
        symmetry of force constants does the same and more.
    symmetrize
        Whether translation and permutation symmetry are imposed on force constants; the default. One published protocol
        of the MDR benchmark does not.
    """

    added_later: ClassVar[frozenset[str]] = frozenset({"born", "mesh_length_angstrom", "remove_drift", "symmetrize"})

    mesh: Mesh = (20, 20, 20)
    band_points: int = Field(default=51, ge=1, le=100_000)
    temperatures_kelvin: TemperaturesFromZero = tuple(float(t) for t in range(0, 1001, 50))
    imaginary_tolerance_thz: float = Field(default=0.05, gt=0.0, le=1000.0)
    born: BornCharges | None = None
    mesh_length_angstrom: Length | None = None
    remove_drift: bool = False
    symmetrize: bool = True


class PhononProtocol(HarmonicProtocol):
    """Harmonic phonons: relaxation, forces of displaced supercells, and what a HarmonicProtocol makes of them.

    Attributes
    ----------
    relax
        Relaxation before the displacements. By default it is ten times tighter than a plain one, because remaining
        forces shift frequencies, and keeps the space group, on which the number of displacements depends.
    displacement
        Displaced supercells; by default 0.01 Angstrom, phonopy's own, in the canonical setting.
    """

    relax: RelaxProtocol = RelaxProtocol(fmax_ev_per_angstrom=1e-4, max_steps=1000, symmetry="fix")
    displacement: DisplacementProtocol = DisplacementProtocol(order=2, displacement_angstrom=0.01, setting="canonical")


class TransportProtocol(Frozen):
    """The part of a ConductivityProtocol that needs no force call; it is part of the key of a conductivity.

    Attributes
    ----------
    mesh
        Mesh of q-points; the default is that of phono3py's example of Si.
    temperatures_kelvin
        Temperatures in Kelvin, ascending; by default 100 to 1000 K.
    methods
        "rta": relaxation-time approximation. "wigner": the same with coherences between bands. "lbte": direct solution
        of the linearised Boltzmann equation, which is not in the default because it takes much more time and memory.
    isotope_scattering
        Whether phonons scatter at isotopes in natural abundance. Off as in phono3py; the DFT reference values for Si
        are without them.
    boundary_mfp_micrometre
        Mean free path in micrometres between scatterings at boundaries; None, the default, for an infinite crystal.
    imaginary_tolerance_thz
        Frequency in THz. A mode whose frequency is negative by less counts as noise where `imaginary_test` allows it.
    imaginary_test
        "near_gamma", the default: within the reach of the supercell, where interpolation is uncertain. "gamma": at
        Gamma alone, the test of PhononDB's 103 crystals.
    born
        Born charges and dielectric tensor of a polar crystal; None, the default, computes no non-analytical correction.
    """

    added_later: ClassVar[frozenset[str]] = frozenset({"imaginary_test", "born"})

    mesh: Mesh = (11, 11, 11)
    temperatures_kelvin: Temperatures = (
        100.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0, 500.0, 600.0, 700.0, 800.0, 900.0, 1000.0,
    )  # fmt: skip
    methods: Methods = ("rta", "wigner")
    isotope_scattering: bool = False
    boundary_mfp_micrometre: PositiveFloat | None = None
    imaginary_tolerance_thz: float = Field(default=0.05, gt=0.0, le=1000.0)
    imaginary_test: ImaginaryTest = "near_gamma"
    born: BornCharges | None = None


class ConductivityProtocol(TransportProtocol):
    """Lattice thermal conductivity from second- and third-order force constants.

    Attributes
    ----------
    relax
        Relaxation before the displacements, the same as for phonons, so that a crystal is relaxed once for both.
    displacement
        Displaced supercells, of order 3; by default 0.03 Angstrom, as in PhononDB, in the canonical setting.
    """

    relax: RelaxProtocol = RelaxProtocol(fmax_ev_per_angstrom=1e-4, max_steps=1000, symmetry="fix")
    displacement: DisplacementProtocol = DisplacementProtocol(order=3, displacement_angstrom=0.03, setting="canonical")

    @model_validator(mode="after")
    def _of_third_order(self) -> "ConductivityProtocol":
        if self.displacement.order != 3:
            raise ValueError("displacement.order: a conductivity needs third-order force constants, so it is 3")
        return self

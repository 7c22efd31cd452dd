"""Sizes and options of an eSEN, under the names of the published configurations."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from esen_flows.network.interface import NetworkConfig
from esen_flows.schemas.declarations import Equivariance

NormType = Literal["rms_norm_sh", "layer_norm_sh", "layer_norm"]
RadialBasis = Literal["gaussian", "bessel"]
Activation = Literal["gate", "s2"]
NodeBlockType = Literal["spectral", "grid"]
SO2Weights = Literal["complex", "real"]
DirectStress = Literal["none", "target", "source_target"]
ChargeSpinEmbedding = Literal["none", "rand_emb"]
MAX_CHARGE, MAX_SPIN = 100, 100  # of the published tables
# Sizes are always written out: otherwise a changed default would change what an old file means.
SIZES = (
    "num_layers",
    "lmax",
    "mmax",
    "sphere_channels",
    "hidden_channels",
    "edge_channels",
    "num_distance_basis",
    "cutoff_angstrom",
    "max_num_elements",
)


@dataclass(frozen=True)
class ESENConfig(NetworkConfig):
    """Sizes and options of an eSEN; the defaults are those of eSEN-3.2M on MPtrj.

    Attributes
    ----------
    num_layers
        Number of layers, each an edge block followed by a node block.
    lmax
        Largest degree l of the node features, which have (lmax + 1)^2 coefficients.
    mmax
        Largest order |m| that is kept in the edge frame, 1 to lmax.
    sphere_channels
        Channels of the node features.
    hidden_channels
        Channels inside the edge blocks, the node blocks and the energy head.
    edge_channels
        Width of the radial networks and of the species embeddings that they read.
    num_distance_basis
        Number of radial functions.
    cutoff_angstrom
        Cutoff radius of the neighbour graph, in Angstrom.
    max_num_elements
        Rows of the species tables; the atomic number is the row index.
    distance_function
        Kind of the radial functions.
    norm_type
        "rms_norm_sh" (one statistic for all degrees), "layer_norm_sh" (l = 0 by itself, all l > 0 together) or
        "layer_norm" (each degree by itself).
    use_envelope
        Whether messages are multiplied by a polynomial that vanishes at the cutoff. Without it energy and forces jump
        when an atom crosses the cutoff.
    act_type
        Activation on edges: "gate", or "s2" (a SiLU on a grid of the sphere). "s2" depends on how edge frames are
        rolled about the edge: rotations hold only approximately, and the energy jumps where the two charts of the
        frames meet.
    mlp_type
        Node block: "spectral", or "grid" (an MLP at each point of a grid; rotations hold only approximately).
    grid_resolution
        Grid points in both directions of the sphere, an even number. None: 2 (lmax + 1) rings and 2 mmax + 1
        longitudes, or 2 (mmax + 1) + 1 longitudes where lmax = mmax.
    so2_weights
        "complex" (published: mixes +m and -m, and so breaks mirror images) or "real" (exact for O(3), half of the
        m > 0 work).
    max_neighbors
        About how many nearest neighbours of an atom are kept; None: all. For the ablation only: with a limit the energy
        is no longer a continuous function of the positions.
    direct_forces
        Whether a head predicts forces. Edge frames are then constants, and the forces are not the gradient.
    direct_stress
        Whether a head predicts the stress, from features of the target or of both ends of each edge. As published, an
        MLP acts on each of the five anisotropic components by itself, which is not equivariant under rotations.
    denoising
        Whether there are inputs and a head for DeNS (needs direct_forces): true forces enter the embedding of noised
        atoms, and the noise is predicted for them.
    charge_spin_embedding
        "rand_emb": total charge (-100 to 100) and spin multiplicity (0: not given) of a structure are inputs, with one
        learned vector each.
    """

    SIZES: ClassVar[tuple[str, ...]] = SIZES
    MAY_DIFFER: ClassVar[tuple[str, ...]] = ("direct_forces", "direct_stress", "denoising", "max_neighbors")
    SPECIES_TABLES: ClassVar[tuple[str, ...]] = ("sphere_embedding", "source_embedding", "target_embedding")
    num_layers: int = 2
    lmax: int = 2
    mmax: int = 2
    sphere_channels: int = 128
    hidden_channels: int = 128
    edge_channels: int = 128
    num_distance_basis: int = 10
    cutoff_angstrom: float = 6.0
    max_num_elements: int = 100
    distance_function: RadialBasis = "gaussian"
    norm_type: NormType = "rms_norm_sh"
    use_envelope: bool = True
    act_type: Activation = "gate"
    mlp_type: NodeBlockType = "spectral"
    grid_resolution: int | None = None
    so2_weights: SO2Weights = "complex"
    max_neighbors: int | None = None
    direct_forces: bool = False
    direct_stress: DirectStress = "none"
    denoising: bool = False
    charge_spin_embedding: ChargeSpinEmbedding = "none"

    def __post_init__(self) -> None:
        self._check_types()
        if not 1 <= self.mmax <= self.lmax:
            raise ValueError(f"eSEN needs 1 <= mmax <= lmax, got mmax={self.mmax}, lmax={self.lmax}")
        if self.distance_function == "gaussian" and self.num_distance_basis < 2:
            raise ValueError(f"the Gaussian basis needs at least 2 functions, got {self.num_distance_basis}")
        for name in SIZES:
            if not 0 < getattr(self, name) <= LARGEST[name]:
                raise ValueError(f"{name} must be positive and at most {LARGEST[name]}, got {getattr(self, name)!r}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.grid_resolution is not None and (self.grid_resolution % 2 or self.grid_resolution < 2 * self.lmax + 1):
            raise ValueError(
                f"grid_resolution must be even and at least {2 * self.lmax + 2} for lmax {self.lmax}, "
                f"got {self.grid_resolution}"
            )
        if self.max_neighbors is not None and self.max_neighbors < 1:
            raise ValueError(f"max_neighbors must be positive, or None for all, got {self.max_neighbors}")
        if (self.denoising or self.direct_stress != "none") and not self.direct_forces:
            raise ValueError("denoising and direct_stress are parts of a direct-force model: set direct_forces too")

    def _check_types(self) -> None:
        """Refuse values of another type: options come from files and command lines, where "false" would be true."""
        for name, hint in _HINTS.items():
            value, kind = getattr(self, name), _KINDS.get(hint, int)
            if name in _CHOICES or (value is None and hint not in _KINDS):
                continue
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"{name} must be {_KIND_NAMES[kind]}, got {value!r}")

    @property
    def uses_grid(self) -> bool:
        """Whether anything is computed on a grid of the sphere, where rotations hold only approximately."""
        return self.act_type == "s2" or self.mlp_type == "grid"

    @property
    def equivariance(self) -> Equivariance:
        """Symmetry under which energy, forces and stress are equivariant."""
        if self.uses_grid or self.direct_stress != "none":
            return "approximate"
        return "O3" if self.so2_weights == "real" else "SO3"

    @property
    def smooth(self) -> bool:
        """Whether the energy has two continuous derivatives along every trajectory of the atoms."""
        return self.use_envelope and self.act_type == "gate" and self.max_neighbors is None

    @property
    def conservative(self) -> bool:
        """Whether forces and stress are derivatives of the energy."""
        return not self.direct_forces

    @property
    def gives_stress(self) -> bool:
        """Whether there is a stress."""
        return not self.direct_forces or self.direct_stress != "none"

    @property
    def denoises(self) -> bool:
        """Whether true forces of noised atoms are an input, and the noise an output (DeNS)."""
        return self.denoising

    @property
    def neighbor_limit(self) -> int | None:
        """The option `max_neighbors`."""
        return self.max_neighbors

    @property
    def telling_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of tensors with every size except lmax and mmax, which are small."""
        radial = (self.edge_channels, self.num_distance_basis + 2 * self.edge_channels)
        return {
            "sphere_embedding.weight": (self.max_num_elements, self.sphere_channels),
            "energy_block.0.weight": (self.hidden_channels, self.sphere_channels),
            f"blocks.{self.num_layers - 1}.edge_wise.so2_conv_1.rad_func.net.0.weight": radial,
        }

    @property
    def charge_and_spin_limits(self) -> tuple[int, int] | None:
        """Sizes of the published tables: charges from -100 to 100, multiplicities from 0 to 100."""
        return None if self.charge_spin_embedding == "none" else (MAX_CHARGE, MAX_SPIN)


_HINTS = {name: hint for name, hint in get_type_hints(ESENConfig).items() if get_origin(hint) is not ClassVar}
_CHOICES = {name: get_args(hint) for name, hint in _HINTS.items() if get_origin(hint) is Literal}
_KINDS: dict[Any, Any] = {bool: bool, int: int, float: int | float}  # other hints are optional integers
_KIND_NAMES = {bool: "true or false", int: "an integer", int | float: "a number"}
# Larger than anything that was published, and small enough to be tried: a wrong digit is not met as a full memory.
LARGEST = {
    "num_layers": 100, "lmax": 16, "mmax": 16, "sphere_channels": 10_000, "hidden_channels": 10_000,
    "edge_channels": 10_000, "num_distance_basis": 10_000, "cutoff_angstrom": 30.0, "max_num_elements": 1000,
}  # fmt: skip
# Configurations whose parameter counts are the published ones; names are those of the model cards.
PUBLISHED: dict[str, ESENConfig] = {
    "esen_3.2m": ESENConfig(),  # 3,199,745; MPtrj at 6 Angstrom, SPICE at 5
    "esen_30m_mp": ESENConfig(num_layers=10, lmax=3, mmax=2),  # 30,085,121
    "esen_30m_oam": ESENConfig(num_layers=10, lmax=3, mmax=2, num_distance_basis=64),  # 30,161,153
}
# The publication does not fix the 6.5 M model: sizes near the quoted count that its authors may have used.
CANDIDATES: dict[str, tuple[ESENConfig, ...]] = {
    "esen_6.5m": (
        ESENConfig(lmax=3, mmax=3, num_distance_basis=64),  # 6,451,969
        ESENConfig(lmax=3, mmax=3),  # 6,431,233
        ESENConfig(num_layers=4, num_distance_basis=512),  # 6,547,969
    )
}

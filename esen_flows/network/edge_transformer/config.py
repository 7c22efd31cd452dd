"""Sizes and options of an edge transformer, and the published sizes."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from esen_flows.network.interface import Augmentation, NetworkConfig

NODE_FACTOR = 4  # width of the tokens of atoms, in widths of the tokens of edges
_LARGEST = {
    "width": 10_000, "num_gnn_layers": 100, "num_attention_layers": 100, "num_heads": 1000, "cutoff_angstrom": 30.0,
    "max_num_elements": 1000, "cutoff_width_angstrom": 30.0, "adaptive_neighbors": 1000.0,
}  # fmt: skip
_OPTIONAL = ("adaptive_neighbors",)


@dataclass(frozen=True)
class EdgeTransformerConfig(NetworkConfig):
    """Sizes and options of an edge transformer; the defaults are those of the published size XS.

    Attributes
    ----------
    width
        Width d of the tokens of edges. Tokens of atoms have the width 4 d.
    num_gnn_layers
        Number of rounds in which edges exchange messages with their reverse edges.
    num_attention_layers
        Number of attention layers in each of these rounds.
    num_heads
        Number of attention heads; they divide `width`.
    cutoff_angstrom
        Cutoff radius of the neighbour graph, in Angstrom.
    max_num_elements
        Rows of the species tables; the atomic number is the row index.
    cutoff_width_angstrom
        Width of the shell below the cutoff in which neighbours fade out, in Angstrom.
    adaptive_neighbors
        About how many neighbours an atom keeps: its own cutoff, at most `cutoff_angstrom`, is a smooth function of the
        distances of its neighbours. None: all neighbours within `cutoff_angstrom`.
    direct_forces
        Whether a head predicts forces. The forces are then not the gradient of the energy.
    direct_stress
        Whether a head predicts the stress (needs direct_forces).
    both_heads
        Whether forces and stress are derivatives of the energy nevertheless, and those of the direct heads are given
        besides, for fast dynamics (needs direct_forces).
    """

    SIZES: ClassVar[tuple[str, ...]] = (
        "width",
        "num_gnn_layers",
        "num_attention_layers",
        "num_heads",
        "cutoff_angstrom",
        "max_num_elements",
    )
    MAY_DIFFER: ClassVar[tuple[str, ...]] = ("direct_forces", "direct_stress", "both_heads")
    SPECIES_TABLES: ClassVar[tuple[str, ...]] = ("species", "neighbor_species")
    width: int = 128
    num_gnn_layers: int = 2
    num_attention_layers: int = 1
    num_heads: int = 8
    cutoff_angstrom: float = 7.5
    max_num_elements: int = 100
    cutoff_width_angstrom: float = 0.5
    adaptive_neighbors: float | None = None
    direct_forces: bool = False
    direct_stress: bool = False
    both_heads: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            self._check(field.name, getattr(self, field.name), field.type)
        if self.width % self.num_heads:
            raise ValueError(f"width must be a multiple of num_heads, got {self.width} and {self.num_heads}")
        if self.cutoff_width_angstrom > self.cutoff_angstrom:
            raise ValueError(
                f"cutoff_width_angstrom must be at most cutoff_angstrom {self.cutoff_angstrom}, "
                f"got {self.cutoff_width_angstrom}"
            )
        if (self.direct_stress or self.both_heads) and not self.direct_forces:
            raise ValueError("direct_stress and both_heads need a force head: set direct_forces too")

    @staticmethod
    def _check(name: str, value: Any, kind: Any) -> None:
        """Refuse values of another type: options come from files and command lines, where "false" would be true."""
        if value is None and name in _OPTIONAL:
            return
        if kind is bool:
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, got {value!r}")
            return
        wanted, words = (int, "an integer") if kind is int else (int | float, "a number")
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ValueError(f"{name} must be {words}, got {value!r}")
        if not 0 < value <= _LARGEST[name]:
            raise ValueError(f"{name} must be positive and at most {_LARGEST[name]}, got {value!r}")

    @property
    def node_width(self) -> int:
        """Width of the tokens of atoms."""
        return NODE_FACTOR * self.width

    @property
    def conservative(self) -> bool:
        """Whether forces and stress are derivatives of the energy."""
        return not self.direct_forces or self.both_heads

    @property
    def has_both_forces(self) -> bool:
        """Whether direct heads give forces and stress besides the derivatives of the energy."""
        return self.both_heads

    @property
    def gives_stress(self) -> bool:
        """Whether there is a stress."""
        return self.conservative or self.direct_stress

    @property
    def gives_direct_stress(self) -> bool:
        """Whether a head predicts the stress."""
        return self.direct_stress

    @property
    def reads_reverse_edges(self) -> bool:
        """Always: edges exchange messages with their reverse edges."""
        return True

    @property
    def augmentation(self) -> Augmentation:
        """Rotations and mirror images are learned from turned structures."""
        return "O3"

    @property
    def telling_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of tensors with every size except the number of heads, which takes no memory."""
        last = f"layers.{self.num_gnn_layers - 1}.attention.{self.num_attention_layers - 1}"
        return {
            "species.weight": (self.max_num_elements, self.node_width),
            f"{last}.projection.weight": (self.width, self.width),
        }


def _published(width: int, gnn: int, attention: int, cutoff: float, neighbors: float) -> EdgeTransformerConfig:
    return EdgeTransformerConfig(
        width=width,
        num_gnn_layers=gnn,
        num_attention_layers=attention,
        cutoff_angstrom=cutoff,
        adaptive_neighbors=neighbors,
        direct_forces=True,
        direct_stress=True,
    )


# Sizes of arXiv 2601.16195. With all three heads, they have 4.5, 25.9, 108.6, 255.4 and 730.1 million parameters.
PRESETS: dict[str, EdgeTransformerConfig] = {
    "XS": _published(128, 2, 1, 7.5, 8),
    "S": _published(256, 3, 1, 8.0, 16),
    "M": _published(384, 3, 2, 8.5, 24),
    "L": _published(512, 4, 2, 9.0, 32),
    "XL": _published(640, 5, 3, 10.0, 40),
}

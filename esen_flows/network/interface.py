"""What a network family gives: a configuration with its declarations, and a module that computes a graph batch.

A family is a pair of subclasses of `NetworkConfig` and `Network` in a folder of its own. `forcefield/families.py` lists
the families. Force fields, training, checkpoints and Hessians know a network through these two classes alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from esen_flows.data.batch import GraphBatch
from esen_flows.errors import InputError
from esen_flows.schemas.declarations import Equivariance

# What the trainer does with the structures of a batch: "none", or "O3": every structure is turned by a random proper or
# improper rotation, with its labels.
Augmentation = Literal["none", "O3"]


class NetworkConfig:
    """Sizes and options of a network, and the properties that follow from them. Subclasses are frozen dataclasses.

    Attributes
    ----------
    SIZES
        Names of fields that checkpoints always write out and that training files have to name (`max_num_elements` may
        be left out there). Other fields are written out where they are not at their default.
    MAY_DIFFER
        Names of fields in which two stages of one training may differ, because they change heads or the graph but no
        shared weight.
    SPECIES_TABLES
        Beginnings of the names of parameters that have one row per element. Fine-tuning on few elements freezes them.
    cutoff_angstrom
        Cutoff radius of the neighbour graph, in Angstrom.
    max_num_elements
        Rows of the species tables; the atomic number is the row index.
    """

    SIZES: ClassVar[tuple[str, ...]] = ()
    MAY_DIFFER: ClassVar[tuple[str, ...]] = ()
    SPECIES_TABLES: ClassVar[tuple[str, ...]] = ()
    cutoff_angstrom: float
    max_num_elements: int

    @property
    def conservative(self) -> bool:
        """Whether forces and stress are derivatives of the energy; otherwise heads of the network predict them."""
        return True

    @property
    def equivariance(self) -> Equivariance:
        """Symmetry under which energy, forces and stress are equivariant."""
        return "approximate"

    @property
    def smooth(self) -> bool:
        """Whether the energy has two continuous derivatives, and edges longer than the cutoff have no effect."""
        return True

    @property
    def differentiable(self) -> bool:
        """Whether the energy has exact second derivatives."""
        return self.conservative

    @property
    def gives_stress(self) -> bool:
        """Whether there is a stress; networks that predict forces directly need a head for it."""
        return self.conservative

    @property
    def has_both_forces(self) -> bool:
        """Whether a conservative network has heads that predict forces and stress besides."""
        return False

    @property
    def gives_direct_stress(self) -> bool:
        """Whether a head predicts the stress."""
        return self.gives_stress and not self.conservative

    @property
    def denoises(self) -> bool:
        """Whether true forces of noised atoms are an input, and the noise an output (DeNS)."""
        return False

    @property
    def neighbor_limit(self) -> int | None:
        """About how many nearest neighbours of an atom are kept; None: all."""
        return None

    @property
    def charge_and_spin_limits(self) -> tuple[int, int] | None:
        """Largest absolute charge and largest spin multiplicity of a structure; None: neither is an input."""
        return None

    @property
    def reads_reverse_edges(self) -> bool:
        """Whether the network needs `GraphBatch.reverse`, the index of the reverse edge of every edge."""
        return False

    @property
    def augmentation(self) -> Augmentation:
        """What the trainer does with the structures of a batch to teach a symmetry that is not built in."""
        return "none"

    @property
    def telling_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of some tensors by name, from which the memory of the network follows.

        A checkpoint with other shapes is refused before memory is taken for its network.
        """
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Sizes, and the options that are not at their default, so that new options do not change old keys.

        Returns
        -------
        dict[str, Any]
            Values by field name, in the order of the fields.
        """
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, (value, default) in values.items() if name in self.SIZES or value != default}


@dataclass(frozen=True)
class NetworkOutput:
    """Outputs of a network, in network units.

    Attributes
    ----------
    energy
        (systems,) float64.
    node_energy
        (atoms,) contributions to the energy.
    node_embedding
        (atoms, ...) features of the atoms after the last layer.
    forces
        (atoms, 3) output of a direct head, or None.
    noise
        (atoms, 3) output of a denoising head in units of the noise's standard deviation, or None.
    stress
        (systems, 3, 3) output of a direct head, or None.
    """

    energy: Tensor
    node_energy: Tensor
    node_embedding: Tensor
    forces: Tensor | None = None
    noise: Tensor | None = None
    stress: Tensor | None = None


class Network(nn.Module, ABC):
    """A network of some family: graph batches in, energies and the outputs of direct heads out, in network units.

    The whole geometry enters through the edge vectors, with respect to which the energy is differentiated.

    Parameters
    ----------
    config
        Sizes and options.

    Attributes
    ----------
    CONFIG
        The family's configuration class.
    config
        Sizes and options.
    edges_per_chunk
        Bounds the memory of a large structure where the family can: messages are computed for this many edges at a
        time. None: all edges at once. Results do not depend on it beyond rounding.
    """

    CONFIG: ClassVar[type[NetworkConfig]]

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.edges_per_chunk: int | None = None

    @abstractmethod
    def forward(
        self,
        graph: GraphBatch,
        *,
        vectors: Tensor | None = None,
        noised_forces: Tensor | None = None,
        heads: bool = True,
    ) -> NetworkOutput:
        """Energies of a batch, differentiable with respect to `vectors`.

        Parameters
        ----------
        graph
            Batch of structures.
        vectors
            (edges, 3) edge vectors in Angstrom, from target to source; default: those of the graph.
        noised_forces
            (atoms, 3) true forces in eV/Angstrom of noised atoms, zero for the others (denoising networks alone).
        heads
            Whether to compute the outputs of direct heads, where the network has both kinds of forces.

        Returns
        -------
        NetworkOutput
            Energies, features, and the outputs of direct heads.
        """

    @property
    @abstractmethod
    def energy_head(self) -> nn.Sequential:
        """Layers that turn features into energies of atoms; the last one is linear."""

    @abstractmethod
    def bytes_per_edge(self, *, differentiated: bool = False) -> float:
        """Peak memory of a call for energy, forces and stress, in the present state and precision of the network.

        Parameters
        ----------
        differentiated
            Whether the call goes through the code of second derivatives, which may keep more.

        Returns
        -------
        float
            Bytes per edge, where nothing is computed twice.
        """

    def freeze(self) -> None:
        """Make the parameters constants, with their present values and on their present device, for evaluation."""
        self.requires_grad_(False)

    def compiled(self) -> Self:
        """A network that shares its parameters with this one and runs through `torch.compile`.

        Shapes are dynamic: other structures need no new code. Compiled code needs first derivatives only.

        Returns
        -------
        Network
            The compiled network.

        Raises
        ------
        InputError
            This network cannot be compiled.
        """
        raise InputError(f"{type(self).__name__} networks cannot be compiled; leave `compile` out")

    def take_over(self, source: Self, *, energy_head: bool = True) -> None:
        """Copy the weights of another stage's network, which differs at most in the fields of `MAY_DIFFER`.

        Parameters
        ----------
        source
            Network of the same family.
        energy_head
            Whether to copy the energy head too.
        """
        head = {id(parameter) for parameter in source.energy_head.parameters()}
        weights = source.state_dict(keep_vars=True)
        self.copy_weights({name: v.detach() for name, v in weights.items() if energy_head or id(v) not in head})

    def copy_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copy weights by name; those that are not given stay as they are.

        Parameters
        ----------
        weights
            Tensors by their names in the state dict.
        """
        self.load_state_dict({**self.state_dict(), **weights})

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parameters."""
        return next(self.parameters()).dtype

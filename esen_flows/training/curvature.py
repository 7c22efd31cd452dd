"""Loss on the curvature of the energy: products of the Hessian with random directions, against known force constants.

Phonons are decided by second derivatives, which forces of displaced supercells show only where atoms were displaced. A
product with a direction that moves all atoms tests all force constants of a supercell at once. Published fine-tuning on
phonons: arXiv 2601.07742.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor
from torch.overrides import TorchFunctionMode

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.errors import InputError, InsufficientMemoryError
from esen_flows.forcefield.hessian import along
from esen_flows.network.interface import Network
from esen_flows.schemas.keys import array_key, atoms_key, sha256_of
from esen_flows.training.config import TrainingConfig


@dataclass(frozen=True)
class ForceConstants:
    """A supercell at its equilibrium, with all of its force constants.

    Parameters
    ----------
    supercell
        The structure.
    values
        (n, n, 3, 3) second derivatives d2E / dx_ia dx_jb in eV/Angstrom^2, as phonopy orders them.
    source
        sha256 of the files that they were made from, which identifies them: the last digits of the values may differ
        between machines, and a training must go on on another one. None: the values do.
    """

    supercell: Atoms
    values: np.ndarray
    source: str | None = None

    def __post_init__(self) -> None:
        n = len(self.supercell)
        if self.values.shape != (n, n, 3, 3) or not np.isfinite(self.values).all():
            raise InputError(f"force constants of {n} atoms must be finite and of shape {(n, n, 3, 3)}")
        if not self.values.any():  # errors are relative to their size
            raise InputError(f"the force constants of {n} atoms are all zero; give those of a computed crystal")

    @property
    def key(self) -> str:
        """sha256 that identifies them."""
        return self.source or sha256_of([atoms_key(self.supercell), array_key(self.values)])

    def products(self, directions: np.ndarray) -> np.ndarray:
        """Second derivatives along directions.

        Parameters
        ----------
        directions
            (k, n, 3) directions.

        Returns
        -------
        np.ndarray
            (k, n, 3) in eV/Angstrom^2 times the unit of the directions.
        """
        return np.einsum("ijab,kjb->kia", self.values, directions, optimize=True)


@dataclass(frozen=True)
class Curvature:
    """Force constants to train on, beside the structures of a stage.

    Parameters
    ----------
    references
        Supercells with force constants.
    config
        Stage whose settings `curvature_...` and `seed` decide weight, supercells and directions of a step.
    """

    references: Sequence[ForceConstants]
    config: TrainingConfig

    @classmethod
    def of(cls, config: TrainingConfig, references: Sequence[ForceConstants]) -> "Curvature | None":
        """The loss on curvature that a stage asks for.

        Parameters
        ----------
        config
            Settings of the stage.
        references
            Supercells with force constants, possibly none.

        Returns
        -------
        Curvature | None
            The loss; None: the stage has none.

        Raises
        ------
        InputError
            The stage asks for it and there are no force constants, or fewer than it draws in a step, or it does not and
            there are some.
        """
        if bool(config.curvature_weight) != bool(references):
            raise InputError(
                f"curvature_weight is {config.curvature_weight:g}, and {len(references)} supercells with force "
                "constants were given (--phonons PATH): a stage needs both or neither"
            )
        if references and config.curvature_supercells > len(references):
            raise InputError(
                f"curvature_supercells is {config.curvature_supercells}, and force constants of {len(references)} were "
                "given; lower it"
            )
        return cls(references, config) if references else None

    @cached_property
    def key(self) -> str:
        """sha256 of the force constants; the settings are in the stage."""
        return sha256_of([reference.key for reference in self.references])

    def check_elements(self, known: Collection[int]) -> None:
        """Refuse force constants of elements that a training has no energies and forces of.

        Parameters
        ----------
        known
            Atomic numbers of the training.

        Raises
        ------
        InputError
            A supercell has another element.
        """
        for reference in self.references:
            if unknown := sorted(set(reference.supercell.numbers.tolist()) - set(known)):
                raise InputError(
                    f"there are force constants of {reference.supercell.get_chemical_formula()}, and the training has "
                    f"no data with {', '.join(chemical_symbols[z] for z in unknown)}; add such data, or leave these "
                    "force constants out"
                )

    def too_large(self) -> InsufficientMemoryError:
        """The error of a step that does not fit into memory.

        Returns
        -------
        InsufficientMemoryError
            It says what to change.
        """
        largest = max(len(reference.supercell) for reference in self.references)
        return InsufficientMemoryError(
            f"a step on force constants does not fit into memory: supercells have up to {largest} atoms, with "
            f"curvature_directions {self.config.curvature_directions} at once; lower curvature_directions, "
            "give force constants of smaller supercells, or use a device with more memory"
        )

    def terms(self, network: Network, scale_ev: float, step: int, rank: int = 0) -> Iterator[Tensor]:
        """The weighted loss of one step, in parts: mean error of the products, relative to their size.

        Parameters
        ----------
        network
            Network to train.
        scale_ev
            eV of one network unit.
        step
            Number of the step, which decides with the rank the supercells and the directions.
        rank
            Number of the process.

        Yields
        ------
        Tensor
            The part of one supercell, which can be differentiated by the parameters.
        """
        random = np.random.default_rng((self.config.seed, step, rank))
        count = self.config.curvature_supercells
        for index in random.choice(len(self.references), size=count, replace=False):
            reference = self.references[index]
            directions = random.normal(size=(self.config.curvature_directions, len(reference.supercell), 3))
            error = curvature_error(network, reference, directions, scale_ev)
            yield self.config.curvature_weight / count * error


def curvature_error(network: Network, reference: ForceConstants, directions: np.ndarray, scale_ev: float) -> Tensor:
    """Mean 2-norm of the errors of Hessian-vector products over atoms and directions, over that of the products.

    Parameters
    ----------
    network
        Network whose energy is differentiated; its parameters decide precision and device.
    reference
        Supercell with the true force constants.
    directions
        (k, n, 3) directions.
    scale_ev
        eV of one network unit.

    Returns
    -------
    Tensor
        A number that can be differentiated by the parameters.
    """
    parameter, config = next(network.parameters()), network.config
    state = config.charge_and_spin_limits is not None
    graph = Graph.from_atoms(
        reference.supercell,
        config.cutoff_angstrom,
        config.neighbor_limit,
        charge_and_spin=state,
        reverse=config.reads_reverse_edges,
    )
    batch = GraphBatch.collate([graph] * len(directions), dtype=parameter.dtype, device=parameter.device)

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.reshape(-1, 3)).to(parameter)

    with torch.enable_grad(), _ExplicitLayerNorm(), _without_chunks(network):
        vectors = batch.vectors.detach().requires_grad_(True)
        energy = network(batch, vectors=vectors).energy.sum()
        (gradient,) = torch.autograd.grad(energy, vectors, create_graph=True)
        found = along(batch, vectors, gradient, tensor(directions), create_graph=True)
    wanted = reference.products(directions)
    size = float(np.linalg.norm(wanted, axis=-1).mean())
    errors = scale_ev * found - tensor(wanted)
    # A bare square root has an infinite slope at an error of exactly zero.
    return (errors.square().sum(dim=1) + 1e-16).sqrt().mean() / size


@contextmanager
def _without_chunks(network: Network) -> Iterator[None]:
    """Keep all messages in memory: those that are computed again have no third derivatives."""
    before, network.edges_per_chunk = network.edges_per_chunk, None
    try:
        yield
    finally:
        network.edges_per_chunk = before


class _ExplicitLayerNorm(TorchFunctionMode):
    """Layer norms as elementary operations.

    Third derivatives of torch's own layer norm (2.13) are wrong without a word: gradients of a Hessian-vector product
    by the weights before it were up to 50 % off finite differences.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.layer_norm:
            return _layer_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    dims = tuple(range(-len(shape), 0))
    centred = x - x.mean(dim=dims, keepdim=True)
    found = centred * (centred.square().mean(dim=dims, keepdim=True) + eps).rsqrt()
    found = found if weight is None else found * weight
    return found if bias is None else found + bias

"""Loss on the asymmetry of the Jacobian of direct forces, tested in random directions.

Forces that are the gradient of an energy have a symmetric Jacobian J = dF/dx. For random directions u and v the number
v J u - u J v is zero for a symmetric Jacobian, and the mean of its square over Gaussian directions is the squared norm
of J - J^T. It takes two products J^T v, each a gradient by the edge vectors, and never the Jacobian itself.
"""

import numpy as np
import torch
from torch import Tensor

from esen_flows.network.gradients import gradients_without_parameters
from esen_flows.training.config import TrainingConfig
from esen_flows.training.frames import LabelledBatch

_DIRECTIONS = 3  # stream of the seed, beside those of `denoising`


def draw_directions(config: TrainingConfig, epoch: int, batch: int, place: int, n_atoms: int) -> np.ndarray:
    """Draw the two directions in which the Jacobian of one structure is tested.

    Parameters
    ----------
    config
        Settings of the stage, with its seed.
    epoch, batch, place
        Numbers of the epoch, of the batch in it, and of the structure in the batch.
    n_atoms
        Atoms of the structure.

    Returns
    -------
    np.ndarray
        (n, 2, 3) Gaussian numbers, without dimension.
    """
    return np.random.default_rng([config.seed, epoch, batch, _DIRECTIONS, place]).standard_normal((n_atoms, 2, 3))


def asymmetry_term(forces: Tensor, vectors: Tensor, batch: LabelledBatch, systems: float) -> Tensor:
    """Mean over the structures of abs(v J u - u J v) / sqrt(3 n), without its coefficient.

    The division by the root of the number of coordinates makes it the size of a row of J - J^T, which does not grow
    with the structure.

    Parameters
    ----------
    forces
        (atoms, 3) forces in network units, with their graph.
    vectors
        (edges, 3) edge vectors in Angstrom, of which the forces are a function.
    batch
        Structures with their directions.
    systems
        Structures of the whole batch, where `batch` is a part of it.

    Returns
    -------
    Tensor
        A number in network units per Angstrom that can be differentiated by the parameters.
    """
    products = jacobian_products(forces, vectors, batch)
    return ((products[:, 0] - products[:, 1]).abs() / (3 * batch.n_atoms).sqrt()).sum() / systems


def jacobian_products(forces: Tensor, vectors: Tensor, batch: LabelledBatch) -> Tensor:
    """Products v J u and u J v of every structure with its directions u and v.

    Parameters
    ----------
    forces, vectors, batch
        As in `asymmetry_term`.

    Returns
    -------
    Tensor
        (systems, 2) in network units per Angstrom.

    Raises
    ------
    ValueError
        The batch has no directions.
    """
    if batch.directions is None:
        raise ValueError("the batch has no directions; draw them by draw_directions")
    graph = batch.graph
    first, second = batch.directions.unbind(dim=1)
    found = []
    for left, right in ((second, first), (first, second)):
        with gradients_without_parameters():
            (gradient,) = torch.autograd.grad((forces * left).sum(), vectors, create_graph=True)
        along = right.index_select(0, graph.source) - right.index_select(0, graph.target)
        per_edge = (gradient * along).sum(dim=1)
        found.append(per_edge.new_zeros(graph.n_systems).index_add(0, graph.edge_system, per_edge))
    return torch.stack(found, dim=1)

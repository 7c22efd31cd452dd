"""Hessian-vector products of a network: the gradient of the energy, differentiated once more along directions."""

import numpy as np
import torch
from torch import Tensor

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.network.interface import Network

# Copies of a small structure are computed together up to about this many edges. On a CPU (measured: 8 atoms of silicon)
# 1,000 to 2,000 edges cost 0.7 of one copy at a time, and more do not fit into the caches. A GPU needs more work.
EDGES_PER_PASS = {"cpu": 1536, "cuda": 65536}
# Memory of a gradient that can be differentiated, in units of a force call by the modules. Measured (3.2M, float64,
# 216 atoms of silicon): 722 kB per edge, where `memory` expects 263 kB for a force call.
MEMORY_OF_FORCE_CALLS = 3


def hessian_vector_products(
    network: Network,
    graph: Graph,
    directions: np.ndarray,
    *,
    dtype: torch.dtype,
    device: torch.device,
    max_edges: int,
) -> np.ndarray:
    """Second derivatives of the network's energy along directions, exact to rounding.

    The whole geometry enters through the edge vectors v = r_source - r_target. With g = dE/dv the product is therefore
    the derivative of g along the differences of the direction over the edges, summed onto the atoms as forces are. The
    gradient is built once, for as many copies of the structure as fill the device, and is used for every group of that
    many directions: a group costs one more backward pass through it. A structure of more than `max_edges` is computed
    in chunks of edges instead, and these again for every group.

    Parameters
    ----------
    network
        Network to differentiate.
    graph
        Graph of one structure.
    directions
        (k, atoms, 3).
    dtype
        Precision of the arithmetic.
    device
        torch device of the network.
    max_edges
        Number of edges of a chunk that fits into memory in a force call by the modules; a third of them fits here.

    Returns
    -------
    np.ndarray
        (k, atoms, 3) float64 in network units per Angstrom^2, times the unit of `directions`.
    """
    if len(directions) == 0 or len(graph.source) == 0:
        return np.zeros(directions.shape)
    network.edges_per_chunk = max(1, max_edges // MEMORY_OF_FORCE_CALLS)
    edges_per_pass = min(network.edges_per_chunk, EDGES_PER_PASS.get(device.type, EDGES_PER_PASS["cpu"]))
    n_groups = -(-len(directions) // max(1, edges_per_pass // len(graph.source)))
    copies = -(-len(directions) // n_groups)
    batch = GraphBatch.collate([graph] * copies, dtype=dtype, device=device)
    padded = np.zeros((n_groups * copies, *directions.shape[1:]))
    padded[: len(directions)] = directions
    groups = torch.from_numpy(padded).to(device=device, dtype=dtype).view(n_groups, -1, 3)
    with torch.enable_grad():
        vectors = batch.vectors.detach().requires_grad_(True)
        energy = network(batch, vectors=vectors).energy.sum()
        (gradient,) = torch.autograd.grad(energy, vectors, create_graph=True)
        products = [
            along(batch, vectors, gradient, group, keep=index < n_groups - 1) for index, group in enumerate(groups)
        ]
    joined = torch.cat(products).double().cpu().numpy()
    return joined.reshape(padded.shape)[: len(directions)]


def along(
    batch: GraphBatch,
    vectors: Tensor,
    gradient: Tensor,
    direction: Tensor,
    *,
    keep: bool = False,
    create_graph: bool = False,
) -> Tensor:
    """Derivative of a gradient by the edge vectors along a direction, summed onto the atoms.

    Parameters
    ----------
    batch
        Structures.
    vectors
        (edges, 3) edge vectors, by which the energy was differentiated.
    gradient
        (edges, 3) gradient of the energy, with its graph.
    direction
        (atoms, 3) direction.
    keep
        Whether the graph of the gradient stays, for another direction.
    create_graph
        Whether the result can be differentiated.

    Returns
    -------
    Tensor
        (atoms, 3) in the unit of the gradient times that of the direction, per Angstrom.
    """
    weights = direction.index_select(0, batch.source) - direction.index_select(0, batch.target)
    (product,) = torch.autograd.grad(
        gradient, vectors, weights, retain_graph=keep or create_graph, create_graph=create_graph
    )
    result = product.new_zeros(direction.shape).index_add(0, batch.source, product)
    return result.index_add(0, batch.target, -product)

"""Forces and stress as derivatives of the energy, through the edge vectors.

All of the geometry enters through the edge vectors, so that one gradient with respect to them gives both: forces by
summing over edges, the virial as the sum of v outer dE/dv, without strained copies of positions and cells.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from esen_flows.data.batch import GraphBatch
from esen_flows.network.esen import ESEN


@dataclass(frozen=True)
class EnergyForcesStress:
    """Network units.

    Attributes
    ----------
    energy : (systems,) float64.
    node_energy : (atoms,).
    forces : (atoms, 3) = -dE/dx.
    stress : (systems, 3, 3) = dE/dstrain / volume; NaN for systems without a volume.
    """

    energy: Tensor
    node_energy: Tensor
    forces: Tensor
    stress: Tensor


def energy_forces_stress(network: ESEN, graph: GraphBatch, *, create_graph: bool = False) -> EnergyForcesStress:
    """Energy, forces and stress of a batch; `create_graph` keeps them differentiable for training."""
    with torch.enable_grad():
        vectors = graph.vectors.detach().requires_grad_(True)
        output = network(graph, vectors=vectors)
        (gradient,) = torch.autograd.grad(output.energy.sum(), vectors, create_graph=create_graph)
    n_atoms = graph.numbers.shape[0]
    # v = r_source - r_target: the source is pulled along -dE/dv, the target along +dE/dv.
    forces = gradient.new_zeros(n_atoms, 3).index_add(0, graph.target, gradient)
    forces = forces.index_add(0, graph.source, -gradient)
    outer = graph.vectors.unsqueeze(2) * gradient.unsqueeze(1)
    virial = gradient.new_zeros(graph.n_systems, 3, 3).index_add(0, graph.edge_system, outer)
    virial = 0.5 * (virial + virial.transpose(1, 2))
    energy, node_energy = output.energy, output.node_energy
    if not create_graph:
        energy, node_energy = energy.detach(), node_energy.detach()
    return EnergyForcesStress(energy, node_energy, forces, virial / graph.volume.view(-1, 1, 1))

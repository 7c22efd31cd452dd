"""Energy, forces and stress of a batch: derivatives of the energy, or the outputs of direct heads.

All geometry enters the network through the edge vectors v, so that one gradient dE/dv gives everything: forces are
its sums over edges, and the virial is the sum over edges of v outer dE/dv. No strained copy of positions and cells is
needed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from esen_flows.data.batch import GraphBatch
from esen_flows.network.gradients import gradients_without_parameters
from esen_flows.network.interface import Network, NetworkOutput
from esen_flows.schemas.declarations import ForceKind


@dataclass(frozen=True)
class DirectOutputs:
    """Forces and stress of direct heads beside those that are derivatives of the energy, in network units.

    Attributes
    ----------
    forces
        (atoms, 3) output of the force head.
    stress
        (systems, 3, 3) output of the stress head. NaN for systems that are not periodic along three vectors, and for
        all systems where there is no stress head.
    """

    forces: Tensor
    stress: Tensor


@dataclass(frozen=True)
class EnergyForcesStress:
    """Energy, forces and stress of a batch, in network units.

    Attributes
    ----------
    energy
        (systems,) float64.
    node_energy
        (atoms,) contributions to the energy.
    forces
        (atoms, 3), -dE/dx or the output of the direct head.
    stress
        (systems, 3, 3), dE/dstrain / volume or the output of the direct head. NaN for systems that are not
        periodic along three vectors, and for all systems where a direct-force model has no stress head.
    embedding
        (atoms, ...) features of the atoms after the last layer.
    noise
        (atoms, 3) output of the denoising head in units of the noise's standard deviation, or None.
    direct
        Outputs of the direct heads of a network with both kinds of forces, where they were asked for.
    """

    energy: Tensor
    node_energy: Tensor
    forces: Tensor
    stress: Tensor
    embedding: Tensor | None = None
    noise: Tensor | None = None
    direct: DirectOutputs | None = None


def energy_forces_stress(
    network: Network,
    graph: GraphBatch,
    *,
    create_graph: bool = False,
    noised_forces: Tensor | None = None,
    kind: ForceKind | None = None,
    vectors: Tensor | None = None,
) -> EnergyForcesStress:
    """Energy, forces and stress of a batch.

    Parameters
    ----------
    network
        Network to evaluate.
    graph
        Batch of structures on the device of the network.
    create_graph
        Whether the results stay differentiable, for training.
    noised_forces
        (atoms, 3) inputs of direct denoising networks, as in `Network.forward`.
    kind
        Which forces and stress of a network with both kinds to compute: "direct" needs no derivative. None: the
        derivatives, and the outputs of the direct heads besides.
    vectors
        (edges, 3) edge vectors in Angstrom, by which the caller differentiates the results; None: those of the graph.

    Returns
    -------
    EnergyForcesStress
        The results, detached unless `create_graph` is set.
    """
    if not network.config.conservative or kind == "direct":
        with torch.set_grad_enabled(create_graph):
            return _from_direct_heads(network(graph, vectors=vectors, noised_forces=noised_forces), graph)
    with torch.enable_grad():
        if vectors is None:
            vectors = graph.vectors.detach().requires_grad_(True)
        output = network(graph, vectors=vectors, heads=kind is None)
        with gradients_without_parameters():
            (gradient,) = torch.autograd.grad(output.energy.sum(), vectors, create_graph=create_graph)
    n_atoms = graph.numbers.shape[0]
    # v = r_source - r_target: the force on the source is -dE/dv, that on the target +dE/dv.
    forces = gradient.new_zeros(n_atoms, 3).index_add(0, graph.target, gradient)
    forces = forces.index_add(0, graph.source, -gradient)
    # Contributions of the edges nearly cancel, so that a float32 sum would add an error larger than theirs.
    outer = (graph.vectors.unsqueeze(2) * gradient.unsqueeze(1)).double()
    virial = outer.new_zeros(graph.n_systems, 3, 3).index_add(0, graph.edge_system, outer)
    virial = (0.5 * (virial + virial.transpose(1, 2))).to(gradient.dtype)
    results = (output.energy, output.node_energy, output.node_embedding)
    energy, node_energy, embedding = results if create_graph else (value.detach() for value in results)
    direct = None
    if output.forces is not None:
        heads = (output.forces, _direct_stress(output, graph))
        direct = DirectOutputs(*(heads if create_graph else (value.detach() for value in heads)))
    return EnergyForcesStress(energy, node_energy, forces, _over_volume(virial, graph), embedding, direct=direct)


def _over_volume(virial: Tensor, graph: GraphBatch) -> Tensor:
    """Virial / volume (systems, 3, 3), NaN without a volume."""
    # Dividing by a NaN volume would make the gradient NaN even where no loss reads the stress.
    volume = graph.volume.view(-1, 1, 1)
    has_volume = torch.isfinite(volume)
    return torch.where(has_volume, virial / torch.where(has_volume, volume, 1.0), float("nan"))


def _from_direct_heads(output: NetworkOutput, graph: GraphBatch) -> EnergyForcesStress:
    assert output.forces is not None
    stress = _direct_stress(output, graph)
    return EnergyForcesStress(
        output.energy, output.node_energy, output.forces, stress, output.node_embedding, output.noise
    )


def _direct_stress(output: NetworkOutput, graph: GraphBatch) -> Tensor:
    """(systems, 3, 3) output of the stress head; NaN without a head, and for systems without a volume."""
    if output.stress is None:
        return output.energy.new_full((graph.n_systems, 3, 3), float("nan"), dtype=output.node_energy.dtype)
    return torch.where(torch.isfinite(graph.volume).view(-1, 1, 1), output.stress, float("nan"))

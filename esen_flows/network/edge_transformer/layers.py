"""Layers of an edge transformer: attention among an atom and its edges, gated MLPs, and heads.

All attention is made of plain matrix products and a softmax, because fused attention has no second derivatives.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from esen_flows.network.edge_transformer.config import EdgeTransformerConfig


@dataclass(frozen=True)
class Neighborhood:
    """Edges of a batch, and where they stand in a table of atoms x (the atom itself, its edges).

    Attributes
    ----------
    source
        (edges,) neighbour at the end of each edge.
    target
        (edges,) atom whose neighbour it is, ascending.
    reverse
        (edges,) index of the reverse edge.
    switch
        (edges,) weights from 1 to 0, with which neighbours fade out at the cutoff.
    shape
        (edges, 4) edge vector and its length in Angstrom.
    place
        (atoms + edges,) place of each token in the flattened table: atoms first, then edges.
    bias
        (atoms, 1, 1, columns) logarithm of the weight of each token; -inf in empty places.
    """

    source: Tensor
    target: Tensor
    reverse: Tensor
    switch: Tensor
    shape: Tensor
    place: Tensor
    bias: Tensor

    @classmethod
    def of(
        cls, source: Tensor, target: Tensor, reverse: Tensor, vectors: Tensor, log_switch: Tensor, n_atoms: int
    ) -> "Neighborhood":
        """Neighbourhoods from edges.

        Parameters
        ----------
        source, target, reverse
            (edges,) as for the attributes.
        vectors
            (edges, 3) edge vectors in Angstrom.
        log_switch
            (edges,) logarithm of the weights.
        n_atoms
            Number of atoms.

        Returns
        -------
        Neighborhood
            The neighbourhoods.
        """
        counts = torch.bincount(target, minlength=n_atoms)
        columns = 1 + int(counts.max())
        first = torch.cumsum(counts, 0) - counts
        atoms = torch.arange(n_atoms, device=target.device)
        slots = target * columns + 1 + torch.arange(len(target), device=target.device) - first[target]
        place = torch.cat((atoms * columns, slots))
        bias = vectors.new_full((n_atoms * columns,), -torch.inf)
        bias = bias.index_copy(0, place, torch.cat((vectors.new_zeros(n_atoms), log_switch)))
        shape = torch.cat((vectors, torch.linalg.vector_norm(vectors, dim=1, keepdim=True)), dim=1)
        table = bias.view(n_atoms, 1, 1, columns)
        return cls(source, target, reverse, log_switch.exp(), shape, place, table)

    def table(self, tokens: Tensor) -> Tensor:
        """Tokens in the places of the table.

        Parameters
        ----------
        tokens
            (atoms + edges, channels).

        Returns
        -------
        Tensor
            (atoms, columns, channels), zero in empty places.
        """
        atoms, columns = self.bias.shape[0], self.bias.shape[-1]
        empty = tokens.new_zeros(atoms * columns, tokens.shape[1])
        return empty.index_copy(0, self.place, tokens).view(atoms, columns, -1)


class GatedMLP(nn.Module):
    """Linear layer with a gate, value * sigmoid(gate), followed by a linear layer.

    Parameters
    ----------
    width
        Width of inputs and outputs.
    hidden
        Width of the gated values.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expansion = nn.Linear(width, 2 * hidden)
        self.contraction = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for features.

        Parameters
        ----------
        x
            (tokens, width).

        Returns
        -------
        Tensor
            (tokens, width).
        """
        value, gate = self.expansion(x).chunk(2, dim=1)
        result: Tensor = self.contraction(value * torch.sigmoid(gate))
        return result


class AttentionLayer(nn.Module):
    """Attention among each atom and its edges, then a gated MLP on every token, both behind an RMS norm.

    Parameters
    ----------
    config
        Sizes of the network.
    """

    def __init__(self, config: EdgeTransformerConfig) -> None:
        super().__init__()
        d, wide = config.width, config.node_width
        self.heads = config.num_heads
        self.to_edge_width, self.to_node_width = nn.Linear(wide, d), nn.Linear(d, wide)
        self.attention_norm, self.edge_norm, self.node_norm = nn.RMSNorm(d), nn.RMSNorm(d), nn.RMSNorm(wide)
        self.qkv, self.projection = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.edge_mlp, self.node_mlp = GatedMLP(d, 2 * d), GatedMLP(wide, 2 * wide)

    def forward(self, nodes: Tensor, edges: Tensor, around: Neighborhood) -> tuple[Tensor, Tensor]:
        """Tokens after the layer.

        Parameters
        ----------
        nodes
            (atoms, node width) tokens of atoms.
        edges
            (edges, width) tokens of edges.
        around
            The neighbourhoods.

        Returns
        -------
        tuple[Tensor, Tensor]
            Tokens of atoms and of edges, of the same shapes.
        """
        tokens = self.attention_norm(torch.cat((self.to_edge_width(nodes), edges)))
        mixed = self.projection(self._attend(self.qkv(tokens), around))
        nodes = nodes + self.to_node_width(mixed[: len(nodes)])
        edges = edges + mixed[len(nodes) :]
        return nodes + self.node_mlp(self.node_norm(nodes)), edges + self.edge_mlp(self.edge_norm(edges))

    def _attend(self, qkv: Tensor, around: Neighborhood) -> Tensor:
        """(atoms + edges, width) from (atoms + edges, 3 width); neighbours count with the weight of their switch."""
        table = around.table(qkv)
        atoms, columns = table.shape[:2]
        query, key, value = table.view(atoms, columns, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        logits = query @ key.transpose(2, 3) / sqrt(query.shape[3])
        mixed = torch.softmax(logits + around.bias, dim=3) @ value
        return mixed.transpose(1, 2).reshape(atoms * columns, -1)[around.place]


class GNNLayer(nn.Module):
    """Tokens of edges from geometry, species and messages, attention layers, and new messages to reverse edges.

    Parameters
    ----------
    config
        Sizes of the network.
    first
        Whether this is the first layer, whose messages are the species of the neighbours.
    """

    def __init__(self, config: EdgeTransformerConfig, *, first: bool) -> None:
        super().__init__()
        d = config.width
        self.geometry = nn.Linear(4, d)
        self.embedding = _mlp((2 if first else 3) * d, d, d)
        self.attention = nn.ModuleList(AttentionLayer(config) for _ in range(config.num_attention_layers))
        self.message_norm, self.message = nn.LayerNorm(2 * d), _mlp(2 * d, 2 * d, d)

    def forward(
        self, nodes: Tensor, messages: Tensor, species: Tensor | None, around: Neighborhood
    ) -> tuple[Tensor, Tensor]:
        """Tokens of atoms, and messages, after the layer.

        Parameters
        ----------
        nodes
            (atoms, node width) tokens of atoms.
        messages
            (edges, width) messages.
        species
            (edges, width) embedding of the neighbour's species; None in the first layer.
        around
            The neighbourhoods.

        Returns
        -------
        tuple[Tensor, Tensor]
            Tokens and messages, of the same shapes.
        """
        inputs = [self.geometry(around.shape), messages] + ([] if species is None else [species])
        edges = self.embedding(torch.cat(inputs, dim=1))
        for layer in self.attention:
            nodes, edges = layer(nodes, edges, around)
        both = torch.cat((edges, edges[around.reverse]), dim=1)
        return nodes, messages + edges + self.message(self.message_norm(both))


@dataclass(frozen=True)
class Features:
    """What heads read.

    Attributes
    ----------
    nodes
        (atoms, node width) tokens of atoms.
    messages
        (edges, width) messages after the last layer.
    around
        The neighbourhoods.
    """

    nodes: Tensor
    messages: Tensor
    around: Neighborhood


class Readout(nn.Module):
    """Hidden features of a head: an MLP on the atom, and the weighted sum over its edges of an MLP on each.

    Parameters
    ----------
    config
        Sizes of the network.
    """

    def __init__(self, config: EdgeTransformerConfig) -> None:
        super().__init__()
        d = config.width
        self.nodes = nn.Sequential(*_mlp(config.node_width, d, d), nn.SiLU())
        self.edges = nn.Sequential(*_mlp(d, d, d), nn.SiLU())

    def forward(self, features: Features) -> Tensor:
        """Hidden features of each atom.

        Parameters
        ----------
        features
            Features after the last layer.

        Returns
        -------
        Tensor
            (atoms, 2 width).
        """
        around = features.around
        nodes = self.nodes(features.nodes)
        edges = self.edges(features.messages) * around.switch.unsqueeze(1)
        return torch.cat((nodes, torch.zeros_like(nodes).index_add(0, around.target, edges)), dim=1)


def head(config: EdgeTransformerConfig, outputs: int) -> nn.Sequential:
    """Layers from `Features` to outputs of each atom; the last one is linear.

    Parameters
    ----------
    config
        Sizes of the network.
    outputs
        Number of outputs of an atom.

    Returns
    -------
    nn.Sequential
        The layers.
    """
    return nn.Sequential(Readout(config), nn.Linear(2 * config.width, outputs))


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))

"""Messages of networks in training on CPUs: the results of `Layer.messages`, by differentiable compiled kernels."""

import torch
from torch import Tensor

from esen_flows.native import Functions
from esen_flows.network.backends import plain
from esen_flows.network.backends.cpu.column_products import multiply_columns
from esen_flows.network.backends.cpu.differentiable import EdgeList, gate, gather_rotate, rotate_back
from esen_flows.network.backends.cpu.native import MAX_LMAX, kernels
from esen_flows.network.backends.plain import EdgePart
from esen_flows.network.esen.edges import EdgeGeometry
from esen_flows.network.esen.layers import Layer
from esen_flows.network.esen.so2 import Columns, EdgeBlock, GateActivation


def message_sum(part: EdgePart, x: Tensor, edges: EdgeGeometry, first_atom: int, n_atoms: int) -> Tensor:
    """Sums of the messages of one part at their targets, by compiled kernels where these apply.

    Parameters
    ----------
    part
        Part of the network.
    x
        (atoms, coefficients, channels) normed node features.
    edges
        The edges.
    first_atom, n_atoms
        Range of atoms that contains all targets.

    Returns
    -------
    Tensor
        (n_atoms, coefficients, channels).
    """
    if isinstance(part, Layer):
        total = sum_by_kernels(part.edge_wise, x, edges, first_atom, n_atoms)
        if total is not None:
            return total
    return plain.message_sum(part, x, edges, first_atom, n_atoms)


def sum_by_kernels(block: EdgeBlock, x: Tensor, geometry: EdgeGeometry, first_atom: int, n_atoms: int) -> Tensor | None:
    """Sums of the messages of one layer at their targets, by compiled kernels.

    Parameters
    ----------
    block
        Edge block of the layer.
    x
        (atoms, coefficients, channels) normed node features.
    geometry
        The edges.
    first_atom, n_atoms
        Range of atoms that contains all targets.

    Returns
    -------
    Tensor | None
        (n_atoms, coefficients, channels). None where the kernels do not apply: they are for gate activations on CPUs,
        float32 and float64, edges sorted by target, and neither for autocast nor for compiled graphs.
    """
    one, two = block.so2_conv_1, block.so2_conv_2
    kernel = _kernels(block, x, geometry)
    if kernel is None or not geometry.sorted_by_target:
        return None
    ends = (geometry.source, geometry.target)
    edges = EdgeList(kernel, one.lmax, one.mmax, *ends, geometry.by_source, first_atom, n_atoms)
    modulation = one.rad_func(geometry.basis, geometry.species, ends)
    rotated = gather_rotate(edges, x, geometry.rotation, modulation)
    hidden = multiply_columns(Columns.of(one), rotated, one.fc_m0.bias, one.matrices())
    values = multiply_columns(Columns.of(two), gate(edges, hidden, one.out_channels), two.fc_m0.bias, two.matrices())
    return rotate_back(edges, values, geometry.weighted_rotation)


def _kernels(block: EdgeBlock, x: Tensor, geometry: EdgeGeometry) -> Functions | None:
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return None
    if block.so2_conv_1.lmax > MAX_LMAX or not isinstance(block.activation, GateActivation):
        return None
    return kernels(x.dtype) if x.dtype == geometry.rotation.dtype else None

"""SO(2) convolutions commute with rotations about the edge."""

import math

import pytest
import torch

from esen_flows.network.esen.config import ESENConfig
from esen_flows.network.esen.harmonics import reduced_order
from esen_flows.network.esen.so2 import EdgeBlock, SO2Convolution, part_sizes

LMAX, MMAX = 3, 2


def roll(angle):
    """Rotation about the edge in m-major order: +m and -m mix with angle m * angle."""
    order = reduced_order(LMAX, MMAX)
    matrix = torch.zeros(len(order), len(order), dtype=torch.float64)
    for row, (degree, m) in enumerate(order):
        matrix[row, order.index((degree, m))] = math.cos(m * angle)
        if m:
            matrix[row, order.index((degree, -m))] = -math.sin(m * angle)
    return matrix


@pytest.mark.parametrize("weights", ["complex", "real"])
def test_convolution_and_gate_commute_with_a_roll(weights):
    torch.manual_seed(0)
    config = ESENConfig(
        lmax=LMAX, mmax=MMAX, sphere_channels=4, hidden_channels=6, edge_channels=5, so2_weights=weights
    )
    block = EdgeBlock(config).double()
    x = torch.randn(3, len(reduced_order(LMAX, MMAX)), 8, dtype=torch.float64)
    modulation = torch.randn(3, sum(LMAX + 1 - m for m in range(MMAX + 1)) * 8, dtype=torch.float64)

    def messages(features):
        parts, scalars = block.so2_conv_1(list(features.split(part_sizes(LMAX, MMAX), dim=1)), modulation)
        return torch.cat(block.so2_conv_2(block.activation(parts, scalars))[0], dim=1)

    turn = roll(0.7)
    with torch.no_grad():
        assert torch.allclose(messages(turn @ x), turn @ messages(x), atol=1e-12)


def test_extra_outputs_are_scalars():
    convolution = SO2Convolution(LMAX, MMAX, 4, 6, extra_outputs=9).double()
    x = torch.randn(3, len(reduced_order(LMAX, MMAX)), 4, dtype=torch.float64)
    with torch.no_grad():
        _, plain = convolution(list(x.split(part_sizes(LMAX, MMAX), dim=1)))
        _, rolled = convolution(list((roll(1.1) @ x).split(part_sizes(LMAX, MMAX), dim=1)))
    assert plain.shape == (3, 9)
    assert torch.allclose(plain, rolled, atol=1e-12)


def test_real_weights_keep_mirror_images_apart_and_complex_ones_mix_them():
    """A mirror through the edge changes the sign of every -m coefficient."""
    sign = torch.tensor([-1.0 if m < 0 else 1.0 for _, m in reduced_order(LMAX, MMAX)], dtype=torch.float64)
    for weights, exact in (("real", True), ("complex", False)):
        torch.manual_seed(0)
        convolution = SO2Convolution(LMAX, MMAX, 4, 6, weights=weights).double()
        x = torch.randn(3, len(sign), 4, dtype=torch.float64)

        def outputs(features, convolution=convolution):
            return torch.cat(convolution(list(features.split(part_sizes(LMAX, MMAX), dim=1)))[0], dim=1)

        with torch.no_grad():
            error = (outputs(sign.view(-1, 1) * x) - sign.view(-1, 1) * outputs(x)).abs().max()
        assert (float(error) < 1e-13) == exact

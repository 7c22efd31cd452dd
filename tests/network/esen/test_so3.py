"""Harmonics, Wigner matrices and frames against e3nn's published formulas and against group theory."""

import numpy as np
import pytest
import torch

from esen_flows.network.esen.harmonics import raising_isometry, reduced_order, spherical_harmonics
from esen_flows.network.esen.norms import LayerNormPerDegree, LayerNormSH, RMSNormSH
from esen_flows.network.esen.so3 import EdgeRotation, NodeBlock, edge_frames, solid_harmonics


def unit_vectors(n=50, seed=0):
    v = np.random.default_rng(seed).normal(size=(n, 3))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def test_degrees_one_and_two_are_the_e3nn_polynomials():
    x, y, z = unit_vectors().T
    assert np.allclose(spherical_harmonics(1, unit_vectors()), np.stack([x, y, z], axis=1), atol=1e-15)
    second = np.stack(
        [3**0.5 * x * z, 3**0.5 * x * y, y**2 - (x**2 + z**2) / 2, 3**0.5 * y * z, 3**0.5 / 2 * (z**2 - x**2)], axis=1
    )
    assert np.allclose(spherical_harmonics(2, unit_vectors()), second, atol=1e-14)


@pytest.mark.parametrize("degree", [2, 3, 4, 6])
def test_the_raising_isometry_has_orthonormal_rows(degree):
    rows = raising_isometry(degree)
    assert np.allclose(rows @ rows.T, np.eye(2 * degree + 1), atol=1e-12)


@pytest.mark.parametrize(("lmax", "mmax"), [(2, 2), (3, 2), (4, 4)])
def test_rotations_turn_harmonics_into_the_edge_frame(lmax, mmax):
    frames = edge_frames(torch.from_numpy(unit_vectors(20)))
    rotation = EdgeRotation(lmax, mmax).double()(frames).numpy()
    points = unit_vectors(20, seed=5)
    turned = np.einsum("eij,ej->ei", frames.numpy(), points)
    before = np.concatenate([spherical_harmonics(degree, points) for degree in range(lmax + 1)], axis=1)
    after = {degree: spherical_harmonics(degree, turned) for degree in range(lmax + 1)}
    expected = np.stack([after[degree][:, degree + m] for degree, m in reduced_order(lmax, mmax)], axis=1)
    assert np.allclose(np.einsum("ers,es->er", rotation, before), expected, atol=1e-12)


def test_solid_harmonics_are_harmonics_times_a_power_of_the_length():
    points = unit_vectors(10)
    parts = solid_harmonics(torch.from_numpy(1.7 * points), 4)
    for degree, part in enumerate(parts):
        assert np.allclose(part.numpy(), 1.7**degree * spherical_harmonics(degree, points), atol=1e-12)
    assert [float(part.abs().sum()) for part in solid_harmonics(torch.zeros(1, 3), 2)] == [1.0, 0.0, 0.0]


def test_frames_are_proper_rotations_to_y_everywhere_poles_included():
    poles = np.array([[0, 1, 0], [0, -1, 0], [1e-9, -1, 0], [1, 0, 0], [0, 0, -1.0]])
    n = torch.from_numpy(np.concatenate([unit_vectors(100), poles / np.linalg.norm(poles, axis=1, keepdims=True)]))
    frames = edge_frames(n)
    y = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).expand_as(n)
    assert torch.allclose(torch.einsum("eij,ej->ei", frames, n), y, atol=1e-14)
    assert torch.allclose(frames @ frames.transpose(1, 2), torch.eye(3, dtype=torch.float64), atol=1e-14)
    assert torch.allclose(torch.linalg.det(frames), torch.ones(len(n), dtype=torch.float64), atol=1e-14)


def test_frame_derivatives_are_finite_and_right_at_the_poles():
    n = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [0.6, -0.8, 0.0]], dtype=torch.float64, requires_grad=True)
    rotation = EdgeRotation(2, 2).double()
    assert torch.autograd.gradcheck(lambda v: rotation(edge_frames(v)), (n,))
    assert torch.autograd.gradgradcheck(lambda v: rotation(edge_frames(v)), (n,))


@pytest.mark.parametrize("block", [RMSNormSH(3, 8), LayerNormSH(3, 8), LayerNormPerDegree(3, 8), NodeBlock(3, 8, 12)])
def test_node_operations_commute_with_rotations(block):
    block = block.double()
    frame = edge_frames(torch.from_numpy(unit_vectors(1, seed=2)))
    rows = EdgeRotation(3, 3).double()(frame)[0]
    order = [degree * degree + degree + m for degree, m in reduced_order(3, 3)]
    wigner = torch.empty_like(rows)
    wigner[order] = rows
    x = torch.randn(5, 16, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rotated_first = block(torch.einsum("st,ntc->nsc", wigner, x))
        rotated_last = torch.einsum("st,ntc->nsc", wigner, block(x))
    assert torch.allclose(rotated_first, rotated_last, atol=1e-12)

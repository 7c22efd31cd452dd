"""Basis and envelope."""

import torch

from esen_flows.network.esen.radial import GaussianBasis, envelope


def test_envelope_and_two_derivatives_vanish_at_the_cutoff():
    d = torch.tensor([5.0 - 1e-9], dtype=torch.float64, requires_grad=True)
    value = envelope(d, 5.0)
    (first,) = torch.autograd.grad(value.sum(), d, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), d)
    assert abs(float(value.detach())) < 1e-15
    assert abs(float(first.detach())) < 1e-14
    assert abs(float(second)) < 1e-7
    assert float(envelope(torch.tensor([0.0]), 5.0)) == 1.0
    assert float(envelope(torch.tensor([5.1]), 5.0)) == 0.0


def test_gaussians_peak_at_their_centres_with_twice_the_spacing_as_width():
    basis = GaussianBasis(10, 6.0).double()
    values = basis(basis.get_buffer("offset"))
    assert torch.equal(values.diagonal(), torch.ones(10, dtype=torch.float64))
    spacing_over_width = 0.5
    assert abs(float(values[0, 1]) - torch.exp(torch.tensor(-0.5 * spacing_over_width**2)).item()) < 1e-6

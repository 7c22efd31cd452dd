"""Loss on curvature: its value, its gradient against finite differences, and that training on it stiffens a crystal."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from ase.build import bulk
from stages import argon_data, stage

from esen_flows.errors import InputError
from esen_flows.forcefield.checkpoint import Checkpoint, load
from esen_flows.forcefield.families import make_network
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.training.curvature import Curvature, ForceConstants, curvature_error
from esen_flows.training.train import train


@pytest.fixture(name="network", scope="module")
def _network():
    torch.manual_seed(0)
    return make_network(stage().network).double()


def force_field(network) -> NetworkForceField:
    # A copy, because a force field freezes its parameters.
    return NetworkForceField(Checkpoint(deepcopy(network), 2.0, {18: 0.0}, (18,)), label="tiny")


def of(network, factor: float = 1.0) -> ForceConstants:
    """Force constants of the network itself at a rattled cell, times a factor."""
    atoms = bulk("Ar", a=5.3, cubic=True)
    atoms.rattle(0.1, seed=1)
    return ForceConstants(atoms, factor * force_field(network).hessian(atoms))


def value(*arguments) -> float:
    return float(curvature_error(*arguments).detach())


def test_the_error_is_relative_and_zero_for_the_networks_own_force_constants(network):
    directions = np.random.default_rng(0).normal(size=(2, 4, 3))
    assert value(network, of(network), directions, 2.0) < 1e-6
    assert value(network, of(network, 2.0), directions, 2.0) == pytest.approx(0.5, abs=1e-6)


def test_its_gradient_is_that_of_finite_differences(network):
    term = Curvature([of(network, 1.5)], weight=3.0, directions=2)
    network.zero_grad()
    term.loss(network, 2.0, step=7).backward()
    random = torch.Generator().manual_seed(1)
    trained = [parameter for parameter in network.parameters() if parameter.grad is not None]
    direction = [torch.randn(p.shape, generator=random, dtype=p.dtype) * p.detach().abs().mean() for p in trained]
    slope = sum(float((parameter.grad * d).sum()) for parameter, d in zip(trained, direction, strict=True))

    def shifted(step: float) -> float:
        with torch.no_grad():
            for parameter, d in zip(trained, direction, strict=True):
                parameter += step * d
        found = float(term.loss(network, 2.0, step=7).detach())
        with torch.no_grad():
            for parameter, d in zip(trained, direction, strict=True):
                parameter -= step * d
        return found

    step = 1e-5
    assert slope != 0.0
    assert (shifted(step) - shifted(-step)) / (2 * step) == pytest.approx(slope, rel=1e-6)


def test_training_on_force_constants_lowers_their_error_and_they_are_part_of_the_identity(network, tmp_path):
    atoms = bulk("Ar", a=5.26, cubic=True)
    start = Checkpoint(deepcopy(network).float(), 0.05, {18: 0.0}, (18,))
    wanted = ForceConstants(atoms, 3.0 * 0.05 / 2.0 * force_field(network).hessian(atoms))
    directions = np.random.default_rng(3).normal(size=(3, 4, 3))
    term = Curvature([wanted], weight=5.0)
    path = train(stage(epochs=2), *argon_data(), tmp_path / "with", initial=start, curvature=term)
    before = value(start.network, wanted, directions, start.scale_ev)
    trained = load(path)
    after = value(trained.network, wanted, directions, trained.scale_ev)
    assert before == pytest.approx(2 / 3, abs=0.01)
    assert after < 0.8 * before
    with pytest.raises(InputError, match="holds a training with curvature"):
        train(stage(epochs=2), *argon_data(), tmp_path / "with", initial=start)


def test_force_constants_of_another_shape_or_all_zero_are_refused():
    with pytest.raises(InputError, match="shape"):
        ForceConstants(bulk("Ar"), np.zeros((2, 2, 3, 3)))
    with pytest.raises(InputError, match="all zero"):
        ForceConstants(bulk("Ar"), np.zeros((1, 1, 3, 3)))

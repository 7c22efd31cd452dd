"""Losses against hand-made numbers, and parameter gradients against finite differences."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from test_train import CONFIG

from esen_flows.data.labelled import LabelledStructure
from esen_flows.network.derivatives import EnergyForcesStress, energy_forces_stress
from esen_flows.network.esen import ESEN
from esen_flows.training.config import TrainingConfig
from esen_flows.training.frames import collate, make_frames
from esen_flows.training.loss import training_loss


def make_batch():
    random = np.random.default_rng(0)
    structures = []
    for n in range(2):
        atoms = bulk("Si", "diamond", a=5.4 + 0.1 * n)
        atoms.rattle(0.05, seed=n)
        structures.append(
            LabelledStructure(atoms, -10.0 - n, random.normal(size=(2, 3)), 0.01 * random.normal(size=(3, 3)), "g")
        )
    return collate(make_frames(structures, 5.0, {14: -5.0}), dtype=torch.float64)


def prediction_off_by(batch, energy, force, stress):
    forces = batch.forces.clone()
    forces[:, 0] += force
    return EnergyForcesStress(batch.energy + 2 * energy, batch.energy, forces, batch.stress + stress)


def test_absolute_loss_is_the_papers():
    batch = make_batch()
    config = TrainingConfig(
        **CONFIG | {"loss": "absolute", "energy_weight": 20, "force_weight": 20, "stress_weight": 5}
    )
    loss = training_loss(prediction_off_by(batch, 0.01, 0.1, 0.002), batch, config, scale_ev=1.0)
    assert float(loss) == pytest.approx(20 * 0.01 + 20 * 0.1 + 5 * 0.002, rel=1e-9)


def test_relative_loss_counts_small_forces_as_much_as_large_ones():
    batch = make_batch()
    config = TrainingConfig(**CONFIG | {"energy_weight": 0, "stress_weight": 0, "relative_floors": (0.02, 0.0, 0.01)})
    rms = batch.forces.view(2, 2, 3).square().sum(dim=2).mean(dim=1).sqrt()
    loss = training_loss(prediction_off_by(batch, 0.0, 0.1, 0.0), batch, config, scale_ev=1.0)
    assert float(loss) == pytest.approx(float((0.1 / rms).mean()), rel=1e-9)


@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_parameter_gradients_equal_finite_differences(kind):
    torch.manual_seed(0)
    config = TrainingConfig(**CONFIG | {"loss": kind})
    network, batch = ESEN(config.architecture).double(), make_batch()

    def loss():
        return training_loss(energy_forces_stress(network, batch.graph, create_graph=True), batch, config, 1.3)

    loss().backward()
    for name in ("energy_block.4.weight", "blocks.0.edge_wise.so2_conv_1.so2_m_conv.0.fc.weight", "norm.affine_weight"):
        parameter = network.get_parameter(name)
        flat, index, step = parameter.data.view(-1), 3, 1e-6
        values = []
        for sign in (1, -1):
            flat[index] += sign * step
            values.append(float(loss().detach()))
            flat[index] -= sign * step
        slope = (values[0] - values[1]) / (2 * step)
        assert float(parameter.grad.view(-1)[index]) == pytest.approx(slope, rel=1e-4, abs=1e-8)

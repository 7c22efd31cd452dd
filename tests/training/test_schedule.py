"""Learning rate and weight decay against hand-made numbers."""

import pytest
from stages import stage

from esen_flows.network.esen.esen import ESEN
from esen_flows.training.schedule import learning_rate_factor, make_optimizer


def test_warm_up_times_cosine():
    config = stage(warmup_steps=10, warmup_factor=0.2, final_factor=0.01)
    assert learning_rate_factor(0, 0.0, 100, config) == pytest.approx(0.2)
    assert learning_rate_factor(5, 0.0, 100, config) == pytest.approx(0.6)
    assert learning_rate_factor(10, 0.0, 100, config) == pytest.approx(1.0)
    assert learning_rate_factor(50, 0.5, 100, config) == pytest.approx(0.505)
    assert learning_rate_factor(100, 1.0, 100, config) == pytest.approx(0.01)


def test_warm_up_can_be_given_in_epochs():
    config = stage(warmup_steps=None, warmup_epochs=0.1)
    assert learning_rate_factor(5, 0.0, 100, config) == pytest.approx(0.6)
    assert learning_rate_factor(10, 0.0, 100, config) == pytest.approx(1.0)
    assert learning_rate_factor(0, 0.0, 100, stage(warmup_steps=0)) == pytest.approx(1.0)


def test_embeddings_and_biases_do_not_decay_and_frozen_parameters_are_left_out():
    network = ESEN(stage().network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decayed, kept = make_optimizer(network, stage()).param_groups
    assert decayed["weight_decay"] == 0.001
    assert kept["weight_decay"] == 0.0
    assert all("embedding" not in names[id(p)] and "bias" not in names[id(p)] for p in decayed["params"])
    assert "norm.affine_weight" in {names[id(p)] for p in decayed["params"]}
    network.get_parameter("norm.affine_weight").requires_grad_(False)
    moved = {names[id(p)] for group in make_optimizer(network, stage()).param_groups for p in group["params"]}
    assert "norm.affine_weight" not in moved

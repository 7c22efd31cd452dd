"""The cost of a stage: counts against hand-made numbers, and measured time."""

import pytest
from stages import argon, stage

from esen_flows.data.dataset import from_structures
from esen_flows.network.esen.esen import ESEN
from esen_flows.training.estimate import estimate


def test_counts_are_those_of_the_stage_and_time_is_measured():
    data = from_structures(argon(12))
    config = stage(epochs=5, edges_per_batch=1_000_000, structures_per_batch=4)
    cost = estimate(config, data)
    assert cost.parameters == sum(parameter.numel() for parameter in ESEN(config.network).parameters())
    assert cost.structures == 60
    assert cost.steps == 15
    assert cost.edges == 5 * data.edge_counts(5.0).sum()
    assert 0 < cost.seconds_per_edge < 0.1
    assert cost.device_hours == pytest.approx(cost.edges * cost.seconds_per_edge / 3600)

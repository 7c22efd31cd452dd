"""Loss on curvature: its value, its gradient against finite differences, and that training on it stiffens a crystal."""

import os
import signal
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from ase.build import bulk
from stages import DIRECT, argon_data, stage
from test_train_edge_transformer import stage as edge_transformer_stage

from esen_flows.errors import InputError, InsufficientMemoryError
from esen_flows.forcefield.checkpoint import Checkpoint, load
from esen_flows.forcefield.families import make_network
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.training import curvature
from esen_flows.training.curvature import Curvature, ForceConstants, curvature_error
from esen_flows.training.estimate import estimate
from esen_flows.training.train import TrainingInterrupted, train


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


@pytest.mark.parametrize("make", [stage, edge_transformer_stage], ids=["esen", "edge_transformer"])
def test_its_gradient_is_that_of_finite_differences(make):
    torch.manual_seed(0)
    config = make(curvature_weight=3.0, curvature_directions=2)
    network = make_network(config.network).double()
    term = Curvature([of(network, 1.5)], config)
    network.zero_grad()
    sum(term.terms(network, 2.0, step=7)).backward()
    random = torch.Generator().manual_seed(1)
    trained = [parameter for parameter in network.parameters() if parameter.grad is not None]
    direction = [torch.randn(p.shape, generator=random, dtype=p.dtype) * p.detach().abs().mean() for p in trained]
    slope = sum(float((parameter.grad * d).sum()) for parameter, d in zip(trained, direction, strict=True))

    def shifted(step: float) -> float:
        with torch.no_grad():
            for parameter, d in zip(trained, direction, strict=True):
                parameter += step * d
        found = sum(float(part.detach()) for part in term.terms(network, 2.0, step=7))
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
    config = stage(epochs=2, curvature_weight=5.0)
    path = train(config, *argon_data(), tmp_path / "with", initial=start, force_constants=[wanted])
    before = value(start.network, wanted, directions, start.scale_ev)
    trained = load(path)
    after = value(trained.network, wanted, directions, trained.scale_ev)
    assert before == pytest.approx(2 / 3, abs=0.01)
    assert after < 0.8 * before
    others = [ForceConstants(atoms, 2.0 * wanted.values)]
    with pytest.raises(InputError, match="holds a training with curvature"):
        train(config, *argon_data(), tmp_path / "with", initial=start, force_constants=others)


def test_force_constants_of_another_shape_or_all_zero_are_refused():
    with pytest.raises(InputError, match="shape"):
        ForceConstants(bulk("Ar"), np.zeros((2, 2, 3, 3)))
    with pytest.raises(InputError, match="all zero"):
        ForceConstants(bulk("Ar"), np.zeros((1, 1, 3, 3)))


def test_a_stage_and_force_constants_go_together(network, tmp_path):
    assert Curvature.of(stage(), []) is None
    for config, references in ((stage(curvature_weight=1.0), []), (stage(), [of(network)])):
        with pytest.raises(InputError, match="a stage needs both or neither"):
            Curvature.of(config, references)
    with pytest.raises(InputError, match="curvature_supercells is 2, and force constants of 1 were given"):
        Curvature.of(stage(curvature_weight=1.0, curvature_supercells=2), [of(network)])
    with pytest.raises(InputError, match="direct forces have no Hessian"):
        stage(**DIRECT, curvature_weight=1.0)


def test_settings_at_their_defaults_leave_a_stage_as_it_was():
    assert not any(name.startswith("curvature") for name in stage().to_dict())
    changes = {"curvature_weight": 2.0, "curvature_every": 4, "curvature_supercells": 3}
    assert changes.items() <= stage(**changes).to_dict().items()


def test_force_constants_are_identified_by_their_source_where_they_have_one(network):
    ours, last_digits = of(network), 1.0 + 1e-15
    other = ForceConstants(ours.supercell, last_digits * ours.values)
    assert ours.key != other.key
    assert replace(ours, source="file").key == replace(other, source="file").key


def test_supercells_of_a_step_are_drawn_and_the_same_step_draws_the_same(network):
    config = stage(curvature_weight=1.0, curvature_supercells=2)
    term = Curvature([of(network, factor) for factor in (2.0, 4.0, 5.0)], config)

    def losses(step: int) -> list[float]:
        return [round(float(part.detach()), 4) for part in term.terms(network, 2.0, step)]

    # The error of force constants that are f times the network's is 1 - 1/f, of which each of two supercells is half.
    found = [losses(step) for step in range(6)]
    assert {each for pair in found for each in pair} == {0.25, 0.375, 0.4}
    assert all(len(set(pair)) == 2 for pair in found)
    assert losses(3) == found[3]


def test_steps_on_the_curvature_alone_come_after_ordinary_ones_and_resume_to_the_bit(network, tmp_path):
    wanted = [of(network, 1.5)]
    config = stage(epochs=3, edges_per_batch=400, curvature_weight=0.5, curvature_every=2)
    data, rows = argon_data(), []
    whole = train(config, *data, tmp_path / "whole", force_constants=wanted, progress=rows.append)
    steps = [row["step"] for row in rows]
    extra = [later - former - 1 for former, later in pairwise([0, *steps])]
    assert len(rows) % 2 == 1 < len(rows) // 3  # the order goes on from epoch to epoch
    assert extra == [int((number + 1) % 2 == 0) for number in range(len(rows))]
    assert {row["total_steps"] for row in rows} == {steps[-1]}
    assert np.isnan(rows[0]["curvature"])
    assert rows[1]["curvature"] == rows[2]["curvature"] > 0.0

    def stop(row):
        if row["step"] == steps[1]:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingInterrupted, match=f"step {steps[2]} of about {steps[-1]}"):
        train(config, *data, tmp_path / "parts", force_constants=wanted, progress=stop)
    again = []
    parts = train(config, *data, tmp_path / "parts", force_constants=wanted, progress=again.append)
    assert load(parts).model_key == load(whole).model_key
    kept = [row["curvature"] for row in again]
    assert kept == [row["curvature"] for row in rows[3:]]


def test_an_epoch_may_have_fewer_batches_than_there_are_between_steps_on_the_curvature(network, tmp_path):
    config, rows = stage(epochs=3, edges_per_batch=10**6, curvature_weight=0.5, curvature_every=2), []
    train(config, *argon_data(), tmp_path, force_constants=[of(network, 1.5)], progress=rows.append)
    assert [row["step"] for row in rows] == [1, 3, 4]
    cost = estimate(config, argon_data()[0], force_constants=[of(network, 1.5)])
    assert cost.steps == 4


def test_where_memory_runs_out_the_message_says_what_to_change(network, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(curvature, "along", full)
    for every in (None, 1):
        config = stage(epochs=1, curvature_weight=0.5, curvature_every=every, curvature_directions=3)
        with pytest.raises(InsufficientMemoryError, match=r"4 atoms, with curvature_directions 3.*lower curvature_dir"):
            train(config, *argon_data(), tmp_path / str(every), force_constants=[of(network, 1.5)])


def test_chunks_of_edges_leave_the_curvature_as_it_is(network):
    directions = np.random.default_rng(0).normal(size=(2, 4, 3))

    def gradient(chunk: int | None) -> torch.Tensor:
        network.zero_grad()
        network.edges_per_chunk = chunk
        curvature_error(network, of(network, 1.5), directions, 2.0).backward()
        network.edges_per_chunk, after = None, network.edges_per_chunk
        assert after == chunk
        return torch.cat([p.grad.ravel() for p in network.parameters() if p.grad is not None])

    torch.testing.assert_close(gradient(20), gradient(None))


def test_force_constants_of_an_element_without_data_are_refused(network, tmp_path):
    neon = of(network)
    neon.supercell.numbers[:] = 10
    config = stage(epochs=1, curvature_weight=0.5)
    with pytest.raises(InputError, match="force constants of Ne4, and the training has no data with Ne;"):
        train(config, *argon_data(), tmp_path, force_constants=[neon])


def test_a_warm_up_in_epochs_counts_the_steps_on_the_curvature_too(network, tmp_path):
    schedule = {"warmup_steps": None, "warmup_epochs": 1.0, "final_factor": 1.0, "epochs": 2}
    config, rows = stage(edges_per_batch=400, curvature_weight=0.5, curvature_every=2, **schedule), []
    train(config, *argon_data(), tmp_path, force_constants=[of(network, 1.5)], progress=rows.append)
    rates = {epoch: [row["learning_rate"] for row in rows if row["epoch"] == epoch] for epoch in (0, 1)}
    assert max(rates[0]) < config.learning_rate
    assert rates[1] == pytest.approx([config.learning_rate] * len(rates[1]))

"""Stages that start from another stage's network: weights taken over, heads dropped, references refitted."""

import numpy as np
import pytest
import torch
from stages import DENS, DIRECT, argon_data, stage

from esen_flows.data.dataset import from_structures
from esen_flows.data.labelled import LabelledStructure
from esen_flows.errors import InputError
from esen_flows.forcefield.checkpoint import Checkpoint, load
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.network.esen.esen import ESEN
from esen_flows.training.evaluate import evaluate_dataset
from esen_flows.training.initial import refitted, starting_point
from esen_flows.training.train import train


@pytest.fixture(scope="module")
def data():
    return argon_data()


def checkpoint_of(config, references=None, scale=1.0):
    torch.manual_seed(3)
    network = ESEN(config.network)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return Checkpoint(network, scale, references or {18: -0.05}, (18,))


def test_a_second_stage_starts_from_the_first(data, tmp_path):
    first = load(train(stage(), *data, tmp_path / "first"))
    still = stage(epochs=1, learning_rate=1e-12, weight_decay=0.0, seed=5)
    second = load(train(still, *data, tmp_path / "second", initial=first))
    for name, value in second.network.state_dict().items():
        assert torch.allclose(value, first.network.state_dict()[name], atol=1e-7)
    assert second.training["initial_model_key"] == first.model_key
    with pytest.raises(InputError, match="sphere_channels=16 instead of 8"):
        train(stage(sphere_channels=16), *data, tmp_path / "third", initial=first)


@pytest.mark.parametrize("kind", [DIRECT, DENS])
def test_a_conservative_stage_takes_the_energy_of_a_direct_one(data, kind):
    initial = checkpoint_of(stage(**kind))
    start = starting_point(stage(), data[0], initial)
    conservative = NetworkForceField(start)
    structure = data[0][0].atoms
    before, after = (field.evaluate([structure])[0] for field in (NetworkForceField(initial), conservative))
    # Without the bias of the force encoding, folded into the element table, energies of a DeNS model would differ.
    assert after.energy == pytest.approx(before.energy, abs=1e-6)
    assert conservative.declaration.conservative
    fresh = starting_point(stage(initial_energy_head=False), data[0], initial).network
    assert not torch.equal(fresh.energy_block[0].weight, initial.network.energy_block[0].weight)
    assert torch.equal(fresh.norm.affine_weight, initial.network.norm.affine_weight)


def test_references_are_refitted_to_another_level_of_theory(data):
    shifted = from_structures(
        LabelledStructure(item.atoms, item.energy + 3.0 * len(item.atoms), item.forces, item.stress)
        for item in (data[0][index] for index in range(len(data[0])))
    )
    initial = checkpoint_of(stage())
    kept = starting_point(stage(), shifted, initial)
    refitted = starting_point(stage(references="refit"), shifted, initial)
    assert kept.references_ev == initial.references_ev

    def mean_error(start):
        field = NetworkForceField(start)
        return evaluate_dataset(field, shifted)["all"]["energy_mae_mev_per_atom"]

    assert mean_error(kept) > 1000
    assert mean_error(refitted) < 100


def test_an_unknown_element_needs_refitted_references(data):
    initial = checkpoint_of(stage(), references={14: -1.0})
    with pytest.raises(InputError, match=r"no reference energy for atomic numbers \[18\]; set references: refit"):
        starting_point(stage(), data[0], initial)
    assert set(starting_point(stage(references="refit"), data[0], initial).references_ev) == {14, 18}


def test_frozen_parameters_stay(data, tmp_path):
    config = stage(epochs=1, freeze=["edge_degree_embedding", "blocks.0"], warmup_steps=0)
    start = starting_point(config, data[0], None)
    trained = load(train(config, *data, tmp_path)).network
    before = dict(start.network.named_parameters())
    same = {name for name, value in trained.named_parameters() if torch.equal(value, before[name])}
    assert {name for name in before if name.startswith(("edge_degree_embedding", "blocks.0"))} <= same
    assert "energy_block.0.weight" not in same
    with pytest.raises(InputError, match="leaves no parameter"):
        starting_point(stage(freeze=[""]), data[0], None)


def test_one_scale_for_energy_forces_and_stress(data):
    start = starting_point(stage(), data[0], None)
    forces = np.concatenate([data[0][index].forces.ravel() for index in range(len(data[0]))])
    assert start.scale_ev == pytest.approx(float(np.sqrt(np.mean(forces**2))))


def test_one_factor_corrects_softness(data):
    initial = checkpoint_of(stage())
    structures = [data[0][index].atoms for index in range(6)]
    stiff = from_structures(
        LabelledStructure(
            atoms, 1.3 * (r.energy + 0.05 * len(atoms)) + 2.0 * len(atoms), 1.3 * r.forces, 1.3 * r.stress
        )
        for atoms, r in zip(structures, NetworkForceField(initial).evaluate(structures), strict=True)
    )
    start = starting_point(stage(references="refit", scale="refit"), stiff, initial)
    assert start.scale_ev == pytest.approx(1.3 * initial.scale_ev, rel=1e-5)
    assert start.references_ev[18] == pytest.approx(2.0, abs=1e-4)
    assert evaluate_dataset(NetworkForceField(start), stiff)["all"]["energy_mae_mev_per_atom"] < 1e-2
    moved = refitted(initial, stiff)
    assert moved.scale_ev == initial.scale_ev
    assert moved.references_ev[18] != initial.references_ev[18]

"""Losses against hand-made numbers, and parameter gradients against finite differences."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from ase.build import bulk
from stages import DENS, DIRECT, stage

from esen_flows.data.labelled import LabelledStructure
from esen_flows.network.derivatives import EnergyForcesStress, energy_forces_stress
from esen_flows.network.esen.config import ESENConfig
from esen_flows.network.esen.esen import ESEN
from esen_flows.testing import load_fixture
from esen_flows.training.denoising import Noise
from esen_flows.training.frames import collate, make_frame
from esen_flows.training.loss import Counts, training_loss

PAPER = {"loss": "absolute", "energy_weight": 20.0, "force_weight": 20.0, "stress_weight": 5.0}


def make_batch(moved=None, count=2):
    random = np.random.default_rng(0)
    frames = []
    for n in range(count):
        atoms = bulk("Si", "diamond", a=5.4 + 0.1 * n)
        atoms.rattle(0.05, seed=n)
        item = LabelledStructure(atoms, -10.0 - n, random.normal(size=(2, 3)), 0.01 * np.eye(3) * (n + 1), "g")
        noise = None if moved is None else Noise(0.1 * random.normal(size=(2, 3)) * moved[:, None], moved)
        frames.append(make_frame(item, ESENConfig(cutoff_angstrom=5.0), {14: -5.0}, noise))
    return collate(frames, dtype=torch.float64)


def prediction_off_by(batch, energy, force, stress, noise=None):
    forces = batch.forces.clone()
    forces[:, 0] += force
    return EnergyForcesStress(batch.energy + 2 * energy, batch.energy, forces, batch.stress + stress, None, noise)


def terms_of(*args, **kwargs):
    return {name: float(value.detach()) for name, value in training_loss(*args, **kwargs).items()}


def test_absolute_loss_is_that_of_the_paper():
    batch = make_batch()
    terms = terms_of(prediction_off_by(batch, 0.01, 0.1, 0.002), batch, stage(**PAPER), scale_ev=1.0)
    assert terms == pytest.approx({"energy": 20 * 0.01, "forces": 20 * 0.1, "stress": 5 * 0.002}, rel=1e-9)
    config = stage(**PAPER, force_loss="mse")
    squared = terms_of(prediction_off_by(batch, 0.01, 0.1, 0.002), batch, config, scale_ev=1.0)
    assert squared["forces"] == pytest.approx(20 * 0.1**2 / 3, rel=1e-9)


def test_losses_are_in_units_of_the_scale():
    batch, config = make_batch(), stage(**PAPER)
    found = prediction_off_by(batch, 0.01, 0.1, 0.002)
    halved = EnergyForcesStress(found.energy / 2, found.energy, found.forces / 2, found.stress / 2)
    ours, theirs = terms_of(halved, batch, config, scale_ev=2.0), terms_of(found, batch, config, scale_ev=1.0)
    assert ours == pytest.approx({name: value / 2 for name, value in theirs.items()}, rel=1e-9)


def test_relative_loss_counts_small_forces_as_much_as_large_ones():
    batch = make_batch()
    config = stage(energy_weight=0.0, stress_weight=0.0, relative_floors=(0.02, 0.0, 0.01))
    rms = batch.forces.view(2, 2, 3).square().sum(dim=2).mean(dim=1).sqrt()
    terms = terms_of(prediction_off_by(batch, 0.0, 0.1, 0.0), batch, config, scale_ev=1.0)
    assert terms["forces"] == pytest.approx(float((0.1 / rms).mean()), rel=1e-9)


def test_a_direct_stress_has_an_isotropic_and_an_anisotropic_term():
    batch = make_batch()
    config = stage(**DIRECT)
    trace = terms_of(prediction_off_by(batch, 0.0, 0.0, 0.002 * torch.eye(3)), batch, config, scale_ev=1.0)
    assert trace["stress"] == pytest.approx(5 * 0.002 * 3**0.5, rel=1e-6)
    shear = torch.zeros(3, 3)
    shear[0, 1] = shear[1, 0] = 0.002  # one of five unit tensors has 1/sqrt(2) in these two places
    told = terms_of(prediction_off_by(batch, 0.0, 0.0, shear), batch, config, scale_ev=1.0)
    assert told["stress"] == pytest.approx(5 * 0.002 * 2**0.5 / 5, rel=1e-6)


def test_noised_atoms_count_for_the_noise_and_the_others_for_the_forces():
    moved = np.array([True, False])
    batch, config = make_batch(moved), stage(**DENS)
    noise = batch.noise / 0.1
    noise[:, 1] += 0.3  # of all atoms; only the moved ones count
    terms = terms_of(prediction_off_by(batch, 0.0, 0.1, 0.0, noise), batch, config, scale_ev=1.0)
    assert terms["denoising"] == pytest.approx(10 * 0.3, rel=1e-9)
    assert terms["forces"] == pytest.approx(20 * 0.1, rel=1e-9)
    told = batch.noised_forces
    assert bool((told[0::2] == batch.forces[0::2]).all())
    assert not told[1::2].any()


@pytest.mark.parametrize("changes", [PAPER, {}, DENS])
def test_parts_of_a_batch_add_up(changes):
    moved = np.array([True, False]) if "denoising" in changes else None
    frames = make_batch(moved, count=3)
    config = stage(**changes)
    torch.manual_seed(0)
    network = ESEN(config.network).double()

    def terms(batch, counts=None):
        made = energy_forces_stress(network, batch.graph, create_graph=True, noised_forces=batch.noised_forces)
        return terms_of(made, batch, config, 1.3, counts=counts)

    whole = terms(frames)
    counts = Counts.of([frames])
    parts = [terms(part, counts) for part in split(frames, 1, 2)]
    summed = {name: sum(part[name] for part in parts) for name in whole}
    assert summed == pytest.approx(whole, rel=1e-9)


def split(batch, *at):
    """Parts of a batch of two-atom structures, made again from its tensors."""
    bounds = [0, *at, batch.graph.n_systems]
    parts = []
    for first, last in pairwise(bounds):
        graph = batch.graph
        atoms, edges = slice(2 * first, 2 * last), (graph.edge_system >= first) & (graph.edge_system < last)
        part = replace(
            graph, numbers=graph.numbers[atoms], source=graph.source[edges] - 2 * first,
            target=graph.target[edges] - 2 * first, vectors=graph.vectors[edges], system=graph.system[atoms] - first,
            edge_system=graph.edge_system[edges] - first, volume=graph.volume[first:last],
            charge=graph.charge[first:last], spin=graph.spin[first:last], n_systems=last - first,
        )  # fmt: skip
        noise, moved = (None if value is None else value[atoms] for value in (batch.noise, batch.moved))
        parts.append(
            replace(batch, graph=part, energy=batch.energy[first:last], forces=batch.forces[atoms],
                    stress=batch.stress[first:last], n_atoms=batch.n_atoms[first:last], noise=noise, moved=moved)
        )  # fmt: skip
    return parts


def check_gradients(network, batch, config):
    """Gradients of the loss along a random direction of every parameter, against central differences."""

    def loss():
        made = energy_forces_stress(network, batch.graph, create_graph=True, noised_forces=batch.noised_forces)
        return torch.stack(list(training_loss(made, batch, config, 1.3).values())).sum()

    loss().backward()
    random = torch.Generator().manual_seed(1)
    checked = 0
    for parameter in network.parameters():
        if parameter.grad is None:
            continue
        direction = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            parameter.data += sign * 1e-6 * direction
            values.append(float(loss().detach()))
            parameter.data -= sign * 1e-6 * direction
        slope = (values[0] - values[1]) / 2e-6
        assert float((parameter.grad * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-6)
        checked += 1
    return checked


@pytest.mark.parametrize("changes", [PAPER, {}, DIRECT, DENS])
def test_parameter_gradients_equal_finite_differences(changes):
    torch.manual_seed(0)
    config = stage(**changes)
    batch = make_batch(np.array([True, False]) if config.network.denoising else None)
    network = ESEN(config.network).double()
    for parameter in network.parameters():  # a fresh network has zeros that would hide a wrong gradient
        parameter.data += 0.05 * torch.randn_like(parameter)
    assert check_gradients(network, batch, config) > 30


@pytest.mark.shared
@pytest.mark.parametrize("name", ["direct_l2m2", "dens_l2m2"])
def test_gradients_of_published_direct_networks_are_right(shared_dir, name):
    published = load_fixture(shared_dir / "fixtures" / "esen", name).network
    network = ESEN(published.config).double()
    network.load_state_dict(published.state_dict())
    kind = {**DENS, "direct_stress": network.config.direct_stress} if network.config.denoising else DIRECT
    weight = 0.0 if network.config.direct_stress == "none" else 5.0
    batch = make_batch(np.array([True, False]) if network.config.denoising else None)
    assert check_gradients(network, batch, stage(**kind | {"stress_weight": weight})) > 80

"""Loss on asymmetric Jacobians: its value, zero where forces are conservative, its gradient, and that it is learned."""

from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation
from stages import DENS, DIRECT, argon, argon_data, stage

from esen_flows.errors import InputError
from esen_flows.forcefield.checkpoint import Checkpoint, load
from esen_flows.forcefield.families import make_network
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.physics.conservation.jacobian import asymmetry, jacobian_by_differences
from esen_flows.training.asymmetry import asymmetry_term, draw_directions, jacobian_products
from esen_flows.training.denoising import is_noised
from esen_flows.training.frames import LabelledBatch, collate, make_frame
from esen_flows.training.metrics import STEPS_NAME, read_rows
from esen_flows.training.train import train

CONFIG = stage(**DIRECT, asymmetry_weight=2.0)
STRUCTURES = argon(2)


def random_network(**changes):
    torch.manual_seed(0)
    return make_network(stage(**changes).network).double()


def frames(network):
    for place, item in enumerate(STRUCTURES):
        directions = draw_directions(CONFIG, 0, 0, place, len(item.atoms))
        yield replace(make_frame(item, network.config, {18: 0.0}), directions=directions)


def batch_of(network) -> LabelledBatch:
    return collate(list(frames(network)), torch.float64)


def forces_of(network, batch):
    vectors = batch.graph.vectors.clone().requires_grad_(True)
    return energy_forces_stress(network, batch.graph, create_graph=True, vectors=vectors).forces, vectors


def term(network, batch, systems=2.0):
    return asymmetry_term(*forces_of(network, batch), batch, systems)


@pytest.fixture(name="direct", scope="module")
def _direct():
    return random_network(**DIRECT)


def test_products_are_those_of_the_jacobian_by_differences(direct):
    batch = batch_of(direct)
    found = jacobian_products(*forces_of(direct, batch), batch).detach().numpy()
    copy = make_network(direct.config).double()
    copy.load_state_dict(direct.state_dict())
    force_field = NetworkForceField(Checkpoint(copy, 1.0, {18: 0.0}, (18,)), dtype="float64")
    for place, item in enumerate(STRUCTURES):
        jacobian = jacobian_by_differences(force_field, item.atoms, 0.003).T  # dF_i / dx_j in row i
        u, v = draw_directions(CONFIG, 0, 0, place, 4).transpose(1, 0, 2).reshape(2, -1)
        assert asymmetry(jacobian) > 1e-3
        assert found[place] == pytest.approx([v @ jacobian @ u, u @ jacobian @ v], rel=1e-5)


def test_the_term_is_zero_for_conservative_forces():
    network = random_network()
    batch = batch_of(network)
    products = jacobian_products(*forces_of(network, batch), batch).detach()
    assert float(term(network, batch).detach()) < 1e-10
    assert float(products.abs().min()) > 1e-4


def test_its_gradient_is_that_of_finite_differences(direct):
    batch = batch_of(direct)
    direct.zero_grad()
    term(direct, batch).backward()
    random = torch.Generator().manual_seed(1)
    trained = [parameter for parameter in direct.parameters() if parameter.grad is not None]
    direction = [torch.randn(p.shape, generator=random, dtype=p.dtype) * p.detach().abs().mean() for p in trained]
    slope = sum(float((parameter.grad * d).sum()) for parameter, d in zip(trained, direction, strict=True))

    def shifted(step: float) -> float:
        with torch.no_grad():
            for parameter, d in zip(trained, direction, strict=True):
                parameter += step * d
        found = float(term(direct, batch).detach())
        with torch.no_grad():
            for parameter, d in zip(trained, direction, strict=True):
                parameter -= step * d
        return found

    step = 1e-5
    assert slope != 0.0
    assert (shifted(step) - shifted(-step)) / (2 * step) == pytest.approx(slope, rel=1e-6)


def test_it_is_the_same_for_turned_structures_with_turned_directions_and_for_parts_of_a_batch(direct):
    whole = term(direct, batch_of(direct))
    matrix = Rotation.random(rng=5).as_matrix()
    turned = [replace(f.turned(matrix), directions=f.directions @ matrix.T) for f in frames(direct)]
    again = term(direct, collate(turned, torch.float64))
    assert float(again.detach()) == pytest.approx(float(whole.detach()), rel=1e-9)
    parts = batch_of(direct).pieces(1)
    assert len(parts) == 2
    summed = sum(float(term(direct, part).detach()) for part in parts)
    assert summed == pytest.approx(float(whole.detach()), rel=1e-12)


def test_a_training_with_the_term_ends_with_a_more_symmetric_jacobian(tmp_path):
    found = {}
    training, validation = argon_data()
    for weight in (0.0, 30.0):
        folder = tmp_path / str(weight)
        path = train(stage(**DIRECT, asymmetry_weight=weight), training, validation, folder)
        force_field = NetworkForceField(load(path), dtype="float64")
        found[weight] = asymmetry(jacobian_by_differences(force_field, validation[0].atoms, 0.003))
        assert ("asymmetry" in read_rows(folder / STEPS_NAME)[-1]) == (weight > 0)
    assert found[30.0] < 0.7 * found[0.0]


def test_noised_batches_have_no_term(tmp_path):
    config, rows = stage(**DENS, asymmetry_weight=1.0, epochs=2), []
    train(config, *argon_data(), tmp_path, progress=rows.append)
    batches = len(rows) // 2
    noised = [is_noised(config, epoch, batch) for epoch in (0, 1) for batch in range(batches)]
    assert len(set(noised)) == 2
    assert [row["asymmetry"] == 0.0 for row in rows] == noised


def test_the_weight_is_left_out_at_zero_and_refused_where_it_has_no_effect():
    assert "asymmetry_weight" not in stage(**DIRECT).to_dict()
    assert CONFIG.to_dict()["asymmetry_weight"] == 2.0
    with pytest.raises(InputError, match="symmetric already"):
        stage(asymmetry_weight=1.0)
    with pytest.raises(InputError, match="bfloat16"):
        stage(**DIRECT, asymmetry_weight=1.0, autocast="bfloat16")
    with pytest.raises(InputError, match="at least 0"):
        stage(**DIRECT, asymmetry_weight=-1.0)
    with pytest.raises(InputError, match="lower denoising_probability"):
        stage(**DENS, asymmetry_weight=1.0, denoising_probability=1.0)

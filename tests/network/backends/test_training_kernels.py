"""Kernels of networks in training: the numbers of the plain modules, gradients of weights included, to any order."""

from dataclasses import replace

import pytest
import torch
from networks import SMALL, VARIANTS, batch, difference, network, plain_modules, results_by_threads

from esen_flows.network.backends.cpu import native, training
from esen_flows.network.backends.cpu.column_products import multiply_columns
from esen_flows.network.backends.cpu.differentiable import EdgeList, gate, gather_rotate, plain_gate, rotate_back
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.esen.config import ESENConfig
from esen_flows.network.esen.esen import ESEN
from esen_flows.network.esen.so2 import Columns

GATED = {name: config for name, config in VARIANTS.items() if config.act_type == "gate"}


pytestmark = pytest.mark.usefixtures("compiled")


def weight_gradients(made: ESEN, graph: object) -> list[torch.Tensor]:
    """Gradients of a loss of energy, forces, stress and noise."""
    made.zero_grad()
    found = energy_forces_stress(made, graph, create_graph=True)
    loss = found.energy.sum() + found.forces.square().sum() + 100 * found.stress.nan_to_num().square().sum()
    if found.noise is not None:
        loss = loss + found.noise.square().sum()
    loss.backward()
    return [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in made.parameters()]


@pytest.mark.parametrize("limit", [None, 40], ids=["at once", "in chunks"])
@pytest.mark.parametrize("name", GATED)
def test_gradients_of_weights_equal_those_of_the_plain_modules(name: str, limit: int | None) -> None:
    made = network(GATED[name]).requires_grad_(True)
    graph = batch(made.config)
    with plain_modules():
        expected = weight_gradients(made, graph)
    made.edges_per_chunk = limit
    found = weight_gradients(made, graph)
    assert sum(bool(gradient.any()) for gradient in expected) > 20
    for one, other in zip(found, expected, strict=True):
        assert difference(one, other) < 1e-12


def test_weights_have_gradients_outside_of_the_forces_too() -> None:
    """Gradients of weights are left out only of the gradient from which forces come."""
    made = network(SMALL).requires_grad_(True)
    graph = batch(SMALL)
    weights = [p for name, p in made.named_parameters() if "so2_conv" in name]

    def gradients() -> tuple[torch.Tensor, ...]:
        once = torch.autograd.grad(made(graph).energy.sum(), weights, create_graph=True)
        return *once, *torch.autograd.grad(sum(g.square().sum() for g in once), weights)

    with plain_modules():
        expected = gradients()
    for one, other in zip(gradients(), expected, strict=True):
        assert difference(one, other) < 1e-12


def few_edges(config: ESENConfig) -> tuple[EdgeList, torch.Tensor, torch.Tensor]:
    """Five edges between three atoms, their features and rotations; messages are summed in the last two atoms."""
    made = network(config)
    graph = batch(config)
    rotation = made._geometry(graph, graph.vectors, None).rotation[:5].clone()
    source, target = torch.tensor([2, 0, 1, 1, 0]), torch.tensor([1, 1, 1, 2, 2])
    kernel = native.kernels(torch.float64)
    edges = EdgeList(kernel, config.lmax, config.mmax, source, target, source.argsort(stable=True), 1, 2)
    x = torch.randn(3, made.n_coefficients, config.sphere_channels, dtype=torch.float64)
    return edges, x.requires_grad_(True), rotation


TINY = replace(SMALL, lmax=2, mmax=1, sphere_channels=2, hidden_channels=2, edge_channels=2)


@pytest.mark.parametrize("operation", ["gather", "back", "gate", "products"])
def test_derivatives_of_three_orders(operation: str) -> None:
    edges, x, rotation = few_edges(TINY)
    blocks, rows = (rotation != 0).double(), rotation.shape[1]

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64).requires_grad_(True)

    if operation == "gather":
        inputs = (x, rotation.requires_grad_(True), random(5, 5 * 4))  # 3 + 2 modulated rows

        def function(x: torch.Tensor, rotation: torch.Tensor, modulation: torch.Tensor) -> torch.Tensor:
            return gather_rotate(edges, x, rotation * blocks, modulation)
    elif operation == "back":
        inputs = (random(5, rows * 2), rotation.requires_grad_(True))

        def function(values: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
            return rotate_back(edges, values, rotation * blocks)
    elif operation == "gate":
        inputs = (random(5, 2 * 2 + rows * 2),)

        def function(hidden: torch.Tensor) -> torch.Tensor:
            return gate(edges, hidden, 2)
    else:
        convolution = network(TINY).blocks[0].edge_wise.so2_conv_2.requires_grad_(True)
        columns = Columns.of(convolution)
        weights = [weight.detach().requires_grad_(True) for weight in convolution.matrices()]
        inputs = (random(5, columns.width_in), random(columns.scalars_out.stop), *weights)

        def function(values: torch.Tensor, bias: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
            return multiply_columns(columns, values, bias, weights)

    def first(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(function(*inputs).square().sum(), inputs, create_graph=True)

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(first, inputs, fast_mode=True)


def test_the_gate_is_that_of_the_modules() -> None:
    edges, _, rotation = few_edges(TINY)
    hidden = torch.randn(5, 2 * 2 + rotation.shape[1] * 2, dtype=torch.float64)
    torch.testing.assert_close(gate(edges, hidden, 2), plain_gate(edges, hidden, 2))


def test_autocast_uses_the_plain_modules(monkeypatch) -> None:
    """The kernels have no matrix products in bfloat16."""
    made = network(SMALL, torch.float32).requires_grad_(True)
    graph = batch(SMALL, torch.float32)
    calls: list[object] = []
    monkeypatch.setattr(training, "gather_rotate", lambda *inputs: calls.append(1) or gather_rotate(*inputs))
    with torch.autocast("cpu", torch.bfloat16):
        made(graph)
    assert not calls
    made(graph)
    assert len(calls) == SMALL.num_layers


def test_gradients_of_weights_do_not_depend_on_threads() -> None:
    made = network(SMALL).requires_grad_(True)
    graph = batch(SMALL)
    results = results_by_threads(lambda: weight_gradients(made, graph))
    for other in results[1:]:
        for one, first in zip(other, results[0], strict=True):
            assert difference(one, first) < 1e-12

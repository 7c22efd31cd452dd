"""Kernels of networks in training: the numbers of the plain modules, gradients of weights included, to any order."""

from dataclasses import replace

import pytest
import torch
from networks import SMALL, VARIANTS, batch, difference, network, plain_modules

from esen_flows.network import native, training_kernels
from esen_flows.network.config import ESENConfig
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.esen import ESEN
from esen_flows.network.so2 import Columns
from esen_flows.network.training_kernels import EdgeList, Gate, GatherRotate, Products, RotateBack

GATED = {name: config for name, config in VARIANTS.items() if config.act_type == "gate"}


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Where there is a compiler, the kernels have to be there."""
    if native.status().startswith("no C++ compiler"):
        pytest.skip(native.status())
    assert native.kernels(torch.float64) is not None


def weight_gradients(made: ESEN, graph: object) -> list[torch.Tensor]:
    """Of a loss of energy, forces, stress and noise."""
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
    """Only the gradient that makes forces leaves weights out."""
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
            return GatherRotate.apply(edges, x, rotation * blocks, modulation)
    elif operation == "back":
        inputs = (random(5, rows * 2), rotation.requires_grad_(True))

        def function(values: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
            return RotateBack.apply(edges, values, rotation * blocks)
    elif operation == "gate":
        inputs = (random(5, 2 * 2 + rows * 2),)

        def function(hidden: torch.Tensor) -> torch.Tensor:
            return Gate.apply(edges, hidden, 2)
    else:
        convolution = network(TINY).blocks[0].edge_wise.so2_conv_2.requires_grad_(True)
        columns = Columns.of(convolution)
        weights = [weight.detach().requires_grad_(True) for weight in convolution.matrices()]
        inputs = (random(5, columns.width_in), random(columns.writes[0].stop), *weights)

        def function(*inputs: torch.Tensor) -> torch.Tensor:
            return Products.apply(columns, *inputs)

    def first(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(function(*inputs).square().sum(), inputs, create_graph=True)

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(first, inputs, fast_mode=True)


def test_the_gate_is_that_of_the_modules() -> None:
    edges, _, rotation = few_edges(TINY)
    hidden = torch.randn(5, 2 * 2 + rotation.shape[1] * 2, dtype=torch.float64)
    torch.testing.assert_close(Gate.apply(edges, hidden, 2), training_kernels.plain_gate(edges, hidden, 2))


def test_lower_precision_is_left_to_torch(monkeypatch) -> None:
    """Under autocast the matrix products are those of bfloat16, so the plain modules answer."""
    made = network(SMALL, torch.float32).requires_grad_(True)
    graph = batch(SMALL, torch.float32)
    calls: list[object] = []
    forward = GatherRotate.forward
    monkeypatch.setattr(GatherRotate, "forward", staticmethod(lambda *inputs: calls.append(1) or forward(*inputs)))
    with torch.autocast("cpu", torch.bfloat16):
        made(graph)
    assert not calls
    made(graph)
    assert len(calls) == SMALL.num_layers


def test_training_numbers_do_not_depend_on_threads() -> None:
    made = network(SMALL).requires_grad_(True)
    graph = batch(SMALL)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(weight_gradients(made, graph))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for one, first in zip(other, results[0], strict=True):
            assert difference(one, first) < 1e-12

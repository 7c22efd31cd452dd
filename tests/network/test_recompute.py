import weakref
from collections.abc import Callable

import pytest
import torch
from ase.build import bulk
from torch import nn

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.network.esen.config import ESENConfig
from esen_flows.network.esen.esen import ESEN
from esen_flows.network.recompute import recomputed


def tensor(*shape: int, grad: bool = True) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=grad)


def part(x: torch.Tensor, y: torch.Tensor, unused: torch.Tensor) -> torch.Tensor:
    return torch.sin(x @ y) * x.sum(dim=1, keepdim=True)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_first_and_second_derivatives_are_those_of_the_function() -> None:
    inputs = (tensor(3, 2), tensor(2, 4), tensor(5))
    assert torch.equal(recomputed(part, inputs), part(*inputs))
    assert torch.autograd.gradcheck(lambda *values: recomputed(part, values), inputs)
    assert torch.autograd.gradgradcheck(lambda *values: recomputed(part, values), inputs)


def test_inputs_without_a_gradient_get_none() -> None:
    x, y, unused = tensor(3, 2), tensor(2, 4, grad=False), tensor(5, grad=False)
    (first,) = torch.autograd.grad(recomputed(part, (x, y, unused)).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    (expected,) = torch.autograd.grad(part(x, y, unused).sum(), x, create_graph=True)
    assert torch.allclose(first, expected, rtol=1e-14)
    assert torch.allclose(second, torch.autograd.grad(expected.square().sum(), x)[0], rtol=1e-14)


def test_a_linear_function_has_no_second_derivative() -> None:
    x = tensor(3)
    (first,) = torch.autograd.grad(recomputed(lambda value: 2.0 * value, (x,)).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, allow_unused=True, materialize_grads=True)
    assert torch.equal(first, torch.full_like(x, 2.0))
    assert torch.equal(second, torch.zeros_like(x))


def test_parameters_of_a_module_are_trained_on_its_gradients() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.SiLU(), nn.Linear(3, 1)).double()
    x = tensor(4, 2)
    parameters = tuple(module.parameters())

    def loss(values: torch.Tensor) -> torch.Tensor:
        (force,) = torch.autograd.grad(values.sum(), x, create_graph=True)
        return force.square().sum() + values.square().sum()

    found = torch.autograd.grad(loss(recomputed(module, (x,), parameters)), parameters, allow_unused=True)
    expected = torch.autograd.grad(loss(module(x)), parameters, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-13)


def kept_bytes(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> int:
    """Size of what a gradient that can be differentiated still holds when it has been made."""
    held: list[weakref.ref[torch.Tensor]] = []

    def pack(saved: torch.Tensor) -> torch.Tensor:
        saved = saved.detach()
        held.append(weakref.ref(saved))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        gradient = torch.autograd.grad(function(x).sum(), x, create_graph=True)
    alive = [saved for saved in (reference() for reference in held) if saved is not None]
    assert gradient[0].requires_grad
    storages = [saved.untyped_storage() for saved in alive]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def test_a_gradient_keeps_only_the_inputs() -> None:
    def long(x: torch.Tensor) -> torch.Tensor:
        for _ in range(50):
            x = torch.sin(x)
        return x

    x = tensor(1000)
    plain, again = kept_bytes(long, x), kept_bytes(lambda value: recomputed(long, (value,)), x)
    assert plain > 50 * x.untyped_storage().nbytes()
    assert again < 5 * x.untyped_storage().nbytes()


@pytest.mark.parametrize("frozen", [False, True])
def test_chunks_of_edges_bound_the_memory_of_second_derivatives(frozen: bool) -> None:
    network = ESEN(ESENConfig(sphere_channels=32, hidden_channels=32, edge_channels=32)).double()
    if frozen:
        network.freeze()
    graph = Graph.from_atoms(bulk("Si", "diamond", a=5.4, cubic=True), 6.0)
    batch = GraphBatch.collate([graph])
    vectors = batch.vectors.requires_grad_(True)

    def energy(values: torch.Tensor) -> torch.Tensor:
        return network(batch, vectors=values).energy

    whole = kept_bytes(energy, vectors)
    network.edges_per_chunk = 60
    assert kept_bytes(energy, vectors) < 0.2 * whole

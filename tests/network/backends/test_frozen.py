"""Kernels of frozen networks against the plain modules: the same numbers, to any order of derivatives."""

import copy
import logging
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import SMALL, VARIANTS, batch, difference, network, plain_modules, results_by_threads

from esen_flows import native
from esen_flows.network.backends.cpu import native as network_native
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.esen.edges import EdgeGeometry
from esen_flows.network.esen.esen import ESEN

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.mark.parametrize("limit", [None, 40, 0], ids=["kept", "kept in part", "recomputed"])
@pytest.mark.parametrize("name", VARIANTS)
def test_energy_forces_stress_equal_the_plain_modules(monkeypatch, name: str, limit: int | None) -> None:
    monkeypatch.setattr("esen_flows.network.backends.cpu.edge_chunks.CHUNK_SIZE", 16 * VARIANTS[name].sphere_channels)
    plain = network(VARIANTS[name])
    graph = batch(plain.config)
    with plain_modules():
        expected = energy_forces_stress(plain, graph)
    plain.freeze()
    assert plain.frozen is not None
    plain.edges_per_chunk = limit
    found = energy_forces_stress(plain, graph)
    for part in ("energy", "forces", "stress", "embedding"):
        assert difference(getattr(found, part), getattr(expected, part)) < 1e-12


def test_float32_is_as_good_as_the_plain_modules() -> None:
    with plain_modules():
        exact = energy_forces_stress(network(SMALL), batch(SMALL))
    plain = network(SMALL, torch.float32)
    graph = batch(SMALL, torch.float32)
    with plain_modules():
        usual = energy_forces_stress(plain, graph)
    plain.freeze()
    found = energy_forces_stress(plain, graph)
    for part in ("energy", "forces", "stress"):
        error = difference(getattr(found, part).double(), getattr(exact, part))
        assert error < 2.0 * difference(getattr(usual, part).double(), getattr(exact, part)) + 1e-6


def edge_inputs(made: ESEN, n_edges: int) -> tuple[EdgeGeometry, list[torch.Tensor]]:
    """A few edges of a batch, with x, rotation, envelope and basis as independent variables."""
    graph = batch(made.config)
    geometry = made._geometry(graph, graph.vectors, None).chunks(n_edges)[0]
    x = torch.randn(len(graph.numbers), made.n_coefficients, made.config.sphere_channels, dtype=torch.float64)
    # Independent of each other, but zero outside the blocks of equal degree, as all rotations are.
    inputs = [x, geometry.rotation, geometry.envelope, geometry.basis]
    return geometry, [value.detach().clone() for value in inputs]


@pytest.mark.parametrize("part", [0, 1], ids=["first embedding", "layer"])
def test_gradients_and_gradients_of_gradients(part: int) -> None:
    made = network(replace(SMALL, lmax=2, mmax=1, sphere_channels=3, hidden_channels=2, edge_channels=2))
    made.freeze()
    assert made.frozen is not None
    geometry, (x, rotation, envelope, basis) = edge_inputs(made, 4)
    x = x[:3].requires_grad_(True)
    geometry = replace(geometry, source=geometry.source % 3, target=(geometry.target % 3).sort().values)
    geometry = replace(geometry, species=tuple(table[:3] for table in geometry.species))
    blocks = (rotation != 0).double()

    def total(x: torch.Tensor, rotation: torch.Tensor, envelope: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
        edges = replace(geometry, rotation=rotation * blocks, envelope=envelope, basis=basis)
        return made.frozen.sums(edges, None)[part](x)

    inputs = (x, *(value.requires_grad_(True) for value in (rotation, envelope, basis)))
    assert torch.autograd.gradcheck(total, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(total, inputs, fast_mode=True)


def test_second_derivatives_equal_those_of_the_plain_modules() -> None:
    made = network(SMALL)
    graph = batch(SMALL)
    direction = torch.randn_like(graph.vectors)

    def product() -> torch.Tensor:
        vectors = graph.vectors.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(made(graph, vectors=vectors).energy.sum(), vectors, create_graph=True)
        return torch.autograd.grad(gradient, vectors, direction)[0]

    with plain_modules():
        expected = product()
    made.freeze()
    for limit in (None, 40):
        made.edges_per_chunk = limit
        assert difference(product(), expected) < 1e-12


def test_results_do_not_depend_on_threads() -> None:
    made = network(SMALL)
    made.freeze()
    graph = batch(SMALL)
    results = results_by_threads(lambda: energy_forces_stress(made, graph))
    for other in results[1:]:
        assert difference(other.forces, results[0].forces) < 1e-12


def test_no_memory_is_read_before_it_is_written() -> None:
    made = network(SMALL)
    made.freeze()
    graph = batch(SMALL)
    expected = energy_forces_stress(made, graph)
    torch.use_deterministic_algorithms(True)  # fills uninitialised memory with NaN
    try:
        found = energy_forces_stress(made, graph)
    finally:
        torch.use_deterministic_algorithms(False)
    assert difference(found.forces, expected.forces) < 1e-14
    assert difference(found.stress, expected.stress) < 1e-14


def test_unsorted_edges_are_summed_too() -> None:
    made = network(SMALL)
    graph = batch(SMALL)
    order = torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(0))
    columns = ("source", "target", "vectors", "edge_system")
    mixed = replace(graph, **{name: getattr(graph, name)[order] for name in columns})
    with plain_modules():
        expected = energy_forces_stress(made, graph)
    assert difference(energy_forces_stress(made, mixed).forces, expected.forces) < 1e-12
    made.freeze()
    assert difference(energy_forces_stress(made, mixed).forces, expected.forces) < 1e-12


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_copies_have_kernels_of_their_own(copied) -> None:
    made = network(SMALL)
    assert copied(made).frozen is None
    made.freeze()
    twin = copied(made)
    assert twin.frozen is not None
    assert twin.frozen is not made.frozen
    assert difference(twin(batch(SMALL)).energy, made(batch(SMALL)).energy) < 1e-14


def test_nan_is_not_hidden() -> None:
    made = network(SMALL)
    made.freeze()
    graph = batch(SMALL)
    vectors = graph.vectors.clone()
    vectors[0, 0] = float("nan")
    assert energy_forces_stress(made, replace(graph, vectors=vectors)).energy[0].isnan()


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The state of a new process with an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for cached in (network_native.kernels, native.load):
        cached.cache_clear()
    yield tmp_path
    for cached in (network_native.kernels, native.load):
        cached.cache_clear()


@pytest.mark.parametrize("compiler", ["/nowhere/g++", "false"])
def test_without_a_working_compiler_the_plain_modules_are_used(fresh, monkeypatch, caplog, compiler: str) -> None:
    monkeypatch.setenv("CXX", compiler)
    made = network(SMALL)
    with caplog.at_level(logging.WARNING):
        made.freeze()
    assert made.frozen is None
    assert "without its compiled edge_kernels" in caplog.text
    assert torch.isfinite(energy_forces_stress(made, batch(SMALL)).forces).all()
    assert not list(fresh.glob("**/*.so"))

"""Exact second derivatives: copies and groups of directions, rows, memory, precision, refusals."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from small_force_field import rattled, small_checkpoint

from esen_flows.errors import EvaluationError, NotDifferentiableError, UnknownElementError
from esen_flows.forcefield import hessian
from esen_flows.forcefield.contract import require_differentiable
from esen_flows.forcefield.hessian import hessian_vector_products
from esen_flows.forcefield.network import NetworkForceField


def small_force_field(dtype="float64", memory_bytes=None, **options):
    checkpoint = small_checkpoint(elements=(8, 12, 14), **options)
    return NetworkForceField(checkpoint, dtype=dtype, memory_bytes=memory_bytes)


@pytest.fixture(scope="module", name="force_field")
def _force_field():
    return small_force_field()


@pytest.fixture(name="crystal")
def _crystal():
    return rattled(bulk("MgO", "rocksalt", a=4.2, cubic=True), seed=1)


def products(force_field, atoms, directions, max_edges):
    graph = force_field._graph(atoms)
    options = {"dtype": force_field.torch_dtype, "device": force_field.device}
    return hessian_vector_products(force_field.network, graph, directions, max_edges=max_edges, **options)


def test_hessian_is_the_limit_of_central_differences(force_field, crystal):
    matrix = force_field.hessian(crystal)
    assert matrix.shape == (8, 8, 3, 3)

    def difference(step):
        cells = []
        for sign in (1, -1):
            cells.append(crystal.copy())
            cells[-1].positions[3, 1] += sign * step
        plus, minus = (result.forces for result in force_field.evaluate(cells))
        return -(plus - minus) / (2 * step)

    coarse, fine = difference(2e-3), difference(1e-3)
    richardson = (4 * fine - coarse) / 3
    assert np.abs(matrix[3, :, 1] - richardson).max() < 1e-8 * np.abs(matrix).max()
    assert np.abs(matrix[3, :, 1] - fine).max() < 1e-4 * np.abs(matrix).max()


def test_hessian_is_symmetric_and_obeys_the_sum_rule_without_repair(force_field, crystal):
    matrix = force_field.hessian(crystal)
    size = np.abs(matrix).max()
    assert np.abs(matrix - matrix.transpose(1, 0, 3, 2)).max() < 1e-14 * size
    assert np.abs(matrix.sum(axis=1)).max() < 1e-13 * size


def test_rows_are_those_of_the_whole(force_field, crystal, monkeypatch):
    whole = force_field.hessian(crystal)
    monkeypatch.setattr("esen_flows.forcefield.contract.ROWS_PER_CALL", 3)
    np.testing.assert_allclose(force_field.hessian(crystal), whole, atol=1e-14)
    np.testing.assert_allclose(force_field.hessian(crystal, [5, 0]), whole[[5, 0]], atol=1e-14)
    assert force_field.hessian(crystal, []).shape == (0, 8, 3, 3)


@pytest.mark.parametrize("copies", [1, 2, 5, 100])
def test_groups_of_copies_change_nothing(force_field, crystal, copies, monkeypatch):
    monkeypatch.setitem(hessian.EDGES_PER_PASS, "cpu", 10**6)
    directions = np.random.default_rng(0).normal(size=(7, 8, 3))
    graph = force_field._graph(crystal)
    expected = np.einsum("iajb,kjb->kia", force_field.hessian(crystal).transpose(0, 2, 1, 3), directions)
    found = products(force_field, crystal, directions, hessian.MEMORY_OF_FORCE_CALLS * copies * len(graph.source))
    np.testing.assert_allclose(1.7 * found, expected, atol=1e-13)


def test_a_bare_atom_has_a_zero_hessian(force_field):
    assert np.array_equal(force_field.hessian(Atoms("O")), np.zeros((1, 1, 3, 3)))


def test_edges_in_chunks_change_nothing(force_field, crystal):
    directions = np.random.default_rng(0).normal(size=(3, 8, 3))
    whole = force_field.hessian_vector_products(crystal, directions)
    tight = small_force_field(memory_bytes=1.0)
    assert tight.max_edges < 100
    np.testing.assert_allclose(tight.hessian_vector_products(crystal, directions), whole, atol=1e-13)


def test_single_precision_is_close(force_field, crystal):
    exact = force_field.hessian(crystal, [0])
    rounded = small_force_field("float32").hessian(crystal, [0])
    assert rounded.dtype == np.float64
    assert 0 < np.abs(rounded - exact).max() < 1e-4 * np.abs(exact).max()


def test_nothing_is_left_behind(force_field, crystal):
    before = force_field.force_evaluations
    with torch.no_grad():
        force_field.hessian(crystal, [0])
        assert not torch.is_grad_enabled()
    assert force_field.force_evaluations == before + 3
    assert all(parameter.grad is None for parameter in force_field.network.parameters())


def test_refusals(force_field, crystal):
    direct = small_force_field(direct_forces=True)
    with pytest.raises(NotDifferentiableError, match="exact second derivatives"):
        direct.hessian(crystal)
    with pytest.raises(NotDifferentiableError, match="force_constants=finite_displacement"):
        require_differentiable(direct, "phonons by autodiff")
    with pytest.raises(UnknownElementError):
        force_field.hessian(bulk("Cu"))
    broken = small_force_field()
    broken.scale_ev = float("nan")
    with pytest.raises(EvaluationError, match="second derivatives"):
        broken.hessian(crystal)


def test_out_of_memory_makes_smaller_chunks(force_field, crystal, monkeypatch):
    directions = np.random.default_rng(0).normal(size=(2, 8, 3))
    short = small_force_field()
    asked = []

    def sometimes(*arguments, max_edges, **options):
        asked.append(max_edges)
        if len(asked) < 3:
            raise torch.OutOfMemoryError("as PyTorch says it")
        return hessian_vector_products(*arguments, max_edges=max_edges, **options)

    monkeypatch.setattr("esen_flows.forcefield.network.hessian_vector_products", sometimes)
    expected = force_field.hessian_vector_products(crystal, directions)
    np.testing.assert_allclose(short.hessian_vector_products(crystal, directions), expected, atol=1e-13)
    assert asked[0] > asked[1] > asked[2]

"""Captured calls, with a capture that needs no GPU: its replay repeats the call and writes into the same tensors."""

from dataclasses import fields
from functools import partial

import pytest
import torch
from ase.build import bulk

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.forcefield.batching import EdgeBudget
from esen_flows.forcefield.cuda_graphs import CALLS_BEFORE_CAPTURE, KEPT, CudaGraphRunner, padded, padded_size
from esen_flows.forcefield.load import load_force_field
from esen_flows.network.derivatives import energy_forces_stress

CUTOFF = 5.0


@pytest.fixture(scope="module")
def compute():
    return partial(energy_forces_stress, load_force_field("esen_silicon", dtype="float64").network)


def batch_of(seed, repeat=1, strain=1.0):
    atoms = bulk("Si", a=5.47 * strain, cubic=True) * (repeat, 1, 1)
    atoms.rattle(0.05, seed=seed)
    return GraphBatch.collate([Graph.from_atoms(atoms, CUTOFF)])


class Capture:
    """Capture without a GPU, which counts captures and replays."""

    def __init__(self):
        self.captures = self.replays = 0

    def __call__(self, call):
        self.captures += 1
        result = call()

        def replay():
            self.replays += 1
            for field in fields(result):
                if getattr(result, field.name) is not None:
                    getattr(result, field.name).copy_(getattr(call(), field.name))

        return replay, result


def close(found, expected):
    for name in ("energy", "node_energy", "forces", "stress"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-12, atol=1e-12)


def test_added_edges_change_nothing(compute):
    batch = batch_of(0)
    more = padded(batch, batch.n_edges + 100, CUTOFF)
    assert more.n_edges == batch.n_edges + 100
    close(compute(more), compute(batch))


def test_a_shape_that_recurs_is_captured_once_and_gives_the_same_numbers(compute):
    capture = Capture()
    runner = CudaGraphRunner(compute, CUTOFF, capture)
    for seed in range(CALLS_BEFORE_CAPTURE + 3):
        batch = batch_of(seed)
        close(runner(batch), compute(batch))
    assert (capture.captures, capture.replays) == (1, 3)


def test_shapes_that_do_not_come_back_are_not_captured_and_few_are_kept(compute):
    capture = Capture()
    runner = CudaGraphRunner(compute, CUTOFF, capture)
    for repeat in (1, 1, 2, 2):  # twice in a row, as in a relaxation from which structures leave
        close(runner(batch_of(0, repeat)), compute(batch_of(0, repeat)))
    assert capture.captures == 0
    cheap = CudaGraphRunner(lambda batch: compute(batch_of(0)), CUTOFF, capture)
    for repeat in range(1, KEPT + 2):
        batch = batch_of(0, repeat)
        for _ in range(CALLS_BEFORE_CAPTURE + 1):
            cheap(batch)
    assert capture.captures == KEPT + 1
    cheap(batch_of(7, 1))  # the first graph was dropped
    assert capture.replays == KEPT + 1


def test_graphs_are_given_back_before_batches_become_smaller(compute):
    """A stand-in for a device: recordings hold a third of its memory each, and a call needs half of it."""
    runner = CudaGraphRunner(compute, CUTOFF, Capture())
    for repeat in (1, 2):
        for _ in range(CALLS_BEFORE_CAPTURE + 1):
            runner(batch_of(0, repeat))
    held = len(runner._captured)
    budget = EdgeBudget(1000)

    def call(items):
        if len(runner._captured) / 3 + 0.5 > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return items

    assert held == 2
    assert budget.run(call, [500, 400], [500, 400], runner.clear) == [500, 400]
    assert (budget.max_edges, len(runner._captured)) == (1000, 0)


def test_padded_sizes_are_few_and_near_the_number_of_edges():
    sizes = {padded_size(n) for n in range(8000, 10000)}
    assert len(sizes) <= 4
    assert all(n <= padded_size(n) <= 1.125 * n + 256 for n in range(1, 100_000, 37))

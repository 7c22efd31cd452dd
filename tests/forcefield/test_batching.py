"""Packing by edges, and halving of batches that run out of memory."""

import numpy as np
import pytest
import torch

from esen_flows.errors import InsufficientMemoryError
from esen_flows.forcefield.batching import MINIMUM_EDGES, EdgeBudget, is_out_of_memory, packed

CPU_WORDS = "[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: can't allocate memory: you tried to ..."


@pytest.mark.parametrize(
    ("sizes", "capacity", "groups"),
    [
        ([], 10, []),
        ([3, 1, 2], 10, [[0, 1, 2]]),  # all together: as they came
        ([6, 3, 7, 4], 10, [[2, 1], [0, 3]]),  # in order it would have been three
        ([50, 4, 6], 10, [[0], [2, 1]]),  # larger than a batch: alone
        ([5, 5, 5], 5, [[0], [1], [2]]),
    ],
)
def test_groups_are_full(sizes, capacity, groups):
    assert packed(sizes, capacity) == groups


def test_every_index_is_packed_once_and_fits():
    sizes = np.random.default_rng(0).integers(1, 400, 500).tolist()
    groups = packed(sizes, 1000)
    assert sorted(index for group in groups for index in group) == list(range(500))
    assert max(sum(sizes[index] for index in group) for group in groups) <= 1000
    assert len(groups) <= sum(sizes) / 1000 * 1.02 + 1


class Device:
    """Function of groups of numbers, each a number of edges, that fails above a limit and records its calls."""

    def __init__(self, limit, error, budget):
        self.limit, self.error, self.budget, self.calls = limit, error, budget, []

    def __call__(self, items):
        at_once = min(sum(items), self.budget.max_edges)
        self.calls.append(list(items))
        if at_once > self.limit:
            raise self.error
        return [f"result of {item}" for item in items]


ERRORS = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(CPU_WORDS), MemoryError()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_batch_that_does_not_fit_is_halved_and_so_are_later_ones(error):
    items = [300, 90, 150, 40, 210, 260]
    budget = EdgeBudget(1000)
    device = Device(270, error, budget)
    assert budget.run(device, items, items) == [f"result of {item}" for item in items]
    assert budget.max_edges == 225  # groups of 960, then of 450 edges failed
    failed = len(device.calls)
    again = budget.run(device, items, items)
    assert again == [f"result of {item}" for item in items]
    assert len(device.calls) - failed == len(packed(items, 225))  # nothing fails the second time


def test_a_budget_rises_again_when_there_is_memory_again():
    """Another process has left the device: the batches are as large as at the start after a while."""
    items = [100] * 20
    budget = EdgeBudget(1000)
    device = Device(270, ERRORS[0], budget)
    budget.run(device, items, items)
    assert budget.max_edges == 250
    device.limit = 10_000
    for _ in range(30):
        assert budget.run(device, items, items) == [f"result of {item}" for item in items]
    assert budget.max_edges == 1000


def test_trials_of_more_become_rare_where_memory_stays_scarce():
    items = [10] * 100
    budget = EdgeBudget(1000)
    device = Device(270, ERRORS[0], budget)
    failures = []
    for _ in range(200):
        before = len(device.calls)
        budget.run(device, items, items)
        failures.append(sum(sum(call) > 270 for call in device.calls[before:]))
    assert budget.max_edges <= 270
    assert sum(failures[:20]) > 1
    assert sum(failures[20:]) <= 8  # of 800 calls


def test_a_structure_that_fits_only_in_chunks_is_computed():
    budget = EdgeBudget(10_000)
    device = Device(700, ERRORS[0], budget)
    assert budget.run(device, [9000], [9000]) == ["result of 9000"]
    assert budget.max_edges == 9000 // 16


def test_a_structure_that_never_fits_is_an_error_and_leaves_the_budget():
    budget = EdgeBudget(10_000)
    device = Device(MINIMUM_EDGES - 1, ERRORS[0], budget)
    with pytest.raises(InsufficientMemoryError, match=r"with 5000 edges .*64 edges at a time; use a device with more"):
        budget.run(device, [5000], [5000])
    assert budget.max_edges == 10_000
    assert not InsufficientMemoryError.final  # on a larger machine it may fit


def test_other_errors_are_raised():
    budget = EdgeBudget(100)
    with pytest.raises(RuntimeError, match="shapes"):
        budget.run(Device(10, RuntimeError("shapes cannot be multiplied"), budget), [50], [50])
    assert budget.max_edges == 100
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator"))


def test_the_out_of_memory_error_of_this_pytorch_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
